"""The main job, `experiment=albef_emoji_scenes`: seconds and recall. A part of `make gpu`."""

from commands import Command, run
from rows import Rows, options

METRICS = {
    "main job, R@1 of ITC, text to image": "val/text_to_image_recall_at_1",
    "main job, R@1 re-ranked, text to image": "val/reranked_text_to_image_recall_at_1",
}


def main() -> None:
    chosen = options(__doc__)
    rows = Rows(chosen.folder)
    small = (
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "data.num_train=64",
        "data.num_val=32",
        "data.batch_size=8",
    )
    overrides = (
        "experiment=albef_emoji_scenes",
        "seed=0",
        *(("trainer=gpu",) if chosen.full else ("trainer=cpu", *small)),
    )
    done = run(Command("run", overrides, limit=600), chosen.folder)
    if done.error:
        rows.add("main job", error=done.error)
        raise SystemExit(1)
    result = done.result
    rows.add("main job, seconds", done.seconds, "s", training=result.seconds)
    rows.add("main job, steps a second", result.steps / result.seconds, "1/s")
    for name, key in METRICS.items():
        rows.add(name, result.metrics.get(key), "")


if __name__ == "__main__":
    main()
