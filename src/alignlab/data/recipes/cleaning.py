"""What tokenizers of released nets do with a text before they look for words in it."""

import html
import re
import string
import unicodedata
from collections.abc import Callable

_QUOTES = str.maketrans(dict.fromkeys("‘’‚‛ʼ", "'") | dict.fromkeys("“”„‟", '"'))
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st", "Ĳ": "IJ", "ĳ": "ij"}
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffb]")
_WIDE = str.maketrans({chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u3000": " "})
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def lower(text: str) -> str:
    """As CLIP's own tokenizer (openai/CLIP, simple_tokenizer.py; open_clip's `lower`): entities of HTML read, quotes,
    ligatures and widths made plain, one space for several, lower case.

    Of what the package ftfy does for these, the repair of wrongly decoded text is left out.
    """
    text = html.unescape(text) if "<" not in text else text  # ftfy leaves entities alone beside tags
    text = text.translate(_LIGATURES).translate(_WIDE).translate(_QUOTES)
    text = _CONTROL.sub("", unicodedata.normalize("NFC", text))
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def canonical(text: str) -> str:
    """As SigLIP's tokenizer: lower case, no punctuation, one space for several (google-research/big_vision,
    prompt_engineering.py)."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


CLEANING: dict[str, Callable[[str], str]] = {"none": str, "lower": lower, "canonical": canonical}
