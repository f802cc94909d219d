"""What a language model says before and after: prompts out of batches, answers as a loop gives them."""

from alignlab.callbacks.evaluators.answers import answer, openings
from alignlab.types.language import PreferenceBatch, TokenBatch
from tiny_policy import END, PAD, make_model

import torch


def test_prompts_are_what_stands_before_the_response() -> None:
    ids = torch.tensor([[2, 5, 6, 7, 8, END], [2, 9, 10, 11, END, PAD], [2, 4, 3, 4, 5, END]])
    target = torch.tensor([3, 4, 5, 6 + 1, 6 + 2, 6 + 3, 6 + 4, 12 + 2, 12 + 3, 12 + 4, 12 + 5])
    texts = TokenBatch(ids, (ids != PAD).long(), torch.arange(6).expand(3, 6), target, False)
    assert openings(texts, 3, opening=2) == [
        ([2, 5, 6], [7, 8, END]),
        ([2, 9, 10], [11, END]),
        ([2, 4], [3, 4, 5, END]),
    ]
    packed = texts._replace(document=torch.tensor([[1, 1, 1, 1, 2, 2]] * 3), packed=True)
    assert openings(packed, 1, opening=2) == [([2, 5, 6], [7])]
    first, ones = torch.tensor([2, 0, 2]), torch.ones(3)
    pairs = PreferenceBatch(ids, ids != PAD, target, first, torch.tensor([1, 1, 0]), ones, ones, torch.arange(3))
    assert openings(pairs, 9, opening=2) == [([2, 4], [3, 4, 5, END]), ([2, 5, 6], [7, 8, END])]


def test_answers_are_the_likeliest_tokens_whatever_stands_beside() -> None:
    net, prompts, wanted = make_model(), [[2, 5, 6, 7], [2, 9]], []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and ids[-1] != END:
            ids.append(int(net(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        wanted.append([token for token in ids[len(prompt) :] if token != END])
    assert answer(net, prompts, 6, pad=PAD, ends=[END]) == wanted and len(wanted[0]) > 1
