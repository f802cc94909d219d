"""What a language method leaves in `<run directory>/export/`: a whole model, or an adapter whose base lies somewhere
else.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import nn

from alignlab.models.language.decoder.exchange import as_transformers
from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.lora import untied
from alignlab.models.language.paths import origin_of, write_base

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def build_net(build: Callable[..., nn.Module], peft: Callable[..., nn.Module] | None, vocabulary: object) -> nn.Module:
    """The net of a method: built for the vocabulary, with an adapter if there is to be one.

    Raises:
        ValueError: a quantised net without an adapter.
    """
    net = build(vocabulary=vocabulary)
    if peft is None and quantised(net):
        raise ValueError("quantization: quantised weights can't be trained; add an adapter, peft=lora")
    return peft(net) if peft is not None else net


def export_model(net: nn.Module, folder: Path, *, adapter: str = "policy", whole: bool = False) -> None:
    """Writes a net in Hugging Face's format: the adapter alone where its base can be named, else everything merged.

    A training run goes on with the net afterwards: merging is undone.

    Args:
        whole: merged in any case.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(net, Decoder):
        as_transformers(net).save_pretrained(folder)
    elif not hasattr(net, "peft_config"):
        net.save_pretrained(folder)
    elif (base := origin_of(net)) is not None and not whole:
        _save_adapter(net, folder, adapter, base)
    else:
        merged = net.get_base_model()
        with untied(net):
            for layer in _adapted(net):
                layer.merge(adapter_names=[adapter])
            try:
                state = {_plain(key): value for key, value in merged.state_dict().items() if not _of_adapter(key)}
                merged.save_pretrained(folder, state_dict=state)
            finally:
                for layer in _adapted(net):
                    layer.unmerge()


def _save_adapter(net: nn.Module, folder: Path, adapter: str, base: str) -> None:
    net.save_pretrained(folder, selected_adapters=[adapter], save_embedding_layers=False)
    for name in ADAPTER_FILES:
        if (folder / adapter / name).exists():
            (folder / adapter / name).replace(folder / name)
    shutil.rmtree(folder / adapter, ignore_errors=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"base_model_name_or_path": base}, indent=2), encoding="utf-8")
    write_base(folder, base)


def quantised(net: nn.Module) -> bool:
    """Whether some weights aren't floating-point numbers: nothing can be merged into those."""
    return any(not parameter.is_floating_point() for parameter in net.parameters())


def _adapted(net: nn.Module) -> list[nn.Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in net.modules() if isinstance(module, BaseTunerLayer)]


def _of_adapter(key: str) -> bool:
    return "lora_" in key or "trainable_tokens_" in key


def _plain(key: str) -> str:
    return key.replace(".base_layer.", ".").replace(".token_adapter.", ".")
