"""Filters against transformers' own, frequencies against probabilities, and seeds."""

from alignlab.inference.backend import Request, Sampling
from alignlab.inference.sampling import Choice, Sampler, check, choose, table

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

V = 50


def frequencies(sampling: Sampling, logits: torch.Tensor, prompt: list[int], draws: int = 4000) -> torch.Tensor:
    """How often each token comes first, over as many seeds."""
    requests = [Request(prompt, seed, sampling) for seed in range(draws)]
    chosen, _ = Sampler(requests, V).choose(logits.repeat(draws, 1))
    return torch.bincount(chosen, minlength=V) / draws


@pytest.mark.parametrize(
    ("sampling", "warpers"),
    [
        (Sampling(temperature=0.7), []),
        (Sampling(temperature=1.3, top_k=5), [TopKLogitsWarper(5)]),
        (Sampling(temperature=0.9, top_p=0.6), [TopPLogitsWarper(0.6)]),
        (Sampling(temperature=1.0, min_p=0.2), [MinPLogitsWarper(0.2)]),
        (Sampling(temperature=1.1, top_k=12, top_p=0.8), [TopKLogitsWarper(12), TopPLogitsWarper(0.8)]),
    ],
)
def test_distribution_is_that_of_transformers(sampling: Sampling, warpers: list) -> None:
    logits = 2 * torch.randn(1, V, generator=torch.Generator().manual_seed(0))
    prompt = [3, 4, 5]
    expected = TemperatureLogitsWarper(sampling.temperature)(None, logits.clone())
    for warper in warpers:
        expected = warper(None, expected)
    expected = expected.softmax(-1)[0]
    found = frequencies(sampling, logits, prompt)
    assert not found[expected == 0].any(), "a token that the filter removes"
    assert (found - expected).abs().sum() < 0.08  # 4000 draws: the total variation of chance is about 0.03


@pytest.mark.parametrize("vocabulary", [40, 512, 1000])
@pytest.mark.parametrize("top_k", [0, 2])
def test_tokens_are_those_of_one_cumulative_sum(vocabulary: int, top_k: int) -> None:
    """However many blocks the sum is made of; shares next to 0 and 1 included, which must not fall on what a filter removes."""
    settings = [Sampling(temperature=1.0, top_k=top_k)] * 64
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(64, vocabulary, generator=generator)
    number = torch.rand(64, 1, generator=generator, dtype=torch.float64)
    number[0], number[1], number[2] = 0.0, 1 - 2**-53, 2**-60
    found, _ = choose(logits, table(settings, vocabulary), Choice.of(settings, vocabulary), number, None)
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    total = logits.softmax(-1).double().cumsum(-1)
    assert torch.equal(found, torch.searchsorted(total, number * total[:, -1:], right=True)[:, 0])


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(2, V, generator=torch.Generator().manual_seed(0))
    prompts = [[int(row.argmax())] for row in logits]  # the most probable token was in the prompt
    requests = [Request(p, sampling=Sampling(repetition_penalty=3.0)) for p in prompts]
    chosen, logprobs = Sampler(requests, V).choose(logits)
    expected = RepetitionPenaltyLogitsProcessor(3.0)(torch.tensor(prompts), logits.clone()).argmax(-1)
    assert chosen.tolist() == expected.tolist() != logits.argmax(-1).tolist()
    plain = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]  # of the unmodified model
    assert torch.allclose(logprobs, plain, rtol=0, atol=1e-6)


def test_logprobs_are_at_the_sampling_temperature() -> None:
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    settings = [Sampling(temperature=0.5, top_k=3), Sampling(), Sampling(temperature=2.0)]
    chosen, logprobs = Sampler([Request([1], 7, s) for s in settings], V).choose(logits)
    scaled = logits / torch.tensor([[0.5], [1.0], [2.0]])
    expected = scaled.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    assert torch.allclose(logprobs, expected, rtol=0, atol=1e-6)
    assert chosen[1] == logits[1].argmax()


def test_a_row_keeps_its_numbers_when_others_leave() -> None:
    logits = torch.randn(4, V, generator=torch.Generator().manual_seed(2))
    requests = [Request([1], seed, Sampling(temperature=1.0, max_new_tokens=6)) for seed in range(4)]
    whole, shrinking = Sampler(requests, V), Sampler(requests, V)
    first = [sampler.choose(logits)[0].tolist() for sampler in (whole, shrinking)]
    assert first[0] == first[1]
    kept = torch.tensor([1, 3])
    shrinking.keep(kept.tolist(), kept)
    for _ in range(4):
        assert whole.choose(logits)[0][kept].tolist() == shrinking.choose(logits[kept])[0].tolist()


def test_longer_requests_beside_it_do_not_change_a_row() -> None:
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(3))
    short = Request([1], 5, Sampling(temperature=1.0, max_new_tokens=3))
    long = Request([1], 6, Sampling(temperature=1.0, max_new_tokens=300))
    alone, beside = Sampler([short], V), Sampler([short, long], V)
    for _ in range(3):
        assert alone.choose(logits)[0][0] == beside.choose(logits.repeat(2, 1))[0][0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, r"temperature=-1.0 must be 0 \(greedy\) or at least 1e-30"),
        ({"top_p": 0.0}, r"top_p=0.0 must be above 0 and at most 1"),
        ({"max_new_tokens": 0}, r"max_new_tokens=0 must be at least 1"),
        ({"temperature": 1e-38}, r"temperature=1e-38 must be 0 \(greedy\) or at least 1e-30"),
        ({"temperature": float("nan")}, r"temperature=nan must be 0"),
        ({"repetition_penalty": float("inf")}, r"repetition_penalty=inf must be between 1e-6 and 1e6"),
        ({"stop": ("end", "")}, r"stop=\('end', ''\) must be without the empty text"),
    ],
)
def test_values_without_meaning(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(Sampling(**wrong))


def test_the_coldest_temperature_is_greedy() -> None:
    logits = 30 * torch.randn(4, V, generator=torch.Generator().manual_seed(4))
    requests = [Request([1], seed, Sampling(temperature=1e-30)) for seed in range(4)]
    chosen, logprobs = Sampler(requests, V).choose(logits)
    assert chosen.tolist() == logits.argmax(-1).tolist() and logprobs.tolist() == [0.0] * 4
