"""`alignlab plan` of training on pictures against what a card takes: two steps each, peak of torch's allocator.

python benchmarks/picture_plan.py        # on a machine with a GPU; a row a job; no Hydra needed
"""

import json
from collections.abc import Callable
from functools import partial

from alignlab.cost.picture_plan import PictureJob, picture_batch, picture_parts
from alignlab.losses.contrastive import InfoNce
from alignlab.methods.albef import AlbefMethod
from alignlab.methods.albef_entailment import AlbefEntailmentMethod
from alignlab.methods.albef_nlvr2 import AlbefNlvr2Method
from alignlab.methods.albef_vqa import AlbefVqaMethod
from alignlab.methods.clip import ClipMethod
from alignlab.methods.step import Step
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.types.pairs import Vocabulary

import torch
from torch import nn

WORDS = Vocabulary(30522, 0, 101, 102, 103, 3128)


def albef(size: int) -> Callable[..., Albef]:
    """model/net=albef_vit_b16."""
    return partial(Albef, partial(AlbefEncoder, partial(vision_transformer, image_size=size)))


def clip() -> Callable[..., Clip]:
    """model/net=clip_vit_b16."""
    return partial(Clip, partial(vision_transformer, pre_norm=True), TextTower)


JOBS = {
    "CLIP, 64 pairs": (partial(ClipMethod, clip(), InfoNce()), PictureJob(64, 224, 77, "bf16-mixed")),
    "CLIP, 64 pairs, checkpointing": (
        partial(ClipMethod, clip(), InfoNce(), gradient_checkpointing=True),
        PictureJob(64, 224, 77, "bf16-mixed"),
    ),
    "ALBEF, 16 pairs": (partial(AlbefMethod, albef(256), queue_size=65536), PictureJob(16, 256, 30, "bf16-mixed")),
    "ALBEF, 8 pairs, float32": (partial(AlbefMethod, albef(256), queue_size=65536), PictureJob(8, 256, 30)),
    "VQA, 8 questions": (partial(AlbefVqaMethod, albef(384)), PictureJob(8, 384, 20, "bf16-mixed")),
    "VQA, 8 questions, float32": (partial(AlbefVqaMethod, albef(384)), PictureJob(8, 384, 20)),
    "NLVR2, 8 rows": (partial(AlbefNlvr2Method, albef(384)), PictureJob(8, 384, 30, "bf16-mixed")),
    "entailment, 16 rows": (partial(AlbefEntailmentMethod, albef(384)), PictureJob(16, 384, 30, "bf16-mixed")),
}


def compared(make: Callable[..., nn.Module], job: PictureJob) -> dict[str, float | str]:
    """Predicted and allocated GB of a job."""
    build = partial(make, vocabulary=WORDS)
    parts, _ = picture_parts(build, WORDS, job, Step)
    del parts["context"]  # torch's allocator doesn't know it
    if not torch.cuda.is_available():
        return {"predicted": sum(parts.values()) / 1e9}
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    method = build().cuda().train()
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-6)
    with torch.device("cuda"):
        batch = picture_batch(method, job)
    for number in range(2):
        step = Step(10**6 + number)
        method.before_step(step)
        with torch.autocast("cuda", torch.bfloat16, enabled=job.precision == "bf16-mixed"):
            output = method(batch, step)
        output.loss.backward()
        method.after_backward(output.kept)
        optimizer.step()
        optimizer.zero_grad()
    peak, predicted = torch.cuda.max_memory_allocated() - before, sum(parts.values())
    dominant = max(parts, key=parts.get)
    found = {"predicted": predicted / 1e9, "largest": f"{dominant} {parts[dominant] / 1e9:.2f}"}
    return found | {"allocated": peak / 1e9, "ratio": predicted / peak}


def main() -> None:
    """A row of JSON for each job."""
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU", torch.__version__, flush=True)
    for name, (make, job) in JOBS.items():
        try:
            print(json.dumps({"job": name, **compared(make, job)}), flush=True)
        except Exception as error:  # the others are worth having
            print(json.dumps({"job": name, "error": repr(error)}), flush=True)


if __name__ == "__main__":
    main()
