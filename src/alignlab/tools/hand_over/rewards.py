"""A run's rewards as files that need nothing of alignlab, and the proof that they score alike."""

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignlab.data.language.rendering import Renderer
from alignlab.methods.rewards.calling import TRUTH
from alignlab.methods.rewards.function import FunctionReward
from alignlab.methods.rewards.scoring import Rewards
from alignlab.methods.rlhf.reward import ModelReward, Reward
from alignlab.methods.rlhf.reward_text import Scored
from alignlab.models.language.paths import export_folder
from alignlab.models.language.reward import HEAD_FILE, RewardModel
from alignlab.tools.hand_over import reward as standalone
from alignlab.tools.hand_over.job import Handed, Row

FOLDER = "rewards"
SHOWN = 4  # rows that both score
OWN = "alignlab"
_ELSEWHERE = """import json, sys
import alignlab  # torchvision beside a CPU's torch
sys.path.insert(0, ".")
import reward
print(json.dumps(reward.score(*json.load(sys.stdin))))
"""


@dataclass
class _Around:
    """Ids that training puts before and behind a text."""

    start: list[int]
    end: list[int]


def write_rewards(run: Handed, folder: Path) -> list[str]:
    """Writes `reward.py`, `rewards.json` and what they read; returns what to know about them.

    Raises:
        ValueError: a reward that can't stand alone.
    """
    reward = run.method.reward
    named = reward.named if isinstance(reward, Rewards) else {"reward": reward}
    weights = run.method.scoring.weights
    parts, notes = [], []
    for name, one in named.items():
        part, note = _part(one, name, folder, run.data.renderer)
        parts.append({"name": name, "weight": float(weights.get(name, 1.0)), **part})
        notes += [note] if note else []
    (folder / "rewards.json").write_text(json.dumps(parts, indent=2) + "\n", encoding="utf-8")
    shutil.copy(inspect.getfile(standalone), folder / "reward.py")
    return notes


def _part(reward: Reward, name: str, folder: Path, renderer: Renderer) -> tuple[dict[str, Any], str]:
    if isinstance(reward, FunctionReward):
        function, way = reward.function, reward.way
        module = sys.modules[function.__module__]
        described = {
            "function": function.__name__,
            "kind": way.kind,
            "accepts": None if way.accepts is None else sorted(way.accepts),
            "truth": list(TRUTH),
        }
        if module.__name__.split(".")[0] == OWN:
            return {"file": module.__name__, **described}, f"{name} is alignlab's own and needs it installed there"
        file = Path(FOLDER) / f"{name}.py"
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        shutil.copy(inspect.getsourcefile(function), folder / file)
        return {"file": file.as_posix(), **described}, ""
    if isinstance(reward, ModelReward):
        return _model(reward, Path(FOLDER) / name, folder, renderer), f"{name} scores one text at a time"
    raise ValueError(f"hand-over: the reward {name} is a {type(reward).__name__}, which can't stand alone")


def _model(reward: ModelReward, place: Path, folder: Path, renderer: Renderer) -> dict[str, Any]:
    model: RewardModel = reward.model
    source = export_folder(reward.path)
    if not (source / HEAD_FILE).exists() or (source / "adapter_config.json").exists():
        raise ValueError(
            f"hand-over: {reward.path} is no whole reward model; alignlab convert merge makes one of an adapter"
        )
    shutil.copytree(source, folder / place, ignore=shutil.ignore_patterns("merged", "SHA256SUMS"))
    own = reward.tokenizer or renderer.tokenizer
    own.save_pretrained(folder / place)
    seen = renderer if reward.tokenizer is None else renderer.of(own)
    scale = (model.mean.item(), model.std.item()) if reward.normalised else (0.0, 1.0)
    text = (
        seen.example("a film", " that is good").ids,
        own("a film that is good", add_special_tokens=False)["input_ids"],
    )
    chat = None
    if getattr(own, "chat_template", None):
        turns = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "that is good"}]
        whole = own.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
        chat = asdict(_around(seen.example(turns[:1], turns[1:]).ids, whole, reward.path))
    return {
        "model": place.as_posix(),
        "head": HEAD_FILE,
        "pool": model.pool,
        "mean": scale[0],
        "std": scale[1],
        "text": asdict(_around(*text, reward.path)),
        "chat": chat,
    }


def _around(trained: list[int], words: list[int], path: str) -> _Around:
    trained, words = list(trained), list(words)
    for first in range(len(trained) - len(words) + 1):
        if trained[first : first + len(words)] == words:
            return _Around(trained[:first], trained[first + len(words) :])
    raise ValueError(f"hand-over: {path} was trained on texts that its tokenizer doesn't make of them")


def check_rewards(run: Handed, folder: Path, rows: list[Row]) -> float:
    """The largest difference between the scores of the run's rewards and those of the files, on some prompts with each
    other's beginnings for responses.

    Raises:
        ValueError: it is no rounding.
    """
    rows = rows[:SHOWN]
    prompts = [row["prompt"] for row in rows]
    texts = [standalone.text_of(prompt) for prompt in prompts]
    responses = [f" {' '.join(text.split()[-5:])}" for text in texts[1:] + texts[:1]]
    columns = [{name: value for name, value in row.items() if name != "prompt"} for row in rows]
    renderer, end = run.data.renderer, run.data.tokenizer.eos_token_id
    sequences = [
        [*renderer.prompt(p), *renderer.tokenizer(r, add_special_tokens=False)["input_ids"], end]
        for p, r in zip(prompts, responses, strict=True)
    ]
    batch = Scored(texts, responses, sequences, [True] * len(rows), prompts, columns)
    wanted = run.method.scoring(run.method.reward, batch).total.tolist()
    names = dict.fromkeys(name for row in columns for name in row)
    values = {name: [row.get(name) for row in columns] for name in names}
    found = _scored(folder, prompts, responses, values)
    worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    if worst > 1e-3 * max(1.0, *map(abs, wanted)):
        raise ValueError(
            f"hand-over: the reward scores {found[0]:.4g} from its file where the run has {wanted[0]:.4g}; it can't "
            "stand alone"
        )
    return worst


def _scored(folder: Path, prompts: list, responses: list[str], columns: dict[str, list]) -> list[float]:
    """What the files say, in a process that sees this folder alone."""
    given = json.dumps([prompts, responses, columns])
    command = [sys.executable, "-P", "-c", _ELSEWHERE]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended"])[-1]
        raise ValueError(f"hand-over: the reward doesn't run by itself: {reason}")
    return json.loads(done.stdout.splitlines()[-1])
