"""Policies of `chain=rlhf_movies` before an independent judge: score against KL, beside best-of-n; written to docs/benchmarks.md.

    python benchmarks/rlhf_movies.py outputs/rlhf_movies/<time> [PPO=<run>] [GRPO=<run>] ... [--prompts 512] [--samples 32] [--device cuda] [--dry-run]
    python benchmarks/rlhf_movies.py outputs/rlhf_movies/<time> PPO/0.1=<run> PPO/0.2=<run> GRPO=<run> ... --picture frontier.png --dry-run
    python benchmarks/rlhf_movies.py outputs/rlhf_movies/<time> [NAME=<run>] --best-of 8 --picked rows.jsonl [--rows 0 2560]

The first argument is a run of the whole chain: its stages are sft, reward, judge, dpo and ppo; more policies are named with their run directories.
Every policy answers the same held-out prompts with the same random numbers at temperature 1. KL is the mean of log p(policy) - log p(SFT) over its own
responses. One standard deviation is that of the judge's scores of the SFT model's responses. Best-of-n picks by the reward model, never by the judge.
The picture has a curve for all policies whose names are equal before a slash, and for a name without one its validations on the way.
"""

import argparse
import csv
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.movies import MoviePrompts
from alignlab.evaluation.best_of_n import best_of_n
from alignlab.evaluation.diversity import distinct
from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.methods.rlhf.reward import ModelReward, Scored
from alignlab.models.language.paths import load_tokenizer

import torch
from measuring import check_device, device_option, hardware, section_name, write_section

LENGTH = 32  # tokens of a response, as in the experiment
PICKED = 128  # prompts of best-of-n


class Point(NamedTuple):
    """A policy, or best-of-n, in the picture."""

    name: str
    kl: float  # nats
    rise: float  # of the judge, in standard deviations


class Answers(NamedTuple):
    """Responses of one policy."""

    responses: list[list[int]]
    ended: list[bool]
    reward: torch.Tensor  # (B,)
    judge: torch.Tensor  # (B,)
    kl: float  # nats a response


class Field:
    """The prompts, the SFT model and both reward models."""

    def __init__(self, chain: Path, number: int, device: str) -> None:
        self.device = device
        data = LanguageDataModule(MoviePrompts, max_length=32, tokenizer=str(chain / "sft"))
        data.setup()
        self.training, self.prompts = data.rows["train"].prompts, data.rows["val"].prompts[:number]
        self.tokenizer = load_tokenizer(str(chain / "sft"))
        self.scorers = [ModelReward(str(chain / name)) for name in ("reward", "judge")]
        for scorer in self.scorers:
            scorer.bind(SimpleNamespace(device=device), self.tokenizer)
        self.sft = self._backend(chain / "sft")

    def answers(
        self, run: Path | None, samples: int = 1, number: int | None = None, prompts: list[list[int]] | None = None
    ) -> Answers:
        """Responses of a policy (None: the SFT model), `samples` to each of the first `number` prompts; of those held
        out, unless others are given.
        """
        backend = self.sft if run is None else self._backend(run)
        prompts = [prompt for prompt in (prompts or self.prompts)[:number] for _ in range(samples)]
        settings = Sampling(max_new_tokens=LENGTH, temperature=1.0)
        found = backend.generate([Request(prompt, 1000 + i, settings) for i, prompt in enumerate(prompts)])
        responses, ended = [list(c.ids) for c in found], [c.finish == "eos" for c in found]
        sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        texts = [self.tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (prompts, responses)]
        reward, judge = (scorer(Scored(*texts, sequences, ended)) for scorer in self.scorers)
        kl = 0.0
        if run is not None:
            reference = self.sft.score(sequences)
            tails = [row[len(row) - len(c.ids) :] for row, c in zip(reference, found, strict=True)]
            kl = sum(sum(c.logprobs) - sum(tail) for c, tail in zip(found, tails, strict=True)) / len(found)
            backend.close()
        return Answers(responses, ended, reward, judge, kl)

    def _backend(self, run: Path) -> CompiledBackend:
        backend = CompiledBackend(batch_size=64, device=self.device)
        backend.load(ModelSource(str(run)))
        return backend


class OfLength:
    """What the judge says on average of the SFT model's responses of a length: of five lengths together, and of those
    without an end.
    """

    def __init__(self, answers: Answers) -> None:
        bins = self._bins(answers)
        self.means = {one: float(answers.judge[bins == one].mean()) for one in bins.unique().tolist()}

    def controlled(self, answers: Answers) -> float:
        """The judge's mean beyond what the SFT model's responses of the same lengths have; nan where it has none."""
        usual = [self.means.get(one, float("nan")) for one in self._bins(answers).tolist()]
        return float((answers.judge - torch.tensor(usual)).nanmean())

    @staticmethod
    def _bins(answers: Answers) -> torch.Tensor:
        lengths = [len(ids) // 5 if end else -1 for ids, end in zip(answers.responses, answers.ended, strict=True)]
        return torch.tensor(lengths)


def table(field: Field, runs: dict[str, Path], samples: int) -> tuple[str, list[Point]]:
    """A row a policy, then best-of-n; and the same as points."""
    start, many = field.answers(None), field.answers(None, samples, PICKED)
    mean, deviation, of_length = float(start.judge.mean()), float(start.judge.std()), OfLength(many)
    lines = [
        "| policy | KL, nats | judge | rise, SD | at equal length, SD | reward | distinct-2, of SFT's | tokens | ended |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    points = []
    for name, answers in [("SFT", start), *((name, field.answers(run)) for name, run in runs.items())]:
        judge, variety = float(answers.judge.mean()), distinct(answers.responses, 2) / distinct(start.responses, 2)
        lines.append(
            f"| {name} | {answers.kl:.2f} | {judge:.2f} | {(judge - mean) / deviation:+.2f} "
            f"| {of_length.controlled(answers) / deviation:+.2f} | {float(answers.reward.mean()):.2f} | {variety:.2f} "
            f"| {sum(map(len, answers.responses)) / len(answers.responses):.1f} | {sum(answers.ended) / len(answers.ended):.0%} |"
        )
        points.append(Point(name, answers.kl, (judge - mean) / deviation))
        print(lines[-1], flush=True)
    scores = [values.view(-1, samples) for values in (many.reward, many.judge)]
    for row in best_of_n(*scores, tuple(2**i for i in range(1, samples.bit_length()))):
        lines.append(
            f"| best of {row.n} | {row.kl:.2f} | {row.judge:.2f} | {(row.judge - mean) / deviation:+.2f} | | {row.score:.2f} | | | |"
        )
        points.append(Point(f"best of n/{row.n}", row.kl, (row.judge - mean) / deviation))
    way = on_the_way(runs, mean, deviation)
    if way:
        lines += ["", "Validations on the way (KL: judge's rise in SD):", ""]
    for name, steps in way.items():
        lines.append(f"* {name}: {', '.join(f'{p.kl:.1f}: {p.rise:+.2f}' for p in steps)}")
        if "/" not in name:
            points += steps[:-1]  # the last one is the policy itself, on other prompts
    return "\n".join(lines), points


def draw(points: list[Point], file: Path) -> None:
    """Rise against KL, a curve for each family of policies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.name.partition("/")[0], []).append(point)
    for name, family in families.items():
        family.sort(key=lambda point: point.kl)
        style = "--" if name == "best of n" else "-"
        axes.plot([p.kl for p in family], [p.rise for p in family], style, marker="o", markersize=5, label=name)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(left=0)
    axes.set_xticks([0, 0.5, 1, 2, 5, 10, 20], ["0", "0.5", "1", "2", "5", "10", "20"])
    axes.set_xlabel("KL from SFT, nats a response")
    axes.set_ylabel("rise of an independent judge, standard deviations")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)
    print(file)


def write_picked(field: Field, policy: Path | None, n: int, rows: tuple[int, int], file: Path) -> None:
    """For `model=sft data=jsonl`: of n responses to each of some training prompts the one that the reward model likes
    best; what doesn't end costs 1, as in PPO here.
    """
    prompts = field.training[slice(*rows)]
    answers = field.answers(policy, n, prompts=prompts)
    scores = (answers.reward - 1.0 * ~torch.tensor(answers.ended)).view(-1, n)
    texts = [field.tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (prompts, answers.responses)]
    with file.open("w", encoding="utf-8") as out:
        for row, best in enumerate(scores.argmax(1).tolist()):
            out.write(json.dumps({"prompt": texts[0][row], "response": texts[1][row * n + best]}) + "\n")
    print(f"{file}: {len(scores)} responses, the best of {n} each")


def on_the_way(runs: dict[str, Path], mean: float, deviation: float) -> dict[str, list[Point]]:
    """What the runs' own validations said on the way, so that methods can be compared at equal KL."""
    found = {}
    for name, run in runs.items():
        if not (run / "metrics.csv").exists():  # a mean of policies
            continue
        with (run / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("val/judge") and row.get("val/kl")]
        found[name] = [Point(name, float(r["val/kl"]), (float(r["val/judge"]) - mean) / deviation) for r in rows]
    return {name: points for name, points in found.items() if points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chain", type=Path, help="run directory of chain=rlhf_movies")
    parser.add_argument("policies", nargs="*", help="NAME=RUN")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--samples", type=int, default=32, help="n of best-of-n goes up to it, on the first prompts")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the table without writing it to docs/benchmarks.md"
    )
    parser.add_argument("--picture", type=Path, help="draw rise against KL into this file")
    parser.add_argument("--best-of", type=int, metavar="N", help="no table, but the best of N responses of a policy")
    parser.add_argument("--picked", type=Path, default=Path("picked.jsonl"), help="where they are written")
    parser.add_argument("--rows", type=int, nargs=2, default=(0, 2560), help="of the training prompts, for --best-of")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    if arguments.best_of:
        named = [Path(policy.partition("=")[2]) for policy in arguments.policies]
        field = Field(arguments.chain, arguments.prompts, arguments.device)
        return write_picked(field, *(named or [None]), arguments.best_of, tuple(arguments.rows), arguments.picked)
    runs = {name.upper(): arguments.chain / name for name in ("ppo", "dpo") if (arguments.chain / name).is_dir()}
    runs |= {name: Path(run) for name, _, run in (policy.partition("=") for policy in arguments.policies)}
    found, points = table(Field(arguments.chain, arguments.prompts, arguments.device), runs, arguments.samples)
    if arguments.picture:
        draw(points, arguments.picture)
    text = f"""
## A better policy in the eyes of an independent judge

`chain=rlhf_movies`: a language model of 2.6 M parameters trained on reviews, a reward model, and a judge of another seed and split that no training sees.
{arguments.prompts} held-out prompts, {LENGTH} tokens at most, temperature 1. Rise: of the judge's mean, in standard deviations of its scores of
SFT's responses; at equal length: beyond the mean of SFT's responses of the same length. Best of n: {arguments.samples} samples to each of {PICKED}
prompts, picked by the reward model; KL is log n - (n - 1) / n.
{hardware(arguments.device)}, torch {torch.__version__}, {date.today()}. Made by `python benchmarks/rlhf_movies.py`.

{found}
"""
    print(text)
    if not arguments.dry_run:
        write_section(section_name("rlhf_movies", arguments.device), text)


if __name__ == "__main__":
    main()
