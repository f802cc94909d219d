"""The folder that is handed over."""

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.utils import logging

from alignlab.files.writing import write_folder
from alignlab.methods.language_models.export import export_model, quantised
from alignlab.tools.hand_over.job import Handed, Row, opened
from alignlab.tools.hand_over.recipes import RECIPES, Recipe, as_label
from alignlab.tools.hand_over.rewards import SHOWN, check_rewards, write_rewards

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # of prompts that are texts


def hand_over(library: str, source: Path, target: Path, plugins: Sequence[str] = ()) -> str:
    """Writes `target`; returns what people should know of it.

    Raises:
        ValueError: it is there already, the run is none of a policy, or something of it can't be handed over.
    """
    if target.exists():
        raise ValueError(f"hand-over: {target} is there already; name a new folder")
    if library == "verl" and find_spec("pyarrow") is None:
        raise ValueError("hand-over: verl reads Parquet, which needs the extra: pip install 'alignlab[rlhf]'")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    run = opened(source, list(plugins))
    rows = {split: run.rows(split) for split in ("train", "val")}
    chats = not isinstance(rows["train"][0]["prompt"], str)
    recipe = RECIPES[library](run.job, chats)
    if quantised(run.method.net.model):
        raise ValueError(
            f"hand-over: {source} trains an adapter on a base in few bits; alignlab convert merge merges it"
        )
    run.method.prepare(run.data.tokenizer, run.data.renderer)
    told: list[str] = []

    def write(folder: Path) -> None:
        export_model(run.method.net.model, folder / "model", whole=True)
        run.data.tokenizer.save_pretrained(folder / "model")
        notes = write_rewards(run, folder)
        worst = check_rewards(run, folder, rows["val"] or rows["train"])
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        _write_rows(library, rows, folder, chats)
        (folder / recipe.file).write_text(recipe.text, encoding="utf-8")
        told.append(_about(library, run, recipe, notes, worst))
        (folder / "README.md").write_text(told[0], encoding="utf-8")

    write_folder(target, write)
    return told[0]


def _write_rows(library: str, rows: dict[str, list[Row]], folder: Path, chats: bool) -> None:
    if library == "verl":
        import pyarrow
        from pyarrow import parquet

        for split, several in rows.items():
            table = pyarrow.Table.from_pylist([_of_verl(row, number, split) for number, row in enumerate(several)])
            parquet.write_table(table, folder / f"{split}.parquet")
        if not chats:
            _speak_plainly(folder / "model")
        return
    for split, several in rows.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for row in several:
                content = {"prompt": row["prompt"], "label": as_label(row)} if library == "openrlhf" else row
                file.write(json.dumps(content, ensure_ascii=False) + "\n")


def _of_verl(row: Row, number: int, split: str) -> dict[str, Any]:
    prompt = row["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {
        "data_source": "alignlab",
        "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in turns],
        "ability": "alignment",
        "reward_model": {"style": "rule", "ground_truth": str(row.get("answer", ""))},
        "extra_info": {"index": number, "split": split, "row": as_label(row)},
    }


def _speak_plainly(folder: Path) -> None:
    """verl renders every prompt by the tokenizer's template: of prompts that are texts, the text."""
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file.write_text(json.dumps(content | {"chat_template": PLAIN}, indent=2) + "\n", encoding="utf-8")


def _about(library: str, run: Handed, recipe: Recipe, notes: list[str], worst: float) -> str:
    start = "python train.py" if library == "trl" else "GPUS=8 sh run.sh"
    lacking = "".join(f"* {text}\n" for text in recipe.without) or "* nothing\n"
    about = "".join(f"* {note}\n" for note in notes)
    return f"""# {run.place.name}, handed over to {library}

`{start}`, in this folder. `model/` is the policy as the run left it, and the reference that the KL penalty is
measured from there.

`reward.py` scores as the run did: the largest difference on {SHOWN} of its prompts is {worst:.2g}.
{about}
Settings of the run that {library} has no word for:

{lacking}"""
