"""Groups of parameters that share a learning rate and a weight decay."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Literal

from torch import Tensor, nn

Decay = Literal["matrices", "reference"]

# Parameters with more than one dimension that are no matrices: learned inputs, and SigLIP's pooling query.
_TOKENS = ("cls_token", "reg_token", "mask_token", "pos_embed", "latent", "temperature", "logit_scale", "bias")
_LAYER_LISTS = ("blocks", "layers", "h")
_INPUTS = (
    *("cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre", "token_embedding"),
    *("embeddings", "embed_tokens", "wte", "wpe"),
)


def parameter_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay: Decay = "matrices",
    layer_decay: float = 1.0,
    lr_multipliers: Mapping[str, float] | None = None,
    width_power: float = 1.0,
) -> list[dict]:
    """Sort the trainable parameters into groups of equal learning rate and decay, in a stable order.

    decay: "matrices" decays weights of linear and convolution layers only, so no norms, biases, embeddings, learned
    tokens, temperature; "reference" follows ALBEF's released code, which exempts 1-d tensors and biases alone and so
    decays embeddings, class tokens, positions and the temperature. layer_decay: factor on the learning rate per layer
    counted from the top of each tower (`layer_scales`).
    lr_multipliers: name of a part of the net -> factor on its learning rate; the longest name that fits counts.
    width_power: where a module says in `input_ratios()` that parameters have r times as many inputs as at the width
    that the rate was found at, their rate is divided by r ** width_power, and their decay multiplied with it, so that
    both together shrink weights as at that width (1 of Adam: arXiv:2203.03466, table 8).
    Raises ValueError for impossible values, for a name that is no part, and where nothing is trainable.
    """
    if decay not in ("matrices", "reference"):
        raise ValueError(f"decay={decay} is none of matrices, reference")
    if weight_decay < 0:
        raise ValueError(f"weight_decay={weight_decay} must not be negative")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay={layer_decay} must be above 0 and at most 1")
    scales = layer_scales(module, layer_decay) if layer_decay < 1 else {}
    factors = _multipliers(module, lr_multipliers or {})
    spared, ratios = _spared(module), _input_ratios(module)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        leaf = name.rpartition(".")[2]
        if decay == "reference":
            # the reference's temperature is 0-d, hence decayed; ours has shape (1,) for the sake of sharding
            decayed = leaf in ("temperature", "logit_scale") or (parameter.ndim > 1 and leaf != "bias")
        else:
            decayed = parameter.ndim > 1 and not leaf.endswith(_TOKENS) and id(parameter) not in spared
        wider = ratios.get(name, 1.0) ** width_power
        key = (scales.get(name, 1.0) * factors.get(name, 1.0) / wider, weight_decay * wider if decayed else 0.0)
        groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("nothing to optimise: every parameter is frozen")
    return [{"params": params, "lr": lr * scale, "weight_decay": wd} for (scale, wd), params in groups.items()]


def layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """Give layer i of a tower's L the factor layer_decay**(L - i), what lies below its first layer ** (L + 1), the
    rest 1 (arXiv:2106.08254).

    A tower is a list of layers called blocks, layers or h; or several in a row that a module names in `layer_lists`,
    the lowest first. Raises ValueError for a net without such lists.
    """
    scales: dict[str, float] = {}
    towers = list(_towers(module))
    if not towers:
        raise ValueError(f"layer_decay={layer_decay}: {type(module).__name__} has no list of layers; set it to 1")
    for prefix, first_layer in towers:
        depth = sum(length for _, length in first_layer.values())
        for name, _ in module.named_parameters():
            if not name.startswith(prefix):
                continue
            where, *rest = name[len(prefix) :].split(".")
            if where in first_layer:
                scales[name] = layer_decay ** (depth - first_layer[where][0] - int(rest[0]))
            elif where.startswith(_INPUTS):
                scales[name] = layer_decay ** (depth + 1)
    return scales


def _towers(module: nn.Module) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Prefix of every tower, and its lists: name -> (layers below it, its own layers). Lists within layers are parts
    of these.
    """
    covered: set[int] = set()
    for path, part in module.named_modules():
        if id(part) in covered:
            continue
        names = getattr(part, "layer_lists", None) or [
            name for name in _LAYER_LISTS if isinstance(getattr(part, name, None), nn.Sequential | nn.ModuleList)
        ]
        below, lists = 0, {}
        for name in names:
            lists[name] = (below, len(getattr(part, name)))
            below += len(getattr(part, name))
            covered.update(id(inner) for inner in getattr(part, name).modules())
        if lists:
            yield path + "." * bool(path), lists


def _spared(module: nn.Module) -> set[int]:
    """Embeddings, also where a matrix is tied to one, and what timm's nets ask to leave alone."""
    spared = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for part in module.modules():
        own = dict(part.named_parameters()) if hasattr(part, "no_weight_decay") else {}
        spared |= {id(own[name]) for name in (part.no_weight_decay() if own else ()) if name in own}
    return spared


def _input_ratios(module: nn.Module) -> dict[str, float]:
    """Parameter -> ratio, of all modules that have `input_ratios`."""
    told = {path: part.input_ratios() for path, part in module.named_modules() if hasattr(part, "input_ratios")}
    return {path + "." * bool(path) + name: ratio for path, own in told.items() for name, ratio in own.items()}


def _multipliers(module: nn.Module, by_prefix: Mapping[str, float]) -> dict[str, float]:
    """Parameter -> factor."""
    names = [name for name, _ in module.named_parameters()]
    prefixes = {".".join(name.split(".")[:count]) for name in names for count in range(1, name.count(".") + 2)}
    factors: dict[str, float] = {}
    for prefix, factor in sorted(by_prefix.items(), key=lambda item: len(item[0])):
        part = prefix if prefix in prefixes else prefix.removeprefix("net.")  # as in checkpoints
        if part not in prefixes:
            close = difflib.get_close_matches(part, prefixes, n=1, cutoff=0.0)
            raise ValueError(f"lr_multipliers: {prefix} is no part of the net; did you mean {close[0]}?")
        if factor <= 0:
            raise ValueError(
                f"lr_multipliers: {prefix}={factor} must be positive; a part that shall not learn is frozen by its "
                "own key"
            )
        factors |= {name: float(factor) for name in names if name == part or name.startswith(f"{part}.")}
    return factors
