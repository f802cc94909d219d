"""True captions against foils: the scores by hand, every pair scored as alone, lists of one's own."""

from functools import partial
from types import SimpleNamespace

from alignlab.evaluation.foils import foil_scores, winoground
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer
from alignlab.types.pairs import FoilBatch, TextEncoding

import pytest
import torch


def test_scores_by_hand():
    """Rows: all right; right captions for both pictures alone; right pictures for both captions alone; all tied; NaN."""
    nan = float("nan")
    rows = [[[3, 1], [0, 2]], [[5, 4], [6, 7]], [[3, 4], [1, 5]], [[1, 1], [1, 1]], [[nan, nan], [nan, nan]]]
    found = winoground(torch.tensor(rows))
    assert found == pytest.approx(
        {"caption_accuracy": 3 / 5, "text_score": 2 / 5, "image_score": 2 / 5, "group_score": 1 / 5}
    )
    assert winoground(torch.tensor(rows)[:3, :1]) == pytest.approx({"caption_accuracy": 2 / 3})
    blind = winoground(torch.randn(20_000, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert list(blind.values()) == pytest.approx([1 / 2, 1 / 4, 1 / 4, 1 / 6], abs=0.01)


@pytest.mark.parametrize("shape", [(0, 2, 2), (3, 3, 2), (3, 2), (3, 2, 3)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="scores have the shape"):
        winoground(torch.zeros(shape))


def encoder():
    vision = partial(vision_transformer, image_size=24, patch_size=8, width=16, depth=1, heads=2)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 2, "max_positions": 8, "embed_dim": 8}
    return partial(AlbefEncoder, vision, **sizes)


@pytest.mark.parametrize("pictures", [1, 2])
def test_every_pair_scores_as_it_does_alone(pictures):
    """In batches of different sizes; a text's padding changes nothing."""
    torch.manual_seed(pictures)
    net = Albef(encoder(), vocab_size=30).eval()
    system = torch.nn.Module()
    system.net, system.encode_image, system.encode_text = net, net.encode_image, net.encode_text
    ids, lengths = torch.randint(5, 30, (5, 2, 7)), torch.randint(3, 8, (5, 2, 1))
    rows = FoilBatch(torch.randn(5, pictures, 3, 24, 24), ids, torch.arange(7) < lengths)
    scores = foil_scores(system, [FoilBatch(*(x[part] for x in rows)) for part in (slice(0, 3), slice(3, 5))])
    assert scores["matching"].shape == scores["similarity"].shape == (5, pictures, 2)
    with torch.no_grad():
        for row in range(5):
            for p in range(pictures):
                image = net.encode_image(rows.image[row, p][None])
                for c in range(2):
                    length = int(lengths[row, c])
                    text: TextEncoding = net.encode_text(ids[row, c][None, :length], rows.mask[row, c][None, :length])
                    logits = net.match(net.image_states(image.tokens), text.tokens, rows.mask[row, c][None, :length])
                    torch.testing.assert_close(scores["matching"][row, p, c], logits[0, 1] - logits[0, 0])
                    torch.testing.assert_close(scores["similarity"][row, p, c], image.features[0] @ text.features[0])
    two_towers = SimpleNamespace(
        net=object(), encode_image=net.encode_image, encode_text=net.encode_text, parameters=net.parameters
    )
    assert set(foil_scores(two_towers, [rows])) == {"similarity"}
