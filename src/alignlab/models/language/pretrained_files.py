"""transformers' models from folders, whole: a tensor that is missing would be drawn at random, one left over would be
left out, both with a warning only.
"""

import re
from typing import Any

from alignlab.files.checksums import check_sums
from alignlab.files.kinds import few
from alignlab.hub.hint import fetch_hint


def from_folder(kind: Any, folder: str, *, trunk: bool = False, **settings: Any) -> Any:
    """`kind.from_pretrained(folder, **settings)`, strictly. `trunk`: heads in the file, and a pooler that isn't, don't
    matter.

    Raises ValueError, one line, for what can't be read or doesn't fit its config.
    """
    from transformers.utils import logging

    check_sums(folder, "")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report is told below, as an error
    try:
        # mismatched shapes come into the report instead of ending the reading without their names
        model, report = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,  # None asks the terminal, and takes a yes
            **settings,
        )
    except Exception as error:  # whatever damaged files and configs lead to
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(reason + fetch_hint(str(folder))) from error
    finally:
        logging.set_verbosity(verbosity)
    missing = [name for name in report.get("missing_keys", ()) if not (trunk and "pooler" in name)]
    extra = [
        name
        for name in report.get("unexpected_keys", ())
        if not trunk or re.search(r"(^|\.)(layers?|h|blocks)\.\d+\.", name)
    ]
    shapes = [str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in report.get("mismatched_keys", ())]
    said = [
        f"{what}: {few(sorted(names))}"
        for what, names in (("missing", missing), ("without a place in the model", extra), ("of another shape", shapes))
        if names
    ]
    if said:
        raise ValueError(f"its tensors and its config.json don't belong together; {'; '.join(said)}")
    return model
