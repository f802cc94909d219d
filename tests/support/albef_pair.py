"""The oracle and our system at the same sizes, with the same weights, which travel through the published layout."""

from collections.abc import Callable
from functools import partial

from albef_reference import AlbefReference
from albef_reference_encoders import Sizes
from alignlab.losses.albef import HardNegatives
from alignlab.losses.language import MaskedTokens
from alignlab.methods.parts.chances import Chances
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.albef_checkpoint import from_official
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from alignlab.systems.method_system import MethodSystem
from alignlab.types.pairs import PairBatch, Vocabulary
from tiny_training import albef_system

import torch
from torch import Tensor

TINY = Sizes(
    image_size=24,
    patch_size=8,
    vision_width=24,
    vision_layers=2,
    vision_heads=3,
    vocab_size=61,
    text_width=32,
    text_layers=5,
    fusion_layer=2,
    text_heads=4,
    max_positions=16,
    embed_dim=12,
    queue_size=20,
    dropout=0.0,
    cls_id=2,
    mask_id=4,
)


def make_reference(
    sizes: Sizes = TINY, *, seed: int = 0, spread: float = 3.0, temperature: float = 0.25, teacher_dropout: bool = True
) -> AlbefReference:
    """The oracle with weights far from their usual start, a teacher that differs from the student, and no zero bias."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AlbefReference(sizes, teacher_dropout=teacher_dropout)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name == "temp":
                    parameter.fill_(temperature)
                    continue
                # Features of length near one before they are normalised, lest that magnifies gradients and their rounding.
                noise = (0.2 if "_proj" in name else 0.02 * spread) * torch.randn_like(parameter)
                norm = name.endswith("weight") and parameter.ndim == 1
                parameter.copy_(1 + noise if norm else noise)
    return model.train()


def make_net(z: Sizes = TINY) -> Callable[..., Albef]:
    """Builds our net at the oracle's sizes."""
    vision = partial(
        vision_transformer,
        image_size=z.image_size,
        patch_size=z.patch_size,
        width=z.vision_width,
        depth=z.vision_layers,
        heads=z.vision_heads,
    )
    encoder = partial(
        AlbefEncoder,
        vision,
        text_width=z.text_width,
        heads=z.text_heads,
        text_layers=z.fusion_layer,
        fusion_layers=z.text_layers - z.fusion_layer,
        max_positions=z.max_positions,
        embed_dim=z.embed_dim,
        dropout=z.dropout,
        attention_dropout=z.dropout,
    )
    return partial(Albef, encoder)


def words_of(z: Sizes = TINY) -> Vocabulary:
    """The oracle's vocabulary."""
    return Vocabulary(z.vocab_size, z.pad_id, z.cls_id, z.cls_id + 1, z.mask_id)


def make_system(
    sizes: Sizes = TINY, *, lr: float = 1e-4, weight_decay: float = 0.02, **settings: object
) -> MethodSystem:
    """Our system at the oracle's sizes, built and in training mode."""
    z = sizes
    system = albef_system(
        make_net(z),
        partial(adamw, lr=lr, weight_decay=weight_decay, schedule="constant"),
        words_of(z),
        queue_size=z.queue_size,
        momentum=z.momentum,
        mask_probability=z.mlm_probability,
        **settings,
    )
    system.configure_model()
    return system.train()


def load(system: MethodSystem, reference: AlbefReference) -> None:
    """Copy the oracle's whole state, ids of the queue included, into our system."""
    system.load_state_dict(from_official(reference.state_dict()).of_system())
    system.queue.image_id.copy_(reference.image_id_queue)
    system.queue.text_id.copy_(reference.text_id_queue)


def random_batch(
    sizes: Sizes, batch: int, tokens: int, generator: torch.Generator, *, groups: int | None = None
) -> PairBatch:
    """Noise pictures and texts of uneven length; with `groups`, several pairs share a picture's or a caption's id."""
    image = torch.randn(batch, 3, sizes.image_size, sizes.image_size, generator=generator)
    ids = torch.randint(sizes.mask_id + 1, sizes.vocab_size, (batch, tokens), generator=generator)
    ids[:, 0] = sizes.cls_id
    length = torch.randint(max(2, tokens // 2), tokens + 1, (batch,), generator=generator)
    length[0] = tokens
    mask = torch.arange(tokens)[None] < length[:, None]
    ids[~mask] = sizes.pad_id
    image_id = text_id = torch.arange(batch)
    if groups is not None:
        # The first pair is alone, so that every pair has a negative.
        image_id, text_id = (torch.randint(1, n, (batch,), generator=generator) for n in (groups, 2 * groups))
        image_id[0] = text_id[0] = 0
    return PairBatch(image, ids, mask, image_id, text_id)


def fixed_chances(sizes: Sizes, batch: PairBatch, generator: torch.Generator) -> tuple[Chances, dict[str, Tensor]]:
    """The same masked tokens and negatives in our form and in the oracle's."""
    size = len(batch.image)
    eligible = batch.mask & (batch.ids != sizes.cls_id)
    hidden = eligible & (torch.rand(batch.ids.shape, generator=generator) < 0.3)
    hidden[0, 1] = True
    new = torch.randint(sizes.vocab_size, batch.ids.shape, generator=generator)
    masked_ids = torch.where(hidden, new, batch.ids)
    position = hidden.flatten().nonzero()[:, 0]
    surplus = torch.zeros(3, dtype=torch.int64)  # rows of weight 0, as `mask_tokens` leaves them
    weight = torch.cat([torch.ones(len(position)), torch.zeros(3)])
    position = torch.cat([position, surplus])
    masked = MaskedTokens(masked_ids, position, batch.ids.flatten()[position], weight)
    pick = torch.rand(size, size, generator=generator)
    same = (batch.image_id[:, None] == batch.image_id) | (batch.text_id[:, None] == batch.text_id)
    assert not same.all(1).any()
    image, text = (x.masked_fill(same, -1).argmax(1) for x in (pick, pick.T))
    chances = Chances(masked, HardNegatives(image, text, torch.ones(size, dtype=torch.bool)))
    oracle = {
        "masked_ids": masked_ids,
        "labels": torch.where(hidden, batch.ids, -100),
        "negative_images": image,
        "negative_texts": text,
    }
    return chances, oracle
