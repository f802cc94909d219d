"""PPO updates side by side with TRL 1.12's PPOTrainer: seconds, phases, peak memory, written to docs/benchmarks.md.

    python benchmarks/ppo.py [--rounds 5] [--dry-run]

Same architecture for policy, reference and reward (a Llama of 22.7 M parameters, vocabulary 32,000), same prompts (32 tokens), response length
(64, never ended), batch (8), epochs (4), one minibatch, AdamW, all weights trained. TRL trains a second trunk for the critic; ours is measured both
with a shared trunk, its default, and with a second one. Each side is a process of its own that makes one update when it is told to, in turn; medians
over the rounds after one that doesn't count. Peak memory: highest resident size above what the process held before any net was built, from processes
that do nothing else.
Needs the extras `parity` and `rlhf`.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path

from alignlab import torchvision_ops  # noqa: F401  (before TRL, which imports torchvision)

# isort: split
import torch
from measuring import EXACT_MEMORY, bare_trainer, resident_bytes, write_section

SIDES = ("TRL 1.12", "alignlab", "alignlab, separate critic")
BATCH, PROMPT, RESPONSE, EPOCHS, VOCABULARY, WIDTH = 8, 32, 64, 4, 32_000, 384
PAD, END = 0, 1


def config():
    """Of all nets."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=END,
        num_labels=1,
    )


def prompts(number: int) -> torch.Tensor:
    """Ids (B, P) of one update."""
    return torch.randint(2, VOCABULARY, (BATCH, PROMPT), generator=torch.Generator().manual_seed(number))


class Turns:
    """The worker's end of the conversation: waits for its turn, measures phases, reports."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.started = 0.0

    def wait(self) -> None:
        """Block until it is this side's turn."""
        if sys.stdin.readline().strip() != "go":
            os._exit(0)
        self.phases, self.started = {}, time.perf_counter()

    def report(self) -> None:
        """Say how long the update took."""
        whole = time.perf_counter() - self.started
        print("REPORT " + json.dumps({"update": whole, "peak": resident_bytes("VmHWM"), **self.phases}), flush=True)

    def timed(self, name: str, function):
        """The function, its time added to a phase."""

        def wrapper(*args, **kwargs):
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

        return wrapper


def work_trl(turns: Turns, updates: int) -> None:
    """TRL's trainer; its callback at the end of an update waits for the next turn."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    class Pause(TrainerCallback):
        def on_step_end(self, *_, **__):
            turns.phases["improve"] = time.perf_counter() - marks["improve"]
            turns.phases["score"] = turns.started and marks["improve"] - turns.started - turns.phases["generate"]
            turns.report()
            turns.wait()

    marks: dict[str, float] = {}
    rows = torch.cat([prompts(i) for i in range(updates + 1)]).tolist()
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        total_episodes=BATCH * updates,
        response_length=RESPONSE,
        temperature=1.0,
        local_rollout_forward_batch_size=BATCH,
        learning_rate=1e-5,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    policy = LlamaForCausalLM(config())
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer(),
        model=policy,
        ref_model=LlamaForCausalLM(config()),
        reward_model=LlamaForSequenceClassification(config()),
        value_model=LlamaForSequenceClassification(config()),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        callbacks=[Pause()],
    )
    whiten = ppo_trainer.masked_whiten

    def whiten_and_mark(*args, **kwargs):  # the last thing before the epochs
        marks["improve"] = time.perf_counter()
        return whiten(*args, **kwargs)

    ppo_trainer.masked_whiten = whiten_and_mark
    ppo_trainer.batch_generation = turns.timed("generate", ppo_trainer.batch_generation)
    turns.wait()
    trainer.train()


def tokenizer():
    """TRL wants one; it is never asked for words."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<pad>": PAD, "<end>": END, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")


class SequenceScore:
    """The same reward model as TRL's."""

    def bind(self, net, tokenizer) -> None:
        from transformers import LlamaForSequenceClassification

        self.model = LlamaForSequenceClassification(config()).eval()

    def __call__(self, batch) -> torch.Tensor:
        ids = torch.tensor(batch.sequences)
        return self.model.score(self.model.model(ids, use_cache=False).last_hidden_state[:, -1])[:, 0]


def work_alignlab(turns: Turns, updates: int, critic: str) -> None:
    """`PpoSystem` under Lightning's trainer, as `python train.py model=ppo` runs it."""
    import lightning
    from torch.utils.data import DataLoader
    from transformers import LlamaForCausalLM

    from alignlab.optim import adamw
    from alignlab.systems.rlhf import on_policy
    from alignlab.systems.rlhf.ppo import PpoSystem
    from alignlab.systems.rlhf.update import Update
    from alignlab.types import LanguageVocabulary, PromptBatch

    class Turn(lightning.Callback):
        def on_train_batch_start(self, *_):
            turns.wait()

        def on_train_batch_end(self, *_):
            turns.report()

    class Data(lightning.LightningDataModule):
        tokenizer = tokenizer()

        def train_dataloader(self):
            mask, index = torch.ones(BATCH, PROMPT, dtype=torch.bool), torch.arange(BATCH)
            return DataLoader([PromptBatch(prompts(i), mask, index) for i in range(updates)], batch_size=None)

    system = PpoSystem(
        lambda vocabulary: LlamaForCausalLM(config()),
        SequenceScore(),
        critic=critic,
        vocabulary=LanguageVocabulary(VOCABULARY, PAD, None, END),
        optim=partial(adamw, lr=1e-5, weight_decay=0.0),
        response_length=RESPONSE,
        update=Update(EPOCHS, micro_batch_size=BATCH),
    )
    system.sampling = system.sampling._replace(ignore_eos=True)
    on_policy.generate = turns.timed("generate", on_policy.generate)
    on_policy.evaluate = turns.timed("score", on_policy.evaluate)
    system.score = turns.timed("score", system.score)
    system.update.run = turns.timed("improve", system.update.run)
    bare_trainer(updates, Turn()).fit(system, datamodule=Data())


def work(side: str, updates: int) -> None:
    """A worker process: builds one side after the imports, says what it held before."""
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    with contextlib.suppress(ImportError):
        from trl.experimental.ppo import PPOTrainer  # noqa: F401
    (torch.randn(512, 512) @ torch.randn(512, 512)).sum()
    print("BEFORE " + json.dumps({"resident": resident_bytes()}), flush=True)
    turns = Turns()
    if side == SIDES[0]:
        work_trl(turns, updates)
    else:
        work_alignlab(turns, updates, "separate" if "separate" in side else "shared")


class Worker:
    """The parent's end."""

    def __init__(self, side: str, updates: int, exact_memory: bool = False) -> None:
        environment = dict(os.environ)
        if exact_memory:
            environment |= EXACT_MEMORY
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", side, "--updates", str(updates)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SHOW") else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.before = self._read("BEFORE")["resident"]

    def turn(self) -> dict[str, float]:
        """One update."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._read("REPORT")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def _read(self, mark: str) -> dict[str, float]:
        for line in self.process.stdout:
            if line.startswith(mark + " "):
                return json.loads(line[len(mark) + 1 :])
        raise RuntimeError(f"the worker ended (status {self.process.wait()}); SHOW=1 shows why")


def rate() -> float:
    """Multiplications with additions x 2 a second in large float32 products: the floor's measure."""
    a, best = torch.randn(1024, 1024), 0.0
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began))
    return best


def floors() -> dict[str, float]:
    """FLOPs of our phases: 2 a parameter and token forward, 6 with backward; the head sees response tokens only."""
    trunk = 6 * (4 * WIDTH * WIDTH + 3 * WIDTH * 1024)
    tokens, answers, head = BATCH * (PROMPT + RESPONSE), BATCH * RESPONSE, VOCABULARY * WIDTH
    return {
        "generate": 2 * trunk * tokens + 2 * head * answers,
        "score": 3 * 2 * trunk * tokens + 2 * 2 * head * answers,  # policy, reference, reward
        "improve": EPOCHS * (6 * trunk * tokens + 6 * head * answers),
    }


def measure(rounds: int) -> tuple[dict[str, list[dict[str, float]]], float]:
    """Reports of each side, turn by turn."""
    workers = {side: Worker(side, rounds + 2) for side in SIDES}
    reports: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, worker in workers.items():
            report = worker.turn()
            if number:
                reports[side].append(report)
            print(number, side, {k: round(v, 2) for k, v in report.items() if k != "peak"}, flush=True)
    speed = rate()
    for worker in workers.values():
        worker.close()
    return reports, speed


def memory() -> dict[str, int]:
    """Peak above the start, bytes, over two updates."""
    found = {}
    for side in SIDES:
        worker = Worker(side, 4, exact_memory=True)
        worker.turn()
        found[side] = int(worker.turn()["peak"] - worker.before)
        worker.close()
        print("memory", side, found[side] / 2**20, flush=True)
    return found


def table(reports: dict[str, list[dict[str, float]]], peak: dict[str, int], speed: float, rounds: int) -> str:
    """This section of the page."""
    import trl

    middle = {
        side: {key: statistics.median(r.get(key, 0.0) for r in reports[side]) for key in reports[side][0]}
        for side in SIDES
    }
    rows = [
        f"| {side} | {m['update']:.2f} | {middle[SIDES[0]]['update'] / m['update']:.2f} | {m['generate']:.2f} | {m['score']:.2f} | {m['improve']:.2f} "
        f"| {peak[side] / 2**20:.0f} | {peak[side] / peak[SIDES[0]]:.2f} |"
        for side, m in middle.items()
    ]
    floor = floors()
    seconds = {name: flops / speed for name, flops in floor.items()}
    rows.append(
        f"| floor of alignlab | {sum(seconds.values()):.2f} | | {seconds['generate']:.2f} | {seconds['score']:.2f} | {seconds['improve']:.2f} | | |"
    )
    lines = "\n".join(rows)
    return f"""
## PPO against TRL

Whole updates on a CPU: {BATCH} prompts of {PROMPT} tokens, responses of {RESPONSE}, {EPOCHS} epochs, a Llama of 22.7 M parameters
(vocabulary 32,000), float32, all weights trained.
Each side in its own process, one after the other by turns; medians of {rounds} turns. Seconds; generate: sampling; score: log-probabilities,
values, reference, reward; improve: the epochs. Floor: FLOPs of that phase over {speed / 1e9:.0f} GFLOP/s, the fastest large product here.
Memory: peak above the start of the process, MiB.
torch {torch.__version__}, TRL {trl.__version__}, {torch.get_num_threads()} threads, {platform.machine()} (2 CPU cores, AMD EPYC),
{date.today()}. Made by `python benchmarks/ppo.py`.

| side | update | speed ratio | generate | score | improve | peak MiB | memory ratio |
|---|---|---|---|---|---|---|---|
{lines}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each side")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table without writing it to docs/benchmarks.md"
    )
    parser.add_argument("--part", choices=("all", "speed", "memory"), default="all")
    parser.add_argument("--keep", type=Path, help="file for the numbers of a part, read again by the other part")
    parser.add_argument("--work", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--updates", type=int, default=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.updates)
        return
    kept = json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    if arguments.part != "memory":
        kept["reports"], kept["speed"] = measure(arguments.rounds)
    if arguments.part != "speed":
        kept["peak"] = memory()
    if arguments.keep:
        arguments.keep.write_text(json.dumps(kept))
    if {"reports", "peak"} <= set(kept):
        text = table(kept["reports"], kept["peak"], kept["speed"], arguments.rounds)
        print(text)
        if not arguments.dry_run:
            write_section("ppo", text)


if __name__ == "__main__":
    main()
