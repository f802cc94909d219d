"""Answers to prompts, by any prompt technique, with the share of right answers where the input gives them."""

from typing import Any

from alignlab.cost.measured import Clock
from alignlab.prompting.answers import correct
from alignlab.prompting.asking import Outcome, solve_all
from alignlab.prompting.technique import Question
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Prediction, told
from alignlab.tasks.streaming import TokenStream


class Generate:
    """Asks every item by the run's technique; a field `target` (a text or a list of them) makes it an evaluation.

    Args:
        stream: write tokens to the terminal as they come, for a single prompt; None: where the output is a terminal.
        keep_prompts: keep the rendered prompts of all rounds in the rows, not only the last reply.
    """

    needs = "backend"

    def __init__(self, stream: bool | None = None, keep_prompts: bool = False) -> None:
        self.stream, self.keep_prompts = stream, keep_prompts

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        items = job.items()
        missing = {item.id: item for item in job.predictions.missing(items)}
        stream = TokenStream(subject.tokenizer, job.console.file) if self._streams(subject, job, items) else None
        done, clock = [0], Clock()  # tokens

        def outcome(question: Question, summary: Outcome) -> None:
            row = self.row(missing[question.id], summary, subject.technique.answer)
            done[0] += row["tokens"]
            job.predictions.add(row)

        for item in missing.values():
            if item.error is not None:
                job.predictions.add(self.row(item, Outcome(None, [], item.error), subject.technique.answer))
        solve_all(
            [Question(item.id, item.text, item.before) for item in missing.values() if item.error is None],
            subject.technique,
            subject.asker,
            on_outcome=outcome,
            on_token=stream and stream.take,
        )
        seconds = clock.seconds()
        rows = job.rows(item.id for item in items)
        if stream is not None:
            stream.end(rows[0]["reply"])
        else:
            shown = [[r["id"], r["input"], r["reply"] if r["error"] is None else f"error: {r['error']}"] for r in rows]
            job.table("replies", ["id", "prompt", "reply"], shown)
        speed = {"tokens_per_second": done[0] / seconds if seconds else 0.0}
        summary = self.metrics(rows)
        return summary | speed if "accuracy" in summary else speed | summary

    def row(self, item: Item, outcome: Outcome, form: str) -> Prediction:
        """The row of an item in predictions.jsonl."""
        last = outcome.exchanges[-1].reply if outcome.exchanges else None
        row: dict[str, Any] = {
            "id": item.id,
            "input": item.text,
            **({"before": told(item)} if item.before else {}),
            "reply": outcome.answer.text if outcome.answer else None,
            "answer": outcome.answer.answer if outcome.answer else None,
            "finish": "error" if outcome.error is not None else last.finish if last else None,
            "tokens": sum(exchange.reply.num_tokens for exchange in outcome.exchanges),
            "logprob": last.logprob if last and outcome.error is None else None,
            "error": outcome.error,
        }
        if outcome.answer and outcome.answer.votes is not None:
            row["votes"] = outcome.answer.votes
        if "target" in item.fields and outcome.answer:
            row["target"] = item.fields["target"]
            row["correct"] = correct(outcome.answer.answer, _targets(item.fields["target"]), form)
        if self.keep_prompts:
            row["exchanges"] = [[exchange.prompt, exchange.reply.text] for exchange in outcome.exchanges]
        return row

    def metrics(self, rows: list[Prediction]) -> dict[str, float]:
        """Accuracy over the rows with a target, the share of replies without an answer kept apart; counts."""
        judged = [row for row in rows if "correct" in row]
        whole = [row for row in rows if row["error"] is None]
        metrics = {}
        if judged:
            metrics["accuracy"] = sum(row["correct"] for row in judged) / len(judged)
        metrics["no_answer_rate"] = sum(row["answer"] is None for row in whole) / max(1, len(whole))
        metrics["cut_rate"] = sum(row["finish"] == "length" for row in whole) / max(1, len(whole))
        metrics["tokens"] = float(sum(row["tokens"] for row in rows))
        return metrics | {"failed": float(len(rows) - len(whole))}

    def _streams(self, subject: Subject, job: Job, items: list[Item]) -> bool:
        alone = (
            len(items) == 1 and items[0].error is None and not subject.technique.needs_sampling
        )  # several replies at a time would mingle
        return alone and (job.console.is_terminal if self.stream is None else self.stream)


def _targets(target: object) -> str | list[str]:
    return [str(one) for one in target] if isinstance(target, list) else str(target)
