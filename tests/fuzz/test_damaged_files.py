"""200 flipped, cut, emptied and foreign files over every door, from a seed: the right answer, or one line with the file's name.

    python -m pytest tests/fuzz/test_damaged_files.py -m slow

ALIGNLAB_SEED=n draws others.
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.configs.check import check
from alignlab.configs.filling import filled
from alignlab.configs.roots import InferenceRoot
from alignlab.data.image_text import picture_list
from alignlab.data.image_text.pairs import ImageTextPairs
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rendering import Renderer
from alignlab.files.checksums import write_sums
from alignlab.methods.language_models.export import export_model
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.lora import add_lora
from alignlab.models.language.paths import load_tokenizer, note_origin
from alignlab.models.language.reward import RewardModel, load_reward_model
from alignlab.runs import resuming
from alignlab.runs.building import load_system
from alignlab.runs.infer import infer
from alignlab.runs.train import train
from alignlab.tasks.pictures.index import index_pictures
from alignlab.tasks.pictures.subject import VisionLanguage
from damage import damage
from served_model import write_language_model
from tiny_run import TINY

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("ALIGNLAB_SEED", "0"))
Prepare = Callable[..., DictConfig]
RIGHT = "right"


@dataclass
class Door:
    """A way to read what others have written.

    Attributes:
        opens: gives something to compare.
        files: patterns of what is damaged.
        times: how often.
        summed: whether what is written has check sums: then another answer than the right one is wrong.
    """

    opens: Callable[[Path, Prepare], Any]
    files: tuple[str, ...]
    times: int
    summed: bool = True


def numbers(module: torch.nn.Module) -> float:
    return float(sum(p.detach().double().abs().sum() for p in module.parameters()))


def loaded(place: Path, prepared: Prepare) -> str:
    """Of which checkpoint the weights are: the best, or another sound one, which is said."""
    system, _ = load_system(place / "run")
    found = system.state_dict()
    for file in sorted((place.parent / "sound").glob("*.ckpt")):
        held = torch.load(file, weights_only=True)["state_dict"]
        if all(torch.equal(value, held[name]) for name, value in found.items()):
            return "a sound checkpoint"
    return "damaged weights"


def resumed(place: Path, prepared: Prepare) -> Any:
    run, words = place / "run", [f"resume={place / 'run'}"]
    cfg = resuming.resumed(prepared(run, *words), words)
    check(filled(cfg))
    result = train(cfg)
    return result.status, result.steps


def inferred(place: Path, prepared: Prepare, *words: str) -> Any:
    out = place / "answers"
    words = words or (
        f"model_path={place / 'base'}",
        "prompt_text=abc",
        "sampling.max_new_tokens=4",
        "backend=compiled",
    )
    cfg = prepared(out, *words, program="infer")
    cfg = filled(resuming.resumed(cfg, words, root=InferenceRoot), InferenceRoot)
    check(cfg, root=InferenceRoot)
    infer(cfg)
    return (out / "predictions.jsonl").read_text()


def answered_again(place: Path, prepared: Prepare) -> Any:
    if not (place / "answers").exists():
        inferred(place, prepared)
    return inferred(place, prepared, f"resume={place / 'answers'}")


def of_language(place: Path, name: str) -> float:
    load_tokenizer(str(place / name))
    return numbers(load_language_model(str(place / name)))


def indexed(place: Path, prepared: Prepare) -> Any:
    system, datamodule = load_system(place / "run")
    subject = VisionLanguage(system, datamodule, place / "run")
    found = index_pictures(subject, sorted((place / "pictures").glob("*.png")), place / "index")
    return [round(float(value), 3) for value in found.features.sum(1)]


def listed(place: Path, prepared: Prepare) -> Any:
    for name in ("list.jsonl", "list.csv", "list.json", "list.tsv"):
        if (place / "lists" / name).exists():
            ImageTextPairs(str(place / "lists" / name), 16, image_dir=str(place / "pictures"), val_share=0.5)
    renderer = Renderer(load_tokenizer(str(place / "base")), 64)
    OwnRows(path=str(place / "lists" / "rows.jsonl"), split_seed=0, val_share=0.2).rows("train", renderer, 0)


def kept_list(place: Path, prepared: Prepare) -> Any:
    """A list of pictures out of the user's cache, as large lists are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setattr(picture_list, "KEPT_FROM", 0)
        found = ImageTextPairs(
            str(place / "lists" / "list.jsonl"), 16, image_dir=str(place / "pictures"), val_share=0.5
        )
        return [tuple(found.splits["train"][number].captions) for number in range(found.num_train)]


CHECKPOINTS = ("run/checkpoints/*.ckpt", "run/checkpoints/best.ckpt")
MODEL = ("{}/*.safetensors", "{}/*.json")
DOORS = {
    "resume": Door(resumed, (*CHECKPOINTS, "run/checkpoints/index.json", "run/config.yaml", "run/metrics.csv", "run/tokenizer/*"), 30, False),
    "load_system": Door(loaded, (*CHECKPOINTS, "run/tokenizer/*"), 40),
    "load_system's config": Door(loaded, ("run/config.yaml",), 10, False),
    "infer": Door(inferred, tuple(m.format("base") for m in MODEL), 25),
    "infer again": Door(answered_again, ("answers/*.jsonl", "answers/*.json", "answers/config.yaml"), 10, False),
    "export": Door(lambda place, _: of_language(place, "base"), tuple(m.format("base") for m in MODEL), 25),
    "adapter": Door(lambda place, _: of_language(place, "adapter"), tuple(m.format("adapter") for m in MODEL), 20),
    "reward": Door(lambda place, _: numbers(load_reward_model(place / "reward")), tuple(m.format("reward") for m in MODEL), 10),
    "index": Door(indexed, ("index/*.pt",), 10),
    "cache of lists": Door(kept_list, ("cache/alignlab/lists/*/*",), 10),
    "lists": Door(listed, ("lists/*",), 20, False),
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(made: dict[str, Path], prepared: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each kind of thing, made once."""
    if made:
        return made["whole"]
    place = tmp_path_factory.mktemp("whole")
    words = ("trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=2", "trainer.val_check_interval=2")
    train(prepared(place / "run", *TINY, *words))
    write_language_model(place / "base")
    write_sums(place / "base")
    net = note_origin(load_language_model(str(place / "base")), str(place / "base"), None)
    RewardModel(net.model).save_head(place / "base")  # its folder is made of the base's
    shutil.copytree(place / "base", place / "reward")
    next((place / "base").glob("*head*.safetensors")).unlink()
    write_sums(place / "reward")
    export_model(add_lora(net, rank=2), place / "adapter")
    write_sums(place / "adapter")
    (place / "pictures").mkdir()
    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 10, 200)).save(place / "pictures" / f"{number}.png")
    (place / "lists").mkdir()
    rows = [(f"{number % 6}.png", f"a picture, of {number} things") for number in range(20)]
    (place / "lists" / "list.jsonl").write_text("".join(f'{{"image": "{i}", "caption": "{c}"}}\n' for i, c in rows))
    (place / "lists" / "list.csv").write_text("image,caption\n" + "".join(f'{i},"{c}"\n' for i, c in rows))
    (place / "lists" / "list.tsv").write_text("image\tcaption\n" + "".join(f"{i}\t{c}\n" for i, c in rows))
    (place / "lists" / "rows.jsonl").write_text('{"prompt": "ab", "completion": "cd"}\n' * 5)
    made["whole"] = place
    indexed(place, prepared)
    inferred(place, prepared)
    return place


@pytest.mark.parametrize("name", DOORS)
def test_the_right_answer_or_one_line(name: str, whole: Path, prepared: Prepare, tmp_path: Path) -> None:
    door, dice = DOORS[name], random.Random(f"{SEED} {name}")
    wrong, ends = [], {RIGHT: 0, "refused": 0, "other": 0}

    def copy() -> Path:
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        file = place / "adapter" / "adapter_config.json"
        file.write_text(file.read_text().replace(str(whole), str(place)))
        write_sums(place / "adapter")
        if name == "infer":
            shutil.rmtree(place / "answers")
        return place

    shutil.copytree(whole / "run" / "checkpoints", tmp_path / "sound")
    expected = door.opens(copy(), prepared)
    for _ in range(door.times):
        place = copy()
        if name in ("index", "cache of lists"):  # which go by their absolute place
            door.opens(place, prepared)
        files = sorted(
            {file for pattern in [dice.choice(door.files)] for file in place.glob(pattern) if file.is_file()}
        )
        file = dice.choice(files)
        how, begin = damage(file, dice), time.monotonic()
        try:
            answer = door.opens(place, prepared)
            ends[RIGHT if answer == expected else "other"] += 1
            if door.summed and answer != expected:
                wrong.append(f"{how}: another answer")
        except ValueError as error:
            ends["refused"] += 1
            lines = getattr(error, "problems", [str(error)])
            if any("\n" in line for line in lines) or not any(
                file.name in line or str(file.parent) in line for line in lines
            ):
                wrong.append(f"{how}: {' / '.join(lines)[:300]!r}")
        except BaseException as error:
            wrong.append(f"{how}: {type(error).__name__}: {str(error)[:300]!r}")
        if time.monotonic() - begin > 60:
            wrong.append(f"{how}: {time.monotonic() - begin:.0f} s")
    print(name, ends)
    assert not wrong, f"{len(wrong)} of {door.times}:\n" + "\n".join(wrong)
