"""Dynamic sampling (arXiv:2503.14476, sec. 3.2): prompts whose responses all have one score give way to others.

Legend: B responses of this process, G of each prompt.
"""

from typing import Any

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_mean
from alignlab.losses.grpo import equal_groups
from alignlab.methods.rewards.scoring import Scores, filled_up
from alignlab.methods.rlhf.on_policy import OnPolicyMethod
from alignlab.methods.rlhf.rollout import Responses

TURN = 0x9E3779B1  # between the seeds of two turns of an update


def redraw(
    method: OnPolicyMethod, data: Any, number: int, responses: Responses, scores: Scores
) -> tuple[Responses, Scores, dict[str, Tensor]]:
    """Responses and scores of update `number` in which groups that teach nothing were replaced, in at most
    `method.redraws` turns, and the share that was (none without such turns).

    Each turn answers as many further prompts of the data as groups are still to be replaced; ranks do so on their own.
    All of it is a function of update, turn and rank, so that a resumed run draws the same.

    Raises:
        ValueError: the data can't give further prompts.
    """
    turns, group = getattr(method, "redraws", 0), method.group_size
    if not turns:
        return responses, scores, {}
    if not hasattr(data, "further_prompts"):
        raise ValueError(f"redraws={turns} needs data that give further prompts; {type(data).__name__} doesn't")
    replaced = 0
    for turn in range(1, turns + 1):
        idle = (~_teaching(scores, group)).nonzero().flatten().tolist()
        if not idle:
            break
        more = method.respond(data.further_prompts(number, turn, len(idle)), number, seed=method.seed + turn * TURN)
        scored = method.scores(method.reward, more)
        good = _teaching(scored, group).nonzero().flatten().tolist()
        pairs = list(zip(idle, good, strict=False))
        replaced += len(pairs)
        responses, scores = _with(responses, scores, more, scored, pairs, group)
    share = torch.full((), replaced * group / len(responses.ended), device=scores.total.device)
    return responses, scores, {"objective/redrawn": reduce_mean(share)}


def _teaching(scores: Scores, group: int) -> Tensor:
    """(B / G,) bool, groups that have two different scores."""
    return ~equal_groups(filled_up(scores.total, group)[0], group)[::group]


def _with(
    responses: Responses, scores: Scores, more: Responses, scored: Scores, pairs: list[tuple[int, int]], group: int
) -> tuple[Responses, Scores]:
    """Responses and scores with groups of `more` in the places of others."""
    source = list(range(len(responses.ended)))
    for old, new in pairs:
        first = len(source) + new * group
        source[old * group : (old + 1) * group] = range(first, first + group)
    columns = zip(responses, more, strict=True)
    taken = Responses(*(None if a is None or b is None else [[*a, *b][i] for i in source] for a, b in columns))
    index = torch.tensor(source, device=scores.total.device)
    both = zip((scores.parts, scores.total, scores.learned), (scored.parts, scored.total, scored.learned), strict=True)
    return taken, Scores(scores.names, *(torch.cat([a, b])[index] for a, b in both), scores.may_lack)
