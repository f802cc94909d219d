"""The contrast of words and patches against loops."""

from alignlab.losses.late_interaction import late_interaction_contrast

import torch
import torch.nn.functional as F

PAIRS, TOKENS, PATCHES, SCALE = 6, 5, 4, 7.0


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    words, patches = (F.normalize(torch.randn(PAIRS, n, 3, generator=g), dim=-1) for n in (TOKENS, PATCHES))
    return words, torch.arange(TOKENS) < torch.tensor([[5], [2], [4], [1], [3], [5]]), patches


def score(words: torch.Tensor, mask: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    best = [max(float(word @ patch) for patch in patches) for word, counts in zip(words, mask, strict=True) if counts]
    return torch.tensor(SCALE * sum(best) / len(best))


def test_it_equals_loops_within_groups_and_pairs_of_one_id_are_no_negatives():
    words, mask, patches = inputs()
    same = torch.eye(PAIRS, dtype=torch.bool)
    same[3, 4] = same[4, 3] = True
    losses = []
    for first in (0, 3):
        group = range(first, first + 3)
        table = torch.stack([torch.stack([score(words[i], mask[i], patches[j]) for j in group]) for i in group])
        if first:
            table[0, 1] = table[1, 0] = -torch.inf
        target = torch.arange(3)
        losses.append((F.cross_entropy(table, target) + F.cross_entropy(table.T, target)) / 2)
    found = late_interaction_contrast(words, mask, patches, torch.tensor([SCALE]), same, group=3)
    torch.testing.assert_close(found, sum(losses) / 2)


def test_padding_does_not_count():
    words, mask, patches = inputs()
    same = torch.eye(PAIRS, dtype=torch.bool)
    whole = late_interaction_contrast(words, mask, patches, torch.tensor(SCALE), same, group=6)
    noise = words.masked_scatter(~mask[..., None], torch.randn(words.shape))
    torch.testing.assert_close(late_interaction_contrast(noise, mask, patches, torch.tensor(SCALE), same, 6), whole)
