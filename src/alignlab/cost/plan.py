"""`alignlab plan`: what a language model's training needs in memory, by part and phase, before anything is downloaded
or allocated.

Legend: B rows, S tokens of a row (P prompt + T response), L layers, h width, f width of the MLP, V vocabulary. Bytes;
GB = 1e9 bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignlab.cost.model_sizes import Sizes

Stage = Literal["sft", "reward", "dpo", "ppo", "generate"]
WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0}
QUANTISED_BYTES = {
    "int8": 1.0,
    "llm_int8": 1.0,
    "nf4": 0.5625,
}  # nf4: 4 bits and a float32 scale for every 64 weights
FULL_BYTES = 4.0  # of what is float32 whatever the weights are
CONTEXT_BYTES = 0.45e9  # what a CUDA context and its libraries take
CHUNK_BYTES = 2 * 64 * 2**20  # logits of one chunk and their gradient (losses/language_modelling.py)


@dataclass(frozen=True)
class Training:
    """What is to be trained, and how."""

    stage: Stage = "ppo"
    batch_size: int = 1  # rows of one forward and backward pass
    prompt: int = 512  # tokens
    response: int = 512  # tokens
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantization: Literal["int8", "llm_int8", "nf4"] | None = None
    lora_rank: int | None = 16  # None: everything is trained
    lora_targets: Sequence[str] | str = "all-linear"
    gradient_checkpointing: bool = False
    chunked_logits: bool = True
    rollout_batch: int | None = None  # rows generated at a time; None: batch_size
    shared_trunk: bool = True  # PPO's critic is a head on the policy; else a trunk of its own
    gpu: bool = True


@dataclass
class Plan:
    """Bytes by part of each phase; parts that are there all the time are in every phase."""

    phases: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def peak(self) -> tuple[str, float]:
        """The phase that needs most, and how much: phases don't overlap."""
        return max(((name, sum(parts.values())) for name, parts in self.phases.items()), key=lambda item: item[1])

    @property
    def dominant(self) -> tuple[str, float]:
        """The largest part of the largest phase."""
        return max(self.phases[self.peak[0]].items(), key=lambda item: item[1])


def plan(sizes: Sizes, job: Training) -> Plan:
    """Peak memory of a job: context + weights + adapters + optimizer, and per phase KV cache, activations, logits,
    transient copies.

    With AdamW in float32, trained parameters cost their weight, a gradient and 8 bytes of moments; bf16 weights are
    trained as they are. Raises ValueError for what can't be trained.
    """
    if job.quantization is not None and job.lora_rank is None:
        raise ValueError(
            f"--quantization {job.quantization} needs an adapter: quantised weights can't be trained (set --lora-rank)"
        )
    width = WEIGHT_BYTES[job.dtype]
    whole = sizes.linear * _linear_bytes(job, sizes) + sizes.rest * width
    standing = {"context": CONTEXT_BYTES} if job.gpu else {}
    standing |= {"weights": whole}
    if job.stage != "generate":
        standing |= _trained(sizes, job, width)
    tokens = job.prompt + job.response
    rows = job.batch_size * (2 if job.stage in ("reward", "dpo") else 1)
    phases: dict[str, dict[str, float]] = {}
    if job.stage in ("ppo", "generate"):
        generated = job.rollout_batch or job.batch_size
        cache = 2 * sizes.layers * sizes.kv_width * width * generated * tokens
        phases["generate"] = {"kv cache": cache, "logits": generated * sizes.vocabulary * (width + 8)}
    if job.stage in ("ppo", "dpo"):
        phases["score"] = {
            "logits": _logits(sizes, job, rows, training=False),
            "activations": rows * tokens * sizes.mlp_width * 4 * width,
        }
    if job.stage != "generate":
        phases["update"] = {
            "activations": activations(sizes, job, rows * tokens, width),
            "logits": 0.0 if job.stage == "reward" else _logits(sizes, job, rows, training=True),
        }
    if job.quantization is not None:  # a layer's weights in the compute type, while it is used
        for parts in phases.values():
            parts["dequantised layer"] = sizes.largest_linear * width
    return Plan({name: standing | parts for name, parts in phases.items()})


def activations(sizes: Sizes, job: Training, tokens: int, width: float) -> float:
    """Bytes that the backward pass needs from the forward pass.

    Per token and layer: norms 2h, queries, keys, values h + 2 h_kv, MLP f (3f where gated), and the inputs of the
    linear layers that get a gradient (frozen ones don't need theirs). In bfloat16 Llama's norms compute in float32,
    and every adapter, itself float32, keeps a float32 copy of its input. With checkpointing one h a layer, and one
    layer whole. Without dropout; attention as by SDPA, without scores.
    For GELU and full training that is 32 B S h a layer in bf16: arXiv:2205.05198, eq. 1 and 2, has 34 with dropout's
    masks.
    """
    h, f = sizes.width, sizes.mlp_width
    gated = 3 if sizes.gated else 1
    if job.lora_rank is not None and width < FULL_BYTES:
        inputs = sum(layer.fan_in for layer in sizes.targets(job.lora_targets)) * FULL_BYTES
    else:
        inputs = sum(sizes.linear_inputs(job.lora_targets if job.lora_rank is not None else "all-linear")) * width
    layer = 2 * h * (FULL_BYTES if sizes.gated else width) + (h + 2 * sizes.kv_width + gated * f) * width + inputs
    stored = (
        tokens * (sizes.layers * h * width + layer) if job.gradient_checkpointing else tokens * sizes.layers * layer
    )
    return stored + tokens * h * width * 2  # embeddings and the last norm


def _trained(sizes: Sizes, job: Training, width: float) -> dict[str, float]:
    heads = (sizes.width + 1) * 16.0 if job.stage in ("reward", "ppo") else 0.0
    if job.lora_rank is not None:
        adapter = sizes.lora(job.lora_rank, job.lora_targets)
        # the adapter itself is float32: weight, gradient, two moments
        return {
            "adapters": adapter * 4.0,
            "gradients": adapter * 4.0 + heads / 4,
            "optimizer": adapter * 8.0 + heads / 2,
        }
    copies = {"sft": 0, "reward": 0, "dpo": 1, "ppo": 1}[job.stage]
    trunks = 1 + (job.stage == "ppo" and not job.shared_trunk)
    parts = {"gradients": sizes.total * width * trunks, "optimizer": sizes.total * 8.0 * trunks + heads}
    if trunks > 1:
        parts["critic"] = sizes.total * width
    return parts | ({"reference": sizes.total * width} if copies else {})


def _linear_bytes(job: Training, sizes: Sizes) -> float:
    if job.quantization is None:
        return WEIGHT_BYTES[job.dtype]
    scale = 4.0 / sizes.mean_fan_in if job.quantization.endswith("int8") else 0.0  # one float32 a row
    return QUANTISED_BYTES[job.quantization] + scale


def _logits(sizes: Sizes, job: Training, rows: int, training: bool) -> float:
    """Chunked: one chunk and its gradient.

    Whole: logits in the compute type, in float32, their softmax and gradient (14 bytes in bf16).
    """
    tokens = rows * (job.response if job.chunked_logits else job.prompt + job.response)
    if job.chunked_logits:
        return min(CHUNK_BYTES, tokens * sizes.vocabulary * 8.0)
    return tokens * sizes.vocabulary * (WEIGHT_BYTES[job.dtype] + (12 if training else 8))


def report(sizes: Sizes, job: Training, memory_gb: float | None = None) -> str:
    """The plan as text: parameters, a table of parts by phase, what dominates, whether it fits."""
    needs = plan(sizes, job)
    trained = sizes.total if job.lora_rank is None else sizes.lora(job.lora_rank, job.lora_targets)
    lines = [
        f"{sizes.name}: {sizes.total / 1e9:.3f}e9 parameters ({sizes.linear / 1e9:.3f}e9 in linear layers), trained "
        f"{trained / 1e6:.2f}e6"
        if job.stage != "generate"
        else f"{sizes.name}: {sizes.total / 1e9:.3f}e9 parameters ({sizes.linear / 1e9:.3f}e9 in linear layers)",
        f"KV cache {2 * sizes.layers * sizes.kv_width * WEIGHT_BYTES[job.dtype] / 1e6:.3f} MB a token",
        "",
    ]
    parts = list(dict.fromkeys(part for phase in needs.phases.values() for part in phase))
    lines.append(f"{'GB':<18}" + "".join(f"{name:>10}" for name in needs.phases))
    for part in parts:
        cells = (phase.get(part) for phase in needs.phases.values())
        lines.append(
            f"{part:<18}" + "".join(f"{value / 1e9:>10.2f}" if value is not None else f"{'-':>10}" for value in cells)
        )
    lines.append(f"{'in all':<18}" + "".join(f"{sum(phase.values()) / 1e9:>10.2f}" for phase in needs.phases.values()))
    (phase, peak), (part, size) = needs.peak, needs.dominant
    lines += [
        "",
        f"peak {peak / 1e9:.2f} GB in phase {phase}; {part} dominates with {size / 1e9:.2f} GB "
        f"({100 * size / peak:.0f} %)",
    ]
    return "\n".join([*lines, *fits(peak, memory_gb)])


def fits(peak: float, memory_gb: float | None) -> list[str]:
    """A line that says whether it does; none where nobody asked."""
    if memory_gb is None:
        return []
    rest = memory_gb - peak / 1e9
    if rest >= 0:
        return [f"fits in {memory_gb:g} GB, {rest:.2f} to spare"]
    return [f"does not fit in {memory_gb:g} GB: {-rest:.2f} GB too much"]
