"""LoRA adapters on a frozen base: one PeftModel, several named adapters, and switching between them that leaves
gradients alone.

Names in use: "policy" (trained), "reference" (frozen), "reward". No adapter at all is the base model.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from alignlab.files.checksums import check_sums
from alignlab.files.weights import read_file, weights_of
from alignlab.models.language.paths import adapter_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_lora(
    model: "PreTrainedModel | PeftModel",
    *,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: Sequence[str] | str = "all-linear",
    rank_stabilised: bool = False,
    name: str = "policy",
) -> "PeftModel":
    """Add a trainable adapter W + (alpha / rank) B A to the linear layers `targets` (arXiv:2106.09685); everything
    else is frozen but for the rows of new tokens (`model.new_ids`).

    rank_stabilised: alpha / sqrt(rank) instead (arXiv:2312.03732). A model with a "reference" adapter gets the new one
    as a copy of it, in the same shape. Raises ValueError if peft is missing or no layer has such a name.
    """
    LoraConfig, PeftModel, get_peft_model = _peft()
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1")
    if isinstance(model, PeftModel):
        if "reference" in model.peft_config:
            _copy_adapter(model, "reference", name)
        else:
            model.add_adapter(name, next(iter(model.peft_config.values())))
    else:
        new_ids = getattr(model, "new_ids", ())
        config = LoraConfig(
            trainable_token_indices=_rows_by_end(model, new_ids) if new_ids else None,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            use_rslora=rank_stabilised,
            task_type="CAUSAL_LM" if hasattr(model, "lm_head") or hasattr(model, "embed_out") else None,
        )
        try:
            model = get_peft_model(model, config, adapter_name=name)
        except ValueError as error:
            raise ValueError(f"targets={targets}: {str(error).strip().splitlines()[0]}") from error
    train_only(model, name)
    return model


def train_only(model: "PeftModel", name: str | None) -> None:
    """Make one adapter active and trainable, everything else frozen; None freezes all."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if name is not None:
        model.set_adapter(name)
        for key, parameter in model.named_parameters():
            if f".{name}." in key:
                parameter.requires_grad_(True)


def as_reference(model: "PeftModel", folder: str) -> "PeftModel":
    """The same base with the adapter of `folder` as the frozen adapter "reference"."""
    loaded = put_on(model.unload(), folder, "reference")
    train_only(loaded, None)
    return loaded


def put_on(model: "PreTrainedModel | PeftModel", folder: str, name: str = "default") -> "PeftModel":
    """A model with the adapter of a folder on it, all of it.

    Raises ValueError, one line, for what PEFT can't read or what doesn't belong to this model, and where tensors of
    the adapter are missing or left over.
    """
    _, PeftModel, _ = _peft()
    from peft import get_peft_model_state_dict

    check_sums(folder, f"adapter={folder}")
    adapter_config(folder)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            if isinstance(model, PeftModel):
                model.load_adapter(folder, name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
    except Exception as error:  # of a damaged config or file: whatever PEFT stumbles over
        raise ValueError(f"adapter={folder}: PEFT can't put it onto this model ({_reason(error)})") from error
    file = next(
        (f for f in (Path(folder) / "adapter_model.safetensors", Path(folder) / "adapter_model.bin") if f.is_file()),
        None,
    )
    if file is not None:
        stored = weights_of(read_file(file, "adapter"), file, "adapter")
        wanted = get_peft_model_state_dict(
            model, adapter_name=name, save_embedding_layers=any("lora_" not in key for key in stored)
        )
        missing = [key for key in wanted if key not in stored and ("lora_" in key or "lora_" not in "".join(stored))]
        extra = [key for key in stored if key not in wanted]
        for kind, keys in (("it has no tensors for", missing), ("this model has no place for its", extra)):
            if keys:
                more = f" and {len(keys) - 1} more" if keys[1:] else ""
                raise ValueError(f"adapter={folder}: {kind} {keys[0]}{more}; was it trained on another model?")
    return model


def _reason(error: Exception) -> str:
    """Why PEFT has failed, in one line: of tensors of another size the first."""
    text = str(error).strip()
    match = re.search(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", text, re.DOTALL)
    if match:
        count = text.count("size mismatch for")
        more = f", and {count - 1} more" if count > 1 else ""
        return (
            f"it was trained on a model of other sizes: {match[1]} is {match[2]} and would have to be {match[3]}{more}"
        )
    return (" ".join(text.split()) or type(error).__name__)[:300]


@contextmanager
def untied(model: nn.Module) -> Iterator[None]:
    """While it lasts, embedding and head are two matrices if one of them has an adapter: merged into a shared one it
    would change the other too.
    """
    undo = untie(model)
    try:
        yield
    finally:
        undo()


def untie(model: nn.Module) -> Callable[[], None]:
    """As `untied`, for good; gives a function that undoes it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    adapted = any(hasattr(end, "lora_embedding_A") or hasattr(end, "lora_A") for end in ends)
    inner = [end.get_base_layer() if hasattr(end, "get_base_layer") else end for end in ends]
    if not adapted or inner[1] is None or inner[0].weight is not inner[1].weight:
        return lambda: None
    shared, config = inner[1].weight, base.config
    inner[1].weight = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
    kept = (config.tie_word_embeddings, base.__dict__.get("all_tied_weights_keys"))
    config.tie_word_embeddings = False
    if kept[1] is not None:
        base.all_tied_weights_keys = {}

    def undo() -> None:
        inner[1].weight, config.tie_word_embeddings = shared, kept[0]
        if kept[1] is not None:
            base.all_tied_weights_keys = kept[1]

    return undo


def merged(model: "PeftModel") -> "PreTrainedModel":
    """The base with its adapter merged into it, for good; equal to the model with the adapter on top, tied embeddings
    or not.
    """
    untie(model)
    return model.merge_and_unload()


@contextmanager
def use(model: nn.Module, name: str | None) -> Iterator[None]:
    """Run with adapter `name`, or with the base alone (None), inside; before and after as it was. A model without
    adapters is left alone.

    Unlike peft's `set_adapter` and `disable_adapter` it never touches requires_grad and doesn't walk the model again
    on every entry. Raises ValueError for a name that no layer has.
    """
    layers = _tuner_layers(model)
    if name is not None and layers and not any(name in layer.lora_A for layer in layers if hasattr(layer, "lora_A")):
        raise ValueError(f"there is no adapter {name}; there are {', '.join(model.peft_config)}")
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._disable_adapters = name is None
        if name is not None:
            layer._active_adapter = [name]
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def reference(model: nn.Module) -> "contextmanager":
    """`use` for the reference policy: its frozen adapter where there is one (SFT was an adapter itself), else the
    base.
    """
    return use(model, "reference" if "reference" in getattr(model, "peft_config", {}) else None)


def has_adapters(model: nn.Module) -> bool:
    """Whether the reference policy can be had from this model itself."""
    return hasattr(model, "peft_config")


def _tuner_layers(model: nn.Module) -> list:
    """Layers with adapters; found once for a set of adapters and kept on the model."""
    if not has_adapters(model):
        return []
    key = tuple(model.peft_config)
    kept = model.__dict__.get("_alignlab_tuner_layers")
    if kept is None or kept[0] != key:
        from peft.tuners.tuners_utils import BaseTunerLayer

        kept = (key, [module for module in model.modules() if isinstance(module, BaseTunerLayer)])
        model.__dict__["_alignlab_tuner_layers"] = kept
    return kept[1]


def _copy_adapter(model: "PeftModel", source: str, target: str) -> None:
    model.add_adapter(target, model.peft_config[source])
    state = model.state_dict()
    for key, value in state.items():
        if f".{target}." in key:
            value.copy_(state[key.replace(f".{target}.", f".{source}.")])


def _rows_by_end(model: nn.Module, ids: Sequence[int]) -> dict[str, list[int]]:
    """Names of the embeddings, one where they are tied -> the rows of them to train, as PEFT takes them."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tied = ends[1] is None or ends[0].weight is ends[1].weight
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(end)]: list(ids) for end in ends[: 1 if tied else 2]}


def _peft() -> tuple:
    try:
        from peft import LoraConfig, PeftModel, get_peft_model
    except ImportError as error:
        raise ValueError("model/peft=lora needs the package peft: pip install 'alignlab[rlhf]'") from error
    return LoraConfig, PeftModel, get_peft_model
