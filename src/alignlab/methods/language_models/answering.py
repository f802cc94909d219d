"""What a language model says to the items of a task, and how likely it finds their answers.

Legend: B items with equally long prompts and targets, P prompt tokens, T target tokens.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.trunk import head_of, hidden_states

AT_ONCE = 256  # items


class Item(Protocol):
    """A question with its answer."""

    id: str
    task: str
    prompt: str
    target: str


@torch.no_grad()
def answered(net: nn.Module, items: Sequence[Item], tokenizer: Any) -> list[dict[str, Any]]:
    """One row an item, in their order: id, task, target, prediction, target_logprobs (nats of each token of the
    target), correct.

    A prediction is greedy and ends with the end of text, or where the target would.
    """
    encoded = [tuple(tokenizer.encode(t, add_special_tokens=False) for t in (x.prompt, x.target)) for x in items]
    order = sorted(range(len(items)), key=lambda i: (len(encoded[i][0]), len(encoded[i][1])))
    rows: dict[int, dict[str, Any]] = {}
    device = next(net.parameters()).device
    for _, group in groupby(order, key=lambda i: tuple(map(len, encoded[i]))):
        numbers = list(group)
        for part in (numbers[i : i + AT_ONCE] for i in range(0, len(numbers), AT_ONCE)):
            prompts, targets = (torch.tensor([encoded[i][side] for i in part], device=device) for side in (0, 1))
            likely = target_log_probs(net, prompts, targets).tolist()
            said = greedy(net, prompts, targets.shape[1] + 1).tolist()
            for i, log_probs, ids in zip(part, likely, said, strict=True):
                ended = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
                prediction, item = tokenizer.decode(ids[:ended]), items[i]
                rows[i] = {
                    "id": item.id,
                    "task": item.task,
                    "target": item.target,
                    "prediction": prediction,
                    "target_logprobs": [round(value, 6) for value in log_probs],
                    "correct": prediction == item.target,
                }
    return [rows[i] for i in range(len(items))]


def target_log_probs(net: nn.Module, prompts: Tensor, targets: Tensor) -> Tensor:
    """(B, P), (B, T) -> log-probabilities of the targets' tokens, each given what stands before it, (B, T)."""
    hidden = _states(net, torch.cat([prompts, targets[:, :-1]], 1), prompts.shape[1])[:, prompts.shape[1] - 1 :]
    return head_of(net)(hidden).float().log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)


def greedy(net: nn.Module, prompts: Tensor, length: int) -> Tensor:
    """The most likely tokens one after another, (B, P) -> (B, length); prompts are short, so there is no cache."""
    ids = prompts
    for _ in range(length):
        ids = torch.cat([ids, head_of(net)(_states(net, ids, prompts.shape[1])[:, -1:]).argmax(-1)], 1)
    return ids[:, prompts.shape[1] :]


def _states(net: nn.Module, ids: Tensor, prompt: int) -> Tensor:
    """Hidden states of ids of which the first `prompt` are what a prefix decoder sees as one."""
    if isinstance(net, Decoder) and net.config.mask == "prefix":
        return net(ids, prefix=(torch.arange(ids.shape[1], device=ids.device) < prompt).expand_as(ids)).hidden
    return hidden_states(net, ids)
