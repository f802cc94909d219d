"""Dynamic sampling: prompts whose responses have one score give way to others, the same for the same update."""

from functools import partial
from pathlib import Path

from alignlab.methods.grpo import GrpoMethod
from alignlab.models.language.loading import pretrained
from alignlab.systems.rlhf.redrawing import redraw
from alignlab.types.language import PromptBatch
from tiny_policy import VOCABULARY, Prompts, save_model

import pytest


class Known(Prompts):
    """Prompts with a column that says whether their responses can differ in score."""

    def batch(self, number: int, ranks: int = 1, rank: int = 0) -> PromptBatch:
        batch = super().batch(number, ranks, rank)
        return batch._replace(rows=[{"useful": number >= 100 and i % 2 == 0} for i in range(len(batch.index))])

    def further_prompts(self, update: int, turn: int, count: int) -> PromptBatch:
        batch = self.batch(100 * turn + update)
        return PromptBatch(*(None if x is None else x[:count] for x in batch))


def by_length(prompts: list[str], responses: list[str], useful: list[bool]) -> list[float]:
    return [float(hash(r) % 1009) if wanted else 1.0 for r, wanted in zip(responses, useful, strict=True)]


def test_idle_groups_give_way(tmp_path: Path) -> None:
    method = GrpoMethod(
        partial(pretrained, path=save_model(tmp_path)),
        by_length,
        vocabulary=VOCABULARY,
        response_length=8,
        group_size=2,
        redraws=2,
    )
    data = Known(8)
    method.prepare(data.tokenizer)

    def drawn(turns: int):
        method.redraws = turns
        responses = method.respond(data.batch(0), 0)
        return redraw(method, data, 0, responses, method.scores(method.reward, responses))

    before, scores, metrics = drawn(0)
    assert metrics == {} and not any(row["useful"] for row in before.rows) and scores.total.unique().numel() == 1
    after, scores, metrics = drawn(2)
    groups = scores.total.view(-1, 2)
    useful = [row["useful"] for row in after.rows[::2]]
    assert sum(useful) == 6 and float(metrics["objective/redrawn"]) == 6 / 8  # 4 of 8, then 2 of 4
    assert [a != b for a, b in groups.tolist()] == useful
    kept = [i for i, one in enumerate(useful) if not one]
    assert all(after.responses[2 * i] == before.responses[2 * i] for i in kept)
    again, same, _ = drawn(2)
    assert again == after and same.total.equal(scores.total)
    assert method.assess(after).ids.shape[0] == 16
    with pytest.raises(ValueError, match="redraws=2 needs data that give further prompts"):
        redraw(method, object(), 0, after, scores)
