"""What the tests of configs and runs share."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
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
