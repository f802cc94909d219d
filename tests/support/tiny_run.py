"""What the tests of configs and runs share."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# A run of seconds: CLIP on a handful of scenes.
TINY = (
    "model=clip",
    "data=emoji_scenes",
    "callbacks=default",
    "debug=fast",
    "data.batch_size=8",
    "data.num_train=64",
    "data.num_val=16",
    "data.num_workers=0",
)
# Every model at a size of seconds, for runs of all of them.
TINY_SCENES = (
    "data=emoji_scenes",
    "data.num_train=80",
    "data.num_val=8",
    "data.batch_size=8",
    "data.num_workers=0",
    "data.image_size=32",
)
TINY_LANGUAGE = ("data.batch_size=4", "data.max_length=24")
TINY_LLAMA = ("model.net.width=32", "model.net.depth=1", "model.net.heads=2", "+data.vocab_size=300")
TINY_TOWERS = tuple(
    f"model.net.{tower}.{key}" for tower in ("vision", "text") for key in ("width=32", "depth=1", "heads=2")
)
TINY_ALBEF = (
    *(f"model.net.encoder.{key}" for key in ("vision.width=32", "vision.depth=1", "text_width=32", "text_layers=1")),
    "model.net.encoder.fusion_layers=1",
    "model.fuse_from_step=1",
    "callbacks.samples.num_captions=2",
    "callbacks.samples.num_scenes=1",
)
TINY_TASKS = {
    model: (f"model={model}", f"data=emoji_scenes_{model.partition('_')[2]}", *TINY_SCENES[1:], *sizes)
    for model, sizes in (
        *((f"albef_{task}", TINY_ALBEF[:5]) for task in ("entailment", "vqa", "nlvr2")),
        *((f"clip_{task}", TINY_TOWERS) for task in ("entailment", "vqa")),
    )
}
