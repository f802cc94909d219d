"""The best of several responses to each prompt in the eyes of a reward, and what they are worth as training data."""

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.data.language.rendering import Content, Renderer
from alignlab.evaluation.best_of_n import best_of_n
from alignlab.files.writing import write_text
from alignlab.methods.rewards.scoring import Scoring
from alignlab.methods.rlhf.reward import Reward, as_reward
from alignlab.methods.rlhf.reward_text import RewardText, Scored
from alignlab.prompting.rendering import has_template
from alignlab.prompting.technique import Reply
from alignlab.tasks.draws.several import Several, check_sampled, draw
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Prediction

PICKED, PAIRS = "picked.jsonl", "pairs.jsonl"
_UNLIMITED = 2**30  # ids


class BestOfN:
    """Draws several responses to every prompt and keeps the one that the reward likes best.

    `picked.jsonl` of the run directory has the best of each prompt, for `model=sft data=jsonl data.path=`
    (rejection sampling, arXiv:2304.06767; its KL from the start is at most log n - (n - 1) / n, arXiv:2204.05862);
    `pairs.jsonl` the best and the worst where they differ, for `model=dpo data=preference_jsonl data.path=`.
    Needs sampling (`sampling=varied`; at temperature 1 the KL means something). The prompt technique has no part in it.

    Args:
        reward: as `model.reward` of PPO: a run directory of `model=reward`, a function (package.module.function), or
            several by names.
        judge: another reward, which picks nothing and says what the picked ones are worth.
        samples: responses to each prompt.
        missing_end_penalty: what a response costs that hasn't ended within `sampling.max_new_tokens`; None: nothing.

    Raises:
        ValueError: fewer than 2 samples.
    """

    needs = "backend"

    def __init__(
        self,
        reward: str | Callable | Mapping,
        judge: str | Callable | Mapping | None = None,
        samples: int = 8,
        missing_end_penalty: float | None = None,
    ) -> None:
        if samples < 2:
            raise ValueError(f"samples is {samples}; it must be at least 2")
        self.samples, self.penalty = samples, missing_end_penalty or 0.0
        self.reward = as_reward(reward, "task.reward")
        self.judge = None if judge is None else as_reward(judge, "task.judge")

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        """Rows: input, the best response with its score, all responses with their scores."""
        check_sampled(self.samples, subject.asker.sampling.temperature)
        speaker = Speaker.of(subject)
        for reward in (self.reward, *([] if self.judge is None else [self.judge])):
            reward.bind(SimpleNamespace(device=torch.device(subject.loaded.device)), subject.tokenizer)
            if hasattr(reward, "read_as_trained"):
                reward.read_as_trained(speaker.renderer, (subject.tokenizer.eos_token_id,))
        items = job.items()
        missing = job.predictions.missing(items)

        def row(item: Item, replies: list[Reply], error: str | None) -> None:
            job.predictions.add(_failed(item, error) if error is not None else self._row(item, replies, speaker))

        draw(missing, Several(self.samples), subject.asker, row)
        rows = job.rows(item.id for item in items)
        whole = [row for row in rows if row["error"] is None]
        self._write(job, {item.id: item for item in items}, whole, speaker)
        return self._told(job, whole) | {"failed": float(len(rows) - len(whole))}

    def _row(self, item: Item, replies: list[Reply], speaker: "Speaker") -> Prediction:
        try:
            batch = speaker.scored(item, replies)
            scores = self._scores(self.reward, batch)
            judged = None if self.judge is None else self._scores(self.judge, batch).tolist()
        except ValueError as error:
            return _failed(item, str(error))
        learned = scores - self.penalty * ~torch.tensor(batch.ended)
        best = int(learned.argmax())
        said = {"reply": replies[best].text, "score": float(scores[best]), "tokens": replies[best].num_tokens}
        all_of_them = {"replies": batch.responses, "scores": scores.tolist(), "learned": learned.tolist()}
        more = {} if judged is None else {"judge": judged}
        return {"id": item.id, "input": item.text, **said, **all_of_them, **more, "error": None}

    @staticmethod
    def _scores(reward: Reward, batch: Scored) -> Tensor:
        return Scoring()(reward, batch).total.cpu()

    def _write(self, job: Job, items: Mapping[str, Item], rows: Sequence[Prediction], speaker: "Speaker") -> None:
        picked, pairs = [], []
        for row in rows:
            item, order = items[row["id"]], sorted(range(self.samples), key=lambda i: row["learned"][i])
            worst, best = row["replies"][order[0]], row["reply"]
            picked.append(speaker.example(item, best))
            if row["learned"][order[0]] < row["learned"][order[-1]] and worst != best:
                pairs.append(speaker.pair(item, best, worst))
        for name, lines in ((PICKED, picked), (PAIRS, pairs)):
            write_text(job.run_dir / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _told(self, job: Job, rows: Sequence[Prediction]) -> dict[str, float]:
        learned = torch.tensor([row["learned"] for row in rows])
        judged = None if self.judge is None else torch.tensor([row["judge"] for row in rows])
        sizes = tuple(sorted({2**i for i in range(self.samples.bit_length())} | {self.samples}))
        points = best_of_n(learned, judged, sizes)
        columns = ["n", "KL at most, nats", "score"] + ["judge"] * (judged is not None)
        shown = [[p.n, p.kl, p.score] + ([] if p.judge is None else [p.judge]) for p in points]
        job.table(f"best of n, {len(rows)} prompts", columns, shown)
        first, last = points[0], points[-1]
        numbers = {"best": last.score, "mean": first.score, "kl": last.kl}
        if judged is not None:
            numbers |= {"judge_best": last.judge, "judge_mean": first.judge}
            if (deviation := float(judged.std())) > 0:
                numbers["judge_rise"] = (last.judge - first.judge) / deviation  # standard deviations of all responses
        return numbers


class Speaker(NamedTuple):
    """How this run's prompts and responses stand in texts and rows."""

    renderer: Renderer
    reader: RewardText
    chat: bool

    @classmethod
    def of(cls, subject: Subject) -> "Speaker":
        template, tokenizer = subject.asker.template, subject.tokenizer
        renderer = Renderer(tokenizer, _UNLIMITED)
        chat = has_template(tokenizer) if template == "auto" else template == "chat"
        return cls(renderer, RewardText(renderer), chat)

    def content(self, item: Item) -> Content:
        """The prompt, as the data of a training would hold it."""
        if not self.chat and not item.before:
            return item.text
        return [*(message._asdict() for message in item.before), {"role": "user", "content": item.text}]

    def scored(self, item: Item, replies: Sequence[Reply]) -> Scored:
        """All responses to a prompt, as a reward sees them."""
        content, ended = self.content(item), [reply.finish == "eos" for reply in replies]
        sequences = [self.reader.written(content, reply.text, end) for reply, end in zip(replies, ended, strict=True)]
        number = len(replies)
        rows = [item.fields] * number
        return Scored([item.text] * number, [r.text for r in replies], sequences, ended, [content] * number, rows)

    def example(self, item: Item, response: str) -> dict[str, Any]:
        """A row for SFT."""
        content = self.content(item)
        if isinstance(content, str):
            return {"prompt": content, "response": response}
        return {"messages": [*content, {"role": "assistant", "content": response}]}

    def pair(self, item: Item, chosen: str, rejected: str) -> dict[str, Any]:
        """A row for DPO."""
        content = self.content(item)
        if isinstance(content, str):
            return {"prompt": content, "chosen": chosen, "rejected": rejected}
        turns = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
        return {"prompt": content, **dict(zip(("chosen", "rejected"), turns, strict=True))}


def _failed(item: Item, error: str) -> Prediction:
    """The row of an item without responses."""
    empty = {"reply": None, "score": None, "tokens": 0, "replies": [], "scores": [], "learned": []}
    return {"id": item.id, "input": item.text, **empty, "error": error}
