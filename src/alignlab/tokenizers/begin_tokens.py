"""Begin tokens that are doubled, missing, or there or not depending on who calls; chats by a tokenizer's template."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.tokenizers.opening import file_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "alignlab"
CHAT = [{"role": "user", "content": PROBE}]


def wrapper(place: str) -> "PreTrainedTokenizerBase | None":
    """transformers' tokenizer of a folder (or of a file's folder) with a tokenizer_config.json; None where it has none
    or transformers can't read it."""
    file = file_of(place)
    if file is None or not (file.is_dir() or file.name == "tokenizer.json"):
        return None
    folder = file if file.is_dir() else file.parent
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever a foreign folder brings about; the comparison doesn't need it
        return None


def lint(tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, str]]:
    """Findings about the begin token of a tokenizer, by calling it in every way that people do."""
    begin, name = tokenizer.bos_token_id, tokenizer.bos_token
    called = list(tokenizer(PROBE)["input_ids"])
    findings = []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    ways = {"tokenizer(text)": called, "tokenizer.encode(text)": list(tokenizer.encode(PROBE))}
    if backend is not None:
        ways["tokenizers.Tokenizer.encode(text)"] = list(backend.encode(PROBE).ids)
    if tokenizer.chat_template:
        rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
        again = list(tokenizer(rendered)["input_ids"])
        if begin is not None and again[:2] == [begin, begin]:
            text = f"the chat template writes {name} and tokenizer(rendered) sets another: use add_special_tokens=False"
            findings.append({"finding": "begin token doubled", "text": text})
    if begin is None:
        return findings
    with_it = [way for way, ids in ways.items() if ids[:1] == [begin]]
    if with_it and len(with_it) < len(ways):
        without = [way for way in ways if way not in with_it]
        text = f"{', '.join(with_it)} sets {name}, {', '.join(without)} doesn't"
        findings.append({"finding": "begin token depends on the call", "text": text})
    if not with_it:
        wanted = bool(tokenizer.init_kwargs.get("add_bos_token"))
        text = f"{name} is declared, and no way of calling sets it" + (
            ", though add_bos_token is true" if wanted else ""
        )
        findings.append({"finding": "begin token missing" if wanted else "begin token not set", "text": text})
    if called[:2] == [begin, begin]:
        findings.append({"finding": "begin token doubled", "text": f"tokenizer(text) sets {name} twice"})
    return findings


def chat_renderer(tokenizer: "PreTrainedTokenizerBase | None") -> tuple[Callable[[Sequence[dict[str, Any]]], str], str]:
    """How a chat becomes text, and a word on it: by the tokenizer's template, or plainly."""
    if tokenizer is not None and tokenizer.chat_template:
        return lambda messages: tokenizer.apply_chat_template(list(messages), tokenize=False), ""
    return _plain, "no chat template: messages as `role: content` lines"


def _plain(messages: Sequence[dict[str, Any]]) -> str:
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)
