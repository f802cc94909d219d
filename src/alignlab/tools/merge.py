"""An adapter and its base as one language model, with a note of what it was made of."""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig

from alignlab.files.checksums import fingerprint, write_sums
from alignlab.files.writing import write_folder
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.lora import merged
from alignlab.models.language.paths import gguf_file, load_tokenizer, resolve_model
from alignlab.models.language.reward import HEAD_FILE, reward_head, save_classifier

NOTE = "merged.json"


def merge(source: Path, target: Path) -> int:
    """Writes base and adapter as one model that needs neither; returns the number of its tensors.

    Added up in float32 and stored in the base's own dtype; a reward adapter becomes a reward model. `merged.json`
    beside it names both and their fingerprints.

    Args:
        source: a run that trained an adapter, or an adapter's folder.
        target: a new folder: weights, config, tokenizer, check sums.

    Raises:
        ValueError: there is no adapter, its base isn't the one that it was trained on, or the target is there already.
    """
    base, adapter = resolve_model(str(source))
    if adapter is None:
        raise ValueError(f"convert merge: {source} has no adapter: it is one model already")
    if target.exists():
        raise ValueError(f"convert merge: {target} is there already; name a new folder")
    model = load_language_model(str(source))  # refuses a base that has changed
    rewards = (Path(adapter) / HEAD_FILE).is_file()
    whole = merged(model).to(stored_dtype(base))
    reward = reward_head(whole, adapter) if rewards else None
    note = {
        "base": base,
        "base_fingerprint": fingerprint(Path(base)) if Path(base).is_dir() else None,
        "adapter": str(Path(adapter).resolve()),
        "adapter_fingerprint": fingerprint(Path(adapter)),
    }

    def write(folder: Path) -> None:
        if reward is None or not save_classifier(reward, folder):
            whole.save_pretrained(folder)
        if reward is not None:
            reward.save_head(folder)
        load_tokenizer(str(source)).save_pretrained(folder)
        if (ends := Path(adapter) / "generation_config.json").is_file():
            shutil.copy(ends, folder)
        (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        write_sums(folder)

    write_folder(target, write)
    return len(whole.state_dict())


def stored_dtype(base: str) -> torch.dtype:
    """What a model's config says that its files are in; float32 where it doesn't."""
    folder, gguf = gguf_file(base)
    stored = None if gguf else AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype
    return stored or torch.float32
