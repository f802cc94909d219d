"""k accumulated batches of B rows give the loss and the update of one batch of k B, whatever the rows count, in every system."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from albef_pair import TINY, make_net, words_of
from alignlab.data.loaders import training_batches
from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.methods.albef_entailment import AlbefEntailmentMethod
from alignlab.methods.albef_nlvr2 import AlbefNlvr2Method
from alignlab.methods.albef_vqa import AlbefVqaMethod
from alignlab.methods.clip_entailment import ClipEntailmentMethod
from alignlab.methods.clip_vqa import ClipVqaMethod
from alignlab.methods.coca import Coca, CocaMethod
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.lm import LmMethod
from alignlab.methods.orpo import OrpoMethod
from alignlab.methods.reward import RewardMethod
from alignlab.methods.sft import SftMethod
from alignlab.methods.simpo import SimpoMethod
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.systems.choosing import system_of
from alignlab.systems.method_system import MethodSystem
from alignlab.types.pairs import PairBatch
from alignlab.types.picture_tasks import Answers, JudgedBatch, QuestionBatch
from tiny_language import NET, preference_batch, token_batch
from tiny_language import WORDS as LANGUAGE
from tiny_run import REPOSITORY
from tiny_training import WORDS as WORDS_OF_PAIRS
from tiny_training import albef_system, clip_system, pairs, told

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

LENGTHS = (5, 6, 7, 60, 9, 4, 30, 12)  # of which all but 4 tokens are predicted: 1, 2, 3, 56, ...
ANSWERS = 7  # that a list has


class Rows(Dataset):
    """Batches of given rows, in their order."""

    def __init__(self, make: Callable[[Sequence[int]], tuple], length: int) -> None:
        self.make, self.length = make, length

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, serials: Sequence[int]) -> tuple:
        return self.make([serial % self.length for serial in serials])


class Data(pl.LightningDataModule):
    def __init__(self, rows: Rows, batch_size: int) -> None:
        super().__init__()
        self.rows, self.batch_size = rows, batch_size

    def train_dataloader(self) -> DataLoader:
        return training_batches(self.rows, self.batch_size, self.trainer)


class Losses(pl.Callback):
    """What a step logs, after its last batch."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if trainer.global_step > len(self.found):
            self.found.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def sgd(module: torch.nn.Module, *, total_steps: int) -> dict:
    """Steps as large as the gradient says."""
    return {"optimizer": torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)}


def texts(rows: Sequence[int]) -> tuple:
    """SFT rows whose first 4 tokens are a prompt."""
    batch = token_batch([LENGTHS[row] for row in rows], seed=0)
    whole = token_batch(list(LENGTHS), seed=0)
    ids = whole.ids[list(rows), : batch.ids.shape[1]]
    target = ((batch.document > 0) & (batch.position > 3)).flatten().nonzero().squeeze(1)
    return batch._replace(ids=ids, target=target)


def comparisons(rows: Sequence[int]) -> tuple:
    lengths = [5 + 3 * row for row in rows] + [20 - row for row in rows]
    size, whole = len(rows), preference_batch([5 + 3 * i for i in range(8)] + [20 - i for i in range(8)])
    batch = preference_batch(lengths)
    ids = whole.ids[[*rows, *(8 + row for row in rows)], : batch.ids.shape[1]]
    share = torch.tensor([0.5 + 0.05 * row for row in rows])
    return batch._replace(ids=ids, share=share, index=torch.tensor([*rows, *(100 + row for row in rows)])[: 2 * size])


def scenes(rows: Sequence[int]) -> PairBatch:
    """Rows 2 and 3 show the same picture: no hard negative within two, so ITM counts vary; captions are of 3 to 7 tokens,
    sentences and foils are missing here and there.
    """
    batch = told(pairs(8, 5))
    ids = batch.image_id.clone()
    ids[3] = ids[2]
    chosen, more = list(rows), (batch.sentences, batch.foils)
    own = (x[chosen] for x in batch._replace(image_id=ids)[:5])
    return PairBatch(*own, *(type(part)(*(x[chosen] for x in part)) for part in more))


def albef() -> MethodSystem:
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    encoder = partial(
        AlbefEncoder, vision, text_width=16, heads=2, text_layers=1, fusion_layers=2, max_positions=12, embed_dim=8,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    settings = {"queue_size": 16, "negative_pool": 2, "mask_probability": 0.3}
    return albef_system(partial(Albef, encoder), sgd, **settings)


def coca() -> MethodSystem:
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 2, "max_positions": 12, "embed_dim": 8}
    net = partial(Coca, vision, dropout=0.0, attention_dropout=0.0, **sizes)
    return system_of(partial(CocaMethod, net), vocabulary=WORDS_OF_PAIRS, optim=sgd)


def clip(loss: torch.nn.Module, **settings) -> MethodSystem:
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    text = partial(TextTower, context_length=7, width=16, depth=1, heads=2)
    net = partial(Clip, vision, text, embed_dim=8, logit_bias=-3.0 if isinstance(loss, SigLip) else None)
    return clip_system(net, loss, sgd, **settings)


def of_task(kind: type, **settings) -> MethodSystem:
    return system_of(partial(kind, make_net(), **settings), vocabulary=words_of(), optim=sgd)


def of_towers(kind: type) -> MethodSystem:
    vision = partial(vision_transformer, image_size=TINY.image_size, patch_size=8, width=16, depth=1, heads=2)
    text = partial(TextTower, context_length=8, width=16, depth=1, heads=2)
    net, words = partial(Clip, vision, text, embed_dim=8), words_of()._replace(answers=ANSWERS)
    return system_of(partial(kind, net), vocabulary=words, optim=sgd)


def judged(rows: Sequence[int], pictures: int) -> JudgedBatch:
    image = torch.stack([noise(row, pictures, 3, TINY.image_size, TINY.image_size) for row in rows])
    ids, mask = task_texts(rows)
    return JudgedBatch(image, ids, mask, torch.tensor([row % 3 for row in rows]))


def questions(rows: Sequence[int]) -> QuestionBatch:
    """One to three answers each, of other lengths and weights."""
    ids, mask = task_texts(rows)
    said = [(place, row + 10 * n) for place, row in enumerate(rows) for n in range(1 + row % 3)]
    answers = Answers(*task_texts([row for _, row in said]))
    image = torch.stack([noise(row, 3, TINY.image_size, TINY.image_size) for row in rows])
    weight = torch.tensor([1 / (1 + row % 5) for _, row in said])
    asks, listed = torch.tensor([place for place, _ in said]), torch.tensor([row % ANSWERS for _, row in said])
    return QuestionBatch(image, ids, mask, answers, asks, weight, listed=listed)


def task_texts(rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([3 + row % 5 for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    g = [torch.Generator().manual_seed(row) for row in rows]
    ids = torch.stack([torch.randint(TINY.mask_id + 1, TINY.vocab_size, (8,), generator=one) for one in g])
    ids = ids[:, : mask.shape[1]].masked_fill(~mask, TINY.pad_id)
    ids[:, 0] = TINY.cls_id
    return ids, mask


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LANGUAGE_SYSTEMS = {
    "sft": (lambda: system_of(partial(SftMethod, NET), vocabulary=LANGUAGE, optim=sgd), texts),
    "lm": (
        lambda: system_of(partial(LmMethod, NET, z_loss=0.1, embedding_gradient=0.5), vocabulary=LANGUAGE, optim=sgd),
        texts,
    ),
    "reward": (
        lambda: system_of(partial(RewardMethod, NET, centering=0.1), vocabulary=LANGUAGE, optim=sgd),
        comparisons,
    ),
    "simpo": (lambda: system_of(partial(SimpoMethod, NET), vocabulary=LANGUAGE, optim=sgd), comparisons),
    "orpo": (lambda: system_of(partial(OrpoMethod, NET, beta=1.0), vocabulary=LANGUAGE, optim=sgd), comparisons),
    "dpo": (lambda: system_of(partial(DpoMethod, NET, beta=1.0), vocabulary=LANGUAGE, optim=sgd), comparisons),
    "dpo_sft": (
        lambda: system_of(partial(DpoMethod, NET, beta=1.0, sft_weight=1.0), vocabulary=LANGUAGE, optim=sgd),
        comparisons,
    ),
    "ipo": (
        lambda: system_of(partial(DpoMethod, NET, kind="ipo", beta=1.0), vocabulary=LANGUAGE, optim=sgd),
        comparisons,
    ),
}
TASK_SYSTEMS = {
    "albef_entailment": (partial(of_task, AlbefEntailmentMethod, classes=3), partial(judged, pictures=1)),
    "albef_nlvr2": (partial(of_task, AlbefNlvr2Method, classes=3), partial(judged, pictures=2)),
    "albef_vqa": (partial(of_task, AlbefVqaMethod), questions),
    "clip_entailment": (partial(of_towers, ClipEntailmentMethod), partial(judged, pictures=1)),
    "clip_vqa": (partial(of_towers, ClipVqaMethod), questions),
}
SYSTEMS = LANGUAGE_SYSTEMS | TASK_SYSTEMS | {"albef": (albef, scenes), "coca": (coca, scenes)}
# What isn't a contrast: the parts of a loss that are those of the whole step, and the weights which nothing else moves.
_EXACT = {
    "albef": ("train/mlm_loss", "train/itm_loss", "train/itm_accuracy", "train/salient_loss"),
    "coca": ("train/caption_loss",),
}
_CONTRASTED = (
    "vision",
    "image_projection",
    "text_projection",
    "temperature",
    "embeddings",
    "net.text.",
    "encoder.text.",
)


def trained(make: Callable, rows: Callable, size: int, accumulate: int, batches: int, **settings) -> tuple:
    """The movement of every weight, what each step logged, and the system."""
    torch.manual_seed(0)
    system, losses = make(), Losses()
    system.configure_model()
    before = {name: p.detach().clone() for name, p in system.net.named_parameters()}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[losses], limit_train_batches=batches,
        accumulate_grad_batches=accumulate, limit_val_batches=0, use_distributed_sampler=False, **{"devices": 1, **settings},
    )  # fmt: skip
    trainer.fit(system, datamodule=Data(Rows(rows, 8), size))
    after = {} if "strategy" in settings else {name: p.detach() for name, p in system.net.named_parameters()}
    return {name: p - before[name] for name, p in after.items()}, losses.found, system


def compare(name: str, small: tuple, large: tuple) -> None:
    """The same step. A contrast, and so what it is part of, sees other keys: there what is exact is compared."""
    assert len(small[1]) == len(large[1]) > 0
    for ours, wanted in zip(small[1], large[1], strict=True):
        for key in _EXACT.get(name, wanted):
            assert ours[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-5), key
    compared = 0
    for key, wanted in large[0].items():
        if name in _EXACT and any(part in f"net.{key}" for part in _CONTRASTED):
            continue
        torch.testing.assert_close(small[0][key], wanted, rtol=1e-3, atol=2e-6, msg=key)
        compared += bool(wanted.abs().sum() > 1e-6)
    assert compared > 3


def test_no_system_is_forgotten() -> None:
    """CLIP's and SigLIP's loss is nothing but a contrast; PPO, GRPO and its presets make their own steps and refuse to
    accumulate; KTO's KL is that of a batch (tests/methods/test_kto.py)."""
    configs = {file.stem: OmegaConf.load(file) for file in (REPOSITORY / "conf" / "model").glob("*.yaml")}
    presets = {name for name, config in configs.items() if {"grpo", "albef"} & set(map(str, config.defaults))}
    assert {"dapo", "rloo", "albef_retrieval"} <= presets
    assert configs.keys() - presets == {*SYSTEMS, "clip", "siglip", "ppo", "grpo", "gkd", "kto"} - {"ipo", "dpo_sft"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_accumulated_equals_large(name: str) -> None:
    make, rows = SYSTEMS[name]
    size = 2 if name in _EXACT else 1  # a contrast needs two
    small, large = trained(make, rows, size, 4 // size, 4 // size), trained(make, rows, 4, 1, 1)
    compare(name, small, large)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_incomplete_last_step_is_that_of_its_batches(name: str) -> None:
    """Two batches of two where four were asked for: one step of four rows, not half of it."""
    make, rows = SYSTEMS[name]
    compare(name, trained(make, rows, 2, 4, 2), trained(make, rows, 4, 1, 1))


@pytest.mark.parametrize("name", LANGUAGE_SYSTEMS)
def test_several_steps_and_a_clipped_gradient(name: str) -> None:
    make, rows = SYSTEMS[name]
    settings = {"gradient_clip_val": 0.05}
    compare(name, trained(make, rows, 2, 2, 4, **settings), trained(make, rows, 4, 1, 2, **settings))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (partial(clip, InfoNce()), "with micro_batch_size"),
        (partial(clip, SigLip(), micro_batch_size=2), "with micro_batch_size"),
        (albef, "micro_batch_size is for"),
    ],
)
def test_a_contrast_says_once_that_it_compares_within_a_batch(make: Callable, names: str, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        accumulated = trained(make, scenes, 4, 2, 2)
    said = [record.getMessage() for record in caplog.records if "accumulate_grad_batches=2" in record.getMessage()]
    assert len(said) == 1 and names in said[0] and "within each batch" in said[0]
    assert len(accumulated[1]) == 1


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}])
def test_a_contrasts_step_is_the_mean_of_its_batches_at_the_end_of_an_epoch_too(settings: dict) -> None:
    make = partial(clip, InfoNce(), **settings)
    one, asked_for_more = trained(make, scenes, 4, 1, 1), trained(make, scenes, 4, 4, 1)
    compare("clip", asked_for_more, one)


def test_a_loader_that_does_not_look_ahead_is_refused() -> None:
    system = LANGUAGE_SYSTEMS["sft"][0]()
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", accumulate_grad_batches=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="accumulate_grad_batches=2: the training loader doesn't look ahead"):
        trainer.fit(system, DataLoader([texts([0]), texts([1])], batch_size=None))
