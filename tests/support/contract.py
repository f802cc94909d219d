"""What every backend must do, as functions of a backend: greedy tokens, log-probabilities, scores, adapters, failures."""

from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import Backend, Completion, ModelSource, Request, Sampling
from tiny_models import PROMPTS

import torch
from transformers import PreTrainedModel

TOKENS = 12


def reference(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Greedy tokens and their log-probabilities, one whole forward pass a token, without cache or padding."""
    ids, logprobs = list(prompt), []
    with torch.no_grad():
        for _ in range(TOKENS):
            row = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(row.argmax()))
            logprobs.append(float(row[ids[-1]]))
    return ids[len(prompt) :], logprobs


def check_greedy(backend: Backend, model: PreTrainedModel, tolerance: float = 1e-4) -> None:
    """Unequal lengths in one batch, each row as if it were alone."""
    calls: list[tuple[int, int]] = []
    done: dict[int, Completion] = {}
    requests = [Request(prompt, sampling=Sampling(max_new_tokens=TOKENS)) for prompt in PROMPTS]
    found = backend.generate(requests, on_token=lambda n, t: calls.append((n, t)), on_done=done.__setitem__)
    for number, (prompt, completion) in enumerate(zip(PROMPTS, found, strict=True)):
        ids, logprobs = reference(model, prompt)
        assert completion.ids == ids and completion.finish == "length"
        assert torch.allclose(torch.tensor(completion.logprobs), torch.tensor(logprobs), rtol=0, atol=tolerance)
        assert [token for n, token in calls if n == number] == ids and done[number] == completion
    assert len({token for completion in found for token in completion.ids}) > 8, "continuations that tell nothing"


def check_score(backend: Backend, model: PreTrainedModel, tolerance: float = 1e-4) -> None:
    """Log-probability of each token after the first."""
    for sequence, scores in zip(PROMPTS, backend.score(PROMPTS), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([sequence])).logits[0].log_softmax(-1)
        expected = [float(logprobs[i, token]) for i, token in enumerate(sequence[1:])]
        assert len(scores) == len(sequence) - 1
        assert torch.allclose(torch.tensor(scores), torch.tensor(expected), rtol=0, atol=tolerance)


def check_failures(backend: Backend, model: PreTrainedModel) -> None:
    """A request that cannot run is an error of its own; EOS-like stops and limits end rows one by one."""
    ids, _ = reference(model, PROMPTS[0])
    stop = ids[4]
    end = ids.index(stop) + 1
    requests = [
        Request(PROMPTS[0], sampling=Sampling(max_new_tokens=TOKENS, stop_ids=(stop,))),
        Request([], sampling=Sampling()),
        Request([3, 97]),
        Request(PROMPTS[2], sampling=Sampling(max_new_tokens=2)),
        Request(PROMPTS[1], sampling=Sampling(max_new_tokens=TOKENS)),
        Request(PROMPTS[1], sampling=Sampling(top_p=2.0)),
    ]
    found = backend.generate(requests)
    assert [c.finish for c in found] == ["stop", "error", "error", "length", "length", "error"]
    assert found[0].ids == ids[:end] and len(found[3].ids) == 2
    assert found[4].ids == reference(model, PROMPTS[1])[0]
    assert found[1].error == "the prompt is empty; it needs at least one token"
    assert found[2].error == "token 97 is outside the model's vocabulary of 97"
    assert found[5].error == "top_p=2.0 must be above 0 and at most 1"


def check_sampling(backend: Backend) -> list[Completion]:
    """A request's sampled tokens are the same alone and in a batch."""
    settings = [
        Sampling(max_new_tokens=TOKENS, temperature=1.5),
        Sampling(max_new_tokens=TOKENS, temperature=0.8, top_k=20, top_p=0.9),
        Sampling(max_new_tokens=TOKENS, repetition_penalty=1.4),
        Sampling(max_new_tokens=5, temperature=1.0, min_p=0.05, repetition_penalty=1.2),
    ]
    requests = [Request(p, seed=n, sampling=s) for n, (p, s) in enumerate(zip(PROMPTS, settings, strict=True))]
    together = backend.generate(requests)
    for request, completion in zip(requests, together, strict=True):
        assert backend.generate([request])[0].ids == completion.ids
    assert backend.generate([requests[0]._replace(seed=9)])[0].ids != together[0].ids
    return together


def check_adapter(
    backend: Backend,
    load: Callable[[str | None], ModelSource],
    adapter: Path,
    adapted: PreTrainedModel,
    model: PreTrainedModel,
) -> None:
    """The source's adapter works from the start, can be switched off, and another one be switched on by its folder."""
    backend.load(load(str(adapter)))
    check_greedy(backend, adapted)
    backend.set_adapter(None)
    check_greedy(backend, model)
    backend.set_adapter("default")
    check_score(backend, adapted)
    backend.load(load(None))
    check_score(backend, model)
    backend.set_adapter(str(adapter))
    check_score(backend, adapted)
