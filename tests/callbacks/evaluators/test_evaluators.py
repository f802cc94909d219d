"""Evaluators in real, tiny trainings: names, times, and that training does not notice."""

import json
from functools import partial

from alignlab.callbacks.evaluators.evaluator import Evaluator, untouched
from alignlab.callbacks.evaluators.foils import FoilEvaluator
from alignlab.callbacks.evaluators.grounding import GroundingEvaluator
from alignlab.callbacks.evaluators.linear_probe import LinearProbe
from alignlab.callbacks.evaluators.retrieval import RetrievalEvaluator
from alignlab.callbacks.evaluators.samples import SampleSheets, search
from alignlab.callbacks.evaluators.zero_shot import ZeroShotEvaluator
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.image_text.modules import PairDataModule
from alignlab.evaluation.encoding import encode_retrieval_set
from alignlab.evaluation.reranking import rerank
from alignlab.evaluation.retrieval import lift
from alignlab.losses.contrastive import InfoNce
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from tiny_training import albef_system, clip_system

import lightning
import pytest
import torch
from PIL import Image

SIZE = 24  # a 3 x 3 grid
RECALLS = {f"{way}_recall_at_{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)}


@pytest.fixture(scope="module")
def data():
    module = PairDataModule(
        EmojiScenePairs, num_val=6, num_val_foils=5, num_train=64, batch_size=4, image_size=SIZE, num_workers=0
    )
    module.setup("fit")
    return module


def vision():
    return partial(vision_transformer, image_size=SIZE, patch_size=8, width=16, depth=1, heads=2)


def albef(data, dropout=0.1):
    encoder = partial(
        AlbefEncoder,
        vision(),
        text_width=16,
        heads=2,
        text_layers=1,
        fusion_layers=2,
        max_positions=32,
        embed_dim=8,
        dropout=dropout,
    )
    optim = partial(adamw, lr=1e-3, warmup_steps=1)
    return albef_system(partial(Albef, encoder), optim, data.vocabulary, queue_size=8)


class Counter(Evaluator):
    """Records when it is called and in which state."""

    def __init__(self, every="validation"):
        super().__init__(every)
        self.calls = []

    def evaluate(self, trainer, module, last):
        assert not module.training and not torch.is_grad_enabled()
        torch.rand(3)
        self.calls.append((trainer.global_step, last))
        return {"counter": float(len(self.calls))}


def fit(system, data, callbacks, folder, **settings):
    settings = {"max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None} | settings
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **settings,
    )
    trainer.fit(system, datamodule=data)
    return trainer


def test_all_evaluators_of_albef_leave_no_trace(data, tmp_path):
    callbacks = [
        RetrievalEvaluator(rerank_top_k=3, rerank_every="validation"),
        ZeroShotEvaluator(every="end"),
        LinearProbe("known"),
        GroundingEvaluator(every="validation"),
        FoilEvaluator(),
        SampleSheets(),
    ]
    evaluated, plain = albef(data), albef(data)
    trainer = fit(evaluated, data, callbacks, tmp_path)
    fit(plain, data, [], tmp_path)
    for (name, ours), theirs in zip(evaluated.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    names = {name.removeprefix("val/") for name in trainer.callback_metrics if name.startswith("val/")}
    assert RECALLS | {f"reranked_{name}" for name in RECALLS} <= names
    assert {"zero_shot_variants_accuracy_at_1", "zero_shot_variants_accuracy_at_5"} <= names
    facts = ("relations", "which_is_where", "counts", "backgrounds")
    scores = {f"{fact}_{score}" for fact in facts for score in ("caption_accuracy", "text_score", "group_score")}
    assert scores | {f"matched_{name}" for name in scores} <= names
    assert {"linear_probe_accuracy", "pointing_game_accuracy", "pointing_game_chance"} <= names
    for name in names - {n for n in names if "loss" in n}:
        assert 0 <= trainer.callback_metrics[f"val/{name}"] <= 1


def test_sheets_of_albef(data, tmp_path):
    fit(albef(data), data, [SampleSheets(num_captions=4, num_scenes=2)], tmp_path)
    for name in ("retrieval.png", "grad_cam.png"):
        with Image.open(tmp_path / "samples" / name) as picture:
            assert min(picture.size) > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 100
    rows = [json.loads(line) for line in (tmp_path / "samples" / "retrieval.jsonl").read_text().splitlines()]
    assert [row["picture"] for row in rows] == [0, 1, 3, 4]
    for row in rows:
        assert row["caption"] == data.caption(row["picture"])
        assert len(set(row["pictures"])) == 5 and row["scores"] == sorted(row["scores"], reverse=True)
        assert row["place"] == 6 or row["pictures"][row["place"] - 1] == row["picture"]
    assert not list((tmp_path / "samples").glob(".*"))


def test_search_orders_as_reranking_does(data):
    system = albef(data)
    system.configure_model()
    system.eval()
    for parameter in system.net.parameters():  # far from its start, so that scores differ
        torch.nn.init.normal_(parameter, std=0.3)
    encoded = encode_retrieval_set(system, data.retrieval_dataloader(), keep_tokens=True)
    for top_k in (3, 100):
        order = lift(encoded.text_features @ encoded.image_features.T, rerank(system.net, encoded, top_k=top_k)[0])
        found = search(system.net, encoded, [0, 2, 5], top_k)
        assert [pictures for pictures, _ in found] == order[[0, 2, 5]].argsort(1, descending=True).tolist()
    order = (encoded.text_features @ encoded.image_features.T).argsort(1, descending=True)
    assert search(None, encoded, [1], 3)[0][0] == order[1].tolist()


def test_clip_has_the_same_without_matching(data, tmp_path):
    text = partial(TextTower, width=16, depth=1, heads=2, context_length=20)
    net = partial(Clip, vision(), text, embed_dim=8)
    system = clip_system(net, InfoNce(), partial(adamw, lr=1e-3, warmup_steps=1), data.vocabulary)
    among = RetrievalEvaluator(split="arrangements", prefix="arrangements_")
    evaluators = [
        RetrievalEvaluator(items=True),
        among,
        ZeroShotEvaluator(),
        GroundingEvaluator(),
        FoilEvaluator(sets=["counts"]),
    ]
    trainer = fit(system, data, [*evaluators, SampleSheets()], tmp_path)
    names = {name.removeprefix("val/") for name in trainer.callback_metrics}
    assert RECALLS | {f"arrangements_{name}" for name in RECALLS} <= names and "counts_group_score" in names
    assert not any(name.startswith(("matched", "relations")) for name in names)
    assert "zero_shot_known_mean_per_class_recall" in names
    assert not any("reranked" in name or "pointing" in name for name in names)
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == ["retrieval.jsonl", "retrieval.png"]
    rows = [json.loads(line) for line in (tmp_path / "items" / "retrieval.jsonl").read_text().splitlines()]
    for way in ("text_to_image", "image_to_text"):
        ranks = [row["rank"] for row in rows if row["task"] == way]
        recall = float(trainer.callback_metrics[f"val/{way}_recall_at_5"])
        assert len(ranks) == 6 and sum(rank <= 5 for rank in ranks) / 6 == pytest.approx(recall)
    assert [file.name for file in (tmp_path / "items").iterdir()] == ["retrieval.jsonl"]  # off by default


def test_when_evaluators_run(data, tmp_path):
    often, once = Counter(), Counter("end")
    fit(albef(data), data, [often, once], tmp_path, num_sanity_val_steps=2)
    assert often.calls == [(2, False), (4, True)]  # not during the sanity check
    assert once.calls == [(4, True)]


def test_an_end_between_validations_is_made_up_for(data, tmp_path):
    often, once = Counter(), Counter("end")
    trainer = fit(albef(data), data, [often, once], tmp_path, max_steps=3)
    assert often.calls == [(2, False), (3, True)] and once.calls == [(3, True)]
    assert trainer.callback_metrics["val/counter"] == 1.0  # of the evaluator that came last


def test_untouched_restores_modes_and_random_state():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Dropout()))
    module[2].eval()
    before = [part.training for part in module.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(RuntimeError, match="stop"), untouched(module):
        assert not any(part.training for part in module.modules())
        torch.rand(7)
        raise RuntimeError("stop")
    assert torch.equal(torch.rand(4), expected)
    assert [part.training for part in module.modules()] == before


@pytest.mark.parametrize(
    ("limit", "most", "rows"), [(1.0, None, 5), (1.0, 3, 3), (1, None, 4), (1, 3, 3), (0.5, None, 4)]
)
def test_foils_are_no_more_than_a_validation_may_have(data, tmp_path, limit, most, rows):
    """Five rows in batches of four."""
    trainer = lightning.Trainer(
        logger=False, accelerator="cpu", enable_checkpointing=False, limit_val_batches=limit, default_root_dir=tmp_path
    )
    trainer.datamodule, system = data, albef(data)
    system.configure_model()
    seen, evaluator = [], FoilEvaluator(sets=["counts"], max_rows=most)
    encode = system.method.net.encode_text
    system.method.net.encode_text = lambda ids, mask: (seen.append(len(ids) // 2), encode(ids, mask))[1]
    evaluator.evaluate(trainer, system.eval(), True)
    assert sum(seen) == rows


class PairsOnly(lightning.LightningDataModule):
    """Nothing but training pairs."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetrievalEvaluator(rerank_top_k=-1), "rerank_top_k"),
        (lambda: RetrievalEvaluator(rerank_every="step"), "rerank_every"),
        (lambda: Counter("epoch"), "epoch"),
        (lambda: LinearProbe("known", features="patches"), "patches"),
        (lambda: SampleSheets(num_captions=0), "num_captions"),
        (lambda: GroundingEvaluator(max_pictures=0), "max_pictures"),
        (lambda: FoilEvaluator(max_rows=0), "max_rows"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unsuitable_data_and_sets_are_named(data):
    system, trainer = albef(data), lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    system.configure_model()
    trainer.datamodule = PairsOnly()
    with pytest.raises(ValueError, match=r"retrieval needs .*PairsOnly"):
        RetrievalEvaluator().evaluate(trainer, system, True)
    with pytest.raises(ValueError, match=r"samples=null"):
        SampleSheets().on_fit_start(trainer, system)
    trainer.datamodule = data
    with pytest.raises(ValueError, match=r"nonsense.*known"):
        ZeroShotEvaluator(sets=["nonsense"]).evaluate(trainer, system, True)
    with pytest.raises(ValueError, match=r"sets names \['nonsense'\]; there are \['backgrounds', 'counts'"):
        FoilEvaluator(sets=["nonsense"]).on_fit_start(trainer, system)
    with pytest.raises(ValueError, match=r"no split 'test' of emoji scenes, only .*'arrangements'"):
        RetrievalEvaluator(split="test").on_fit_start(trainer, system)
    with pytest.raises(ValueError, match=r"nonsense.*known"):
        LinearProbe("known", "nonsense").evaluate(trainer, system, True)
