"""Constraints on what may be generated (JSON schema or regular expression) as a mask of allowed tokens per request;
extra `constraints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignlab.inference.backend import Request
from alignlab.inference.sampling import AllowedTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def allowed_tokens(
    requests: Sequence[Request],
    tokenizer: PreTrainedTokenizerBase | None,
    eos: frozenset[int],
    vocabulary: int,
) -> list[AllowedTokens | None] | None:
    """For each request the function that says which tokens may come next, or None; None where no request is
    constrained.
    """
    if not any(request.sampling.regex or request.sampling.json_schema for request in requests):
        return None
    if tokenizer is None:
        raise ValueError("regex and json_schema need the model's tokenizer")
    try:
        import llguidance
        import llguidance.hf
        import llguidance.numpy
    except ImportError as error:
        raise ValueError("constraints need llguidance: pip install 'alignlab[constraints]'") from error
    words = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=min(eos) if eos else None)
    return [_matcher(request, words, vocabulary) for request in requests]


def _matcher(request: Request, words: object, vocabulary: int) -> AllowedTokens | None:
    from llguidance import LLMatcher
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

    sampling = request.sampling
    if sampling.json_schema:
        grammar = LLMatcher.grammar_from_json_schema(sampling.json_schema)
    elif sampling.regex:
        grammar = LLMatcher.grammar_from_regex(sampling.regex)
    else:
        return None
    problem = LLMatcher.validate_grammar(grammar)
    if problem:
        key = "json_schema" if sampling.json_schema else "regex"
        raise ValueError(f"{key}: {problem.strip().splitlines()[0]}")
    matcher, taken = LLMatcher(words, grammar), 0
    bits = allocate_token_bitmask(1, vocabulary)

    def allowed(new_ids: list[int]) -> Tensor:
        nonlocal taken
        matcher.consume_tokens(new_ids[taken:])
        taken = len(new_ids)
        fill_next_token_bitmask(matcher, bits)
        spread = torch.from_numpy(bits[0]).view(torch.uint8)[:, None] >> torch.arange(8, dtype=torch.uint8)
        return (spread & 1).flatten()[:vocabulary].bool()

    return allowed
