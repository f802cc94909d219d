"""The commands of README and docs are run as they stand, at small sizes: slow."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pages import COMMANDS
from served_model import write_language_model
from tiny_run import REPOSITORY

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow
SECONDS = 900  # for one command beside another test process
SMALL = ("trainer.max_steps=2", "trainer.val_check_interval=2", "++trainer.limit_val_batches=1", "data.batch_size=8")
# What a page names, and the runs that stand for it.
RUNS = {
    "albef": ("model=albef",),
    "albef_vqa": ("model=albef_vqa",),
    "clip": ("model=clip",),
    "siglip": ("model=siglip",),
    "rlhf_movies_sft": ("experiment=rlhf_movies_sft",),
    "rlhf_movies_reward": ("experiment=rlhf_movies_reward",),
    "ppo": ("model=ppo", "model.net.path=outputs/rlhf_movies_sft", "model.reward=my_module.my_function"),
}
# Needs more than this machine has: Slurm, several GPUs, a download, hours.
ELSEWHERE = re.compile(
    r"srun|launcher|trainer=gpu|SMOLLM2|kills\.py|^make|^git|^cd|^pip|^source|pre-commit|tensorboard|pytest|kit/|albef_published"
    r"|alignlab train|alignlab new|fetch|^python infer.py$|search=faiss|rlhf_smollm2|stages|chain=|experiment=rlhf_movies$|mode: max-autotune|quantization int8"
)
TRAINED = [
    pytest.param(words, id=f"{page}: {' '.join(words)[:90]}")
    for page, words in COMMANDS
    if not ELSEWHERE.search(" ".join(words))
]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to type the commands in, with everything that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("train.py", "infer.py", "conf"):
        (folder / name).symlink_to(REPOSITORY / name)
    write_language_model(folder / "FOLDER", chat=True)
    write_language_model(folder / "my_model")
    adapter(folder)
    rows = {
        "questions.jsonl": [{"question": "What is red?", "target": "a rose"}, {"question": "What is green?"}],
        "sums.jsonl": [{"question": "1 + 1?", "target": "2"}],
        "shots.jsonl": [{"question": "2 + 2?", "answer": "4", "rationale": "two and two"} for _ in range(4)],
        "prompts.jsonl": [{"prompt": f"Say {n}.", "answer": str(n)} for n in range(60)],
        "problems.jsonl": [{"prompt": f"Say {n}.", "answer": str(n)} for n in range(60)],
        "texts.jsonl": [{"prompt": f"Say {n}.", "completion": f"It is {n}."} for n in range(200)],
        "pairs.jsonl": [
            {"prompt": f"Say {n}.", "chosen": f"{n}", "rejected": "no", "image": "PHOTOS/00.png", "text": "a tree"}
            for n in range(200)
        ],
    }
    for name, content in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    (folder / "prompts.txt").write_text("One\nTwo\n")
    (folder / "my_module.py").write_text(
        "def my_function(prompts, responses):\n    return [float(len(r)) for r in responses]\n"
    )
    (folder / "my_rewards.py").write_text(
        "def right(prompts, responses, answer):\n    return [float(a in r) for r, a in zip(responses, answer)]\n\n\n"
        "def short(prompts, responses):\n    return [-len(r) / 100 for r in responses]\n"
    )
    (folder / "PHOTOS").mkdir()
    for n in range(9):
        Image.new("RGB", (48, 48), (25 * n, 99, 200 - 20 * n)).save(folder / "PHOTOS" / f"{n:02}.png")
    for name, overrides in RUNS.items():
        done = run([sys.executable, "train.py", *overrides, *SMALL, f"hydra.run.dir=outputs/{name}"], folder)
        assert done.returncode == 0, f"{overrides}: {done.stderr[-2000:]}"
    shutil.copy(folder / "outputs" / "albef" / "checkpoints" / "last.ckpt", folder / "weights.ckpt")
    return folder


def adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "FOLDER")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(folder / "ADAPTER")


def typed(words: list[str]) -> list[str]:
    """The command with its placeholders filled, at a small size."""
    words = [re.sub(r"^(resume|model)=outputs/generate/<time>", r"\1=outputs/generate", word) for word in words]
    words = [re.sub(r"/<[^>]*>", "", word) for word in words]
    words = [re.sub(r"^(model\.net\.path)=<[^>]*>", r"\1=outputs/rlhf_movies_sft", word) for word in words]
    words = [re.sub(r"^(model\.(?:reward|judge))=<[^>]*>", r"\1=outputs/rlhf_movies_reward", word) for word in words]
    words = [word.replace("--nproc-per-node=8", "--nproc-per-node=2") for word in words]
    if "--nproc-per-node" in words:
        words[words.index("--nproc-per-node") + 1] = "2"
    program = words[0] if words[0] != "python" else words[1]
    bin_dir = Path(sys.executable).parent
    command = [sys.executable, *words[1:]] if words[0] == "python" else [str(bin_dir / words[0]), *words[1:]]
    if "train.py" in words and not {"--help", "--cfg"} & set(words):
        resumed = any(word.startswith("resume=") for word in words)
        command += ["trainer.max_steps=3"] if resumed else SMALL
        command = [re.sub(r"^(seed|optim\.lr)=([^,]*),.*", r"\1=\2", word) for word in command]
    if program == "infer.py" and not {"--help"} & set(words) and not any(w.startswith("resume=") for w in words):
        if not any(w.startswith(("task=retrieve", "task=classify", "task=match", "task=ground")) for w in words):
            command += [] if any("task=benchmark" in w for w in words) else ["sampling.max_new_tokens=4"]
    return command


@pytest.mark.parametrize("words", TRAINED)
def test_runs_as_it_stands(words: list[str], here: Path) -> None:
    if "resume=outputs/generate/<time>" in words:
        run([sys.executable, "infer.py", "model=FOLDER", "input=prompts.txt", "output=outputs/generate"], here)
    command = typed(words)
    done = run(command, here)
    shown = f"{' '.join(command)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, shown
