"""What training on pictures needs in memory, counted on an imagined net: parameters, activations, by part.

Legend: B rows of a batch, P pictures of a row, T tokens, A answers. Bytes; GB = 1e9 bytes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor, nn

from alignlab.cost.imagined import imagined
from alignlab.cost.memory import Counts, Precision, counts, training_memory
from alignlab.cost.plan import CONTEXT_BYTES, fits
from alignlab.cost.saved_activations import saved_bytes
from alignlab.types.pairs import PairBatch, Vocabulary
from alignlab.types.picture_tasks import Answers, JudgedBatch, QuestionBatch

ANSWER_TOKENS = 6  # start, words, end
FAR = 10**6  # a step at which whatever begins later has begun


class PictureJob(NamedTuple):
    """What a batch is made of."""

    rows: int
    image_size: int
    tokens: int
    precision: Precision = "32-true"
    answers: int = 4  # of a question
    optimizer_states: int = 2  # tensors of a parameter's size; Muon: 1
    gpu: bool = True


def picture_parts(
    build: Callable[[], nn.Module], words: Vocabulary, job: PictureJob, step: Callable[[int], Any]
) -> tuple[dict[str, float], Counts]:
    """Bytes by part of a training step that ends with the gradients still there, and what the method consists of.

    Activations are what autograd keeps of the method's own forward pass, counted op by op on tensors without numbers:
    the casts of `bf16-mixed`, the teacher's pass without gradients and recomputed blocks included.

    Args:
        build: makes a method.
        step: makes a `Step` of a number.

    Raises:
        ValueError: the method learns from something else than pictures.
    """
    dtype = torch.bfloat16 if job.precision == "bf16-true" else torch.float32
    with imagined(lambda: build().to(dtype), gpu=job.gpu) as method:
        batch = picture_batch(method, job)
        size = counts(method)
        method.train()
        known = [*method.parameters(), *method.buffers()]
        with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16-mixed"):
            kept = saved_bytes(lambda: method(batch._replace(image=batch.image.to(dtype)), step(FAR)), known)
    memory = training_memory(size, "none", 1, job.precision, optimizer_states=job.optimizer_states)
    parts = {"context": CONTEXT_BYTES} if job.gpu else {}
    parts |= {
        "weights": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "queues": memory.buffers,
        "activations": kept,
        "pictures": batch.image.numel() * dtype.itemsize,
    }
    return parts, size


def picture_report(title: str, parts: dict[str, float], size: Counts, memory_gb: float | None) -> str:
    """The parts as text: parameters, a table, what dominates, whether it fits."""
    peak = sum(parts.values())
    part, largest = max(parts.items(), key=lambda item: item[1])
    lines = [f"{title}: {size.trainable / 1e6:.1f}e6 parameters trained, {size.frozen / 1e6:.1f}e6 not", "", "GB"]
    lines += [f"{name:<18}{value / 1e9:>10.2f}" for name, value in {**parts, "in all": peak}.items()]
    lines += ["", f"{part} dominates with {largest / 1e9:.2f} GB ({100 * largest / peak:.0f} %)"]
    return "\n".join([*lines, *fits(peak, memory_gb)])


def picture_batch(method: nn.Module, job: PictureJob) -> Any:
    """A batch of the kind that a method learns from, on the default device, with nothing to be seen.

    Raises ValueError where it has no pictures.
    """
    kind = get_type_hints(type(method).forward).get("batch")
    rows, answers = job.rows, job.rows * job.answers
    image = torch.zeros(rows, 3, job.image_size, job.image_size)
    number = torch.arange(rows)
    if kind is PairBatch:
        return PairBatch(image, *_texts(rows, job.tokens), number, number)
    if kind is JudgedBatch:
        several = image[:, None].repeat(1, getattr(method, "pictures", 1), 1, 1, 1)
        return JudgedBatch(several, *_texts(rows, job.tokens), torch.zeros_like(number))
    if kind is QuestionBatch:
        asked = torch.arange(answers) // job.answers
        said = Answers(*_texts(answers, ANSWER_TOKENS))
        return QuestionBatch(
            image, *_texts(rows, job.tokens), said, asked, torch.ones(answers), listed=torch.zeros_like(asked)
        )
    raise ValueError(f"batches of {getattr(kind, '__name__', kind)} have no pictures")


def _texts(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(rows, tokens, dtype=torch.int64), torch.ones(rows, tokens, dtype=torch.bool)
