"""Several sources of texts as one: shares, orders, joined batches, what each source is validated with."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

from alignlab.data.language import movies
from alignlab.data.language.mixing import apportioned, short_names
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.kto import KtoMethod
from alignlab.methods.orpo import OrpoMethod
from alignlab.methods.reward import RewardMethod
from alignlab.methods.sft import SftMethod
from alignlab.methods.simpo import SimpoMethod
from alignlab.systems.averages import Tallies
from alignlab.types.language import Sources
from tiny_language import NET

import pytest
import torch

KINDS = {
    "sft": lambda name, i: {"prompt": f"{name} {i}", "completion": " and on" * (i % 5 + 1)},
    "preference": lambda name, i: {"prompt": f"{name} {i}", "chosen": " yes" * (i % 3 + 1), "rejected": f" no {i}"},
    "label": lambda name, i: {"prompt": f"{name} {i}", "completion": " yes" * (i % 4 + 1), "label": bool(i % 2)},
    "prompt": lambda name, i: {"prompt": f"{name} {i} is" + " so" * (i % 4), "answer": i},
}


def files(folder: Path, kind: str, sizes: dict[str, int]) -> list[str]:
    for name, size in sizes.items():
        lines = [json.dumps(KINDS[kind](name, i)) for i in range(size)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return [str(folder / f"{name}.jsonl") for name in sizes]


def module(kind: str = "sft", **settings: object) -> LanguageDataModule:
    made = LanguageDataModule(OwnRows, kind=kind, batch_size=8, vocab_size=600, val_share=0.3, **settings)
    made.setup()
    return made


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return files(tmp_path, "sft", {"chats": 30, "web": 90})


def test_an_epoch_has_the_shares_and_goes_through_every_row(two: list[str]) -> None:
    rows = module(mix=dict(zip(two, (3, 1), strict=True))).rows["train"]
    sizes = dict(zip(rows.names, rows.sizes.tolist(), strict=True))
    assert rows.names == ("chats", "web") and len(rows) == sum(sizes.values())
    assert abs(rows.counts[0] - 0.75 * len(rows)) <= 1
    epochs = [Counter(rows.drawn(epoch).tolist()) for epoch in range(12)]
    for drawn in epochs:
        of_chats = sum(count for row, count in drawn.items() if row < sizes["chats"])
        assert of_chats == rows.counts[0] and max(drawn.values()) <= rows.counts[0] // sizes["chats"] + 1
    together = sum(epochs, Counter())
    for first, last in ((0, sizes["chats"]), (sizes["chats"], len(rows))):
        times = [together[row] for row in range(first, last)]
        assert min(times) and max(times) - min(times) <= 1, "each row as often as the others of its source"


def test_what_comes_when_is_a_function_of_seed_and_epoch(two: list[str]) -> None:
    mix = dict(zip(two, (0.3, 0.7), strict=True))
    whole = [batch for epoch in range(2) for batch in _epoch(module(mix=mix), epoch)]
    first = module(mix=mix).train_dataloader()
    given = [batch for _, batch in zip(range(4), first, strict=False)]
    again = module(mix=mix).train_dataloader()
    again.load_state_dict({**first.state_dict(), "batch": 4})
    for a, b in zip([*given, *again], whole, strict=False):
        assert torch.equal(a.ids, b.ids) and torch.equal(a.sources.number, b.sources.number)
    assert not all(torch.equal(a.ids, b.ids) for a, b in zip(given, _epoch(module(mix=mix, seed=1), 0), strict=False))


def _epoch(made: LanguageDataModule, epoch: int) -> list:
    loader = made.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("pack", [False, True])
def test_a_joined_batch_predicts_what_its_rows_do(two: list[str], pack: bool) -> None:
    made = module(mix=dict.fromkeys(two, 1.0), pack=pack, max_length=64)
    batch = next(batch for batch in made.train_dataloader() if len(set(batch.sources.number.tolist())) == 2)
    assert batch.packed == pack
    texts = [made.tokenizer.decode(row[mask]) for row, mask in zip(batch.ids, batch.document > 0, strict=True)]
    for text, number in zip(texts, batch.sources.number.tolist(), strict=True):
        other = batch.sources.names[1 - number]
        assert batch.sources.names[number] in text and other not in text
    predicted = made.tokenizer.decode(batch.ids.flatten()[batch.target])
    assert not any(name in predicted for name in batch.sources.names), "prompts aren't predicted"
    assert predicted.count(" and on") == sum(text.count(" and on") for text in texts)
    assert (batch.position.flatten()[batch.target] > 0).all()


def test_labelled_texts_keep_the_responses_of_others(tmp_path: Path) -> None:
    made = module("label", mix=dict.fromkeys(files(tmp_path, "label", {"a": 40, "b": 80}), 1.0))
    batch = next(b for b in made.train_dataloader() if len(set(b.sources.number.tolist())) == 2)
    for ids, target in ((batch.ids, batch.target), (batch.other_ids, batch.other_target)):
        predicted = made.tokenizer.decode(ids.flatten()[target], skip_special_tokens=True).split()
        assert set(predicted) == {"yes"} and len(predicted) == made.tokenizer.decode(ids.flatten()).count("yes")
    own = [made.tokenizer.decode(row, skip_special_tokens=True).split()[:2] for row in batch.ids]
    other = [made.tokenizer.decode(row, skip_special_tokens=True).split()[:2] for row in batch.other_ids]
    assert own == other, "each row's own prompt"
    assert [int(number) % 2 for _, number in own] == batch.label.tolist()


def test_prompts_keep_their_columns_and_numbers(tmp_path: Path) -> None:
    mix = dict.fromkeys([*files(tmp_path, "prompt", {"a": 20, "b": 40}), "movie_prompts"], 1)
    made = module("prompt", mix=mix)
    rows = made.rows["train"]
    seen = {}
    for batch in made.train_dataloader():
        assert batch.mask[:, -1].all()
        names = [batch.sources.names[i] for i in batch.sources.number.tolist()]
        known = batch.rows or [{}] * len(names)
        cells = zip(batch.index.tolist(), batch.content, known, batch.ids, batch.mask, names, strict=True)
        for index, content, columns, ids, mask, name in cells:
            assert seen.setdefault(index, content) == content, "two prompts under one number"
            assert made.tokenizer.decode(ids[mask], skip_special_tokens=True).strip() == content.lower().strip()
            assert columns == ({} if name == "movie_prompts" else {"answer": int(content.split()[1])})
    more = made.further_prompts(3, 0, 50)
    share = (more.sources.number == 2).float().mean().item()
    assert len(rows) == rows.sizes.sum() and 0.1 < share < 0.6


@pytest.mark.parametrize("method", [SftMethod, DpoMethod, SimpoMethod, RewardMethod])
def test_each_source_is_validated_as_if_alone(tmp_path: Path, method: type) -> None:
    kind = "sft" if method is SftMethod else "preference"
    both = files(tmp_path, kind, {"a": 30, "b": 60})
    mixed = module(kind, mix=dict(zip(both, (0.9, 0.1), strict=True)))

    def measured(made: LanguageDataModule) -> dict[str, float]:
        torch.manual_seed(0)
        trained = method(NET, vocabulary=mixed.vocabulary).eval()
        with torch.no_grad():
            for number, batch in enumerate(made.val_dataloader()):
                trained.validate(batch, number)
        return {name: float(value) for name, value in trained.summarise().items()}

    together = measured(mixed)
    for name, file in zip("ab", both, strict=True):
        alone = measured(module(kind, path=file))
        assert together[f"loss_{name}"] == pytest.approx(alone["loss"], rel=1e-5)
        if kind == "preference":
            assert together[f"accuracy_{name}"] == pytest.approx(alone["accuracy"])
    assert (
        min(together["loss_a"], together["loss_b"]) <= together["loss"] <= max(together["loss_a"], together["loss_b"])
    )


@pytest.mark.parametrize("method", [SftMethod, DpoMethod, SimpoMethod, OrpoMethod, RewardMethod, KtoMethod])
def test_each_source_has_its_loss_in_training(tmp_path: Path, method: type) -> None:
    """Over two steps it is what validating their batches says; a source without a row there has none."""
    kind = {SftMethod: "sft", KtoMethod: "label"}.get(method, "preference")
    made = module(kind, mix=dict.fromkeys(files(tmp_path, kind, {"a": 30, "b": 60}), 1))
    torch.manual_seed(0)
    trained, tallies = method(NET, vocabulary=made.vocabulary).eval(), Tallies()
    with torch.no_grad():
        for number, batch in enumerate(islice(made.train_dataloader(), 2)):
            tallies.add(trained(batch).tallies)
            trained.validate(batch, number)
        means, validated = tallies.means(), trained.summarise()
        of_a = Sources(torch.zeros_like(batch.sources.number), ("a", "b"))
        tallies.add(trained(batch._replace(sources=of_a)).tallies)
        alone = tallies.means()
    assert {"loss_a", "loss_b"} <= set(means)
    assert {name: float(mean) for name, mean in means.items()} == {
        name: pytest.approx(float(validated[name]), rel=1e-5) for name in means
    }
    assert torch.isnan(alone["loss_b"]) and torch.isfinite(alone["loss_a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": {"a.jsonl": 1}}, "mix needs two sources or more"),
        ({"mix": {"a.jsonl": 1, "b.jsonl": 0}}, "mix: the share of b.jsonl is 0; it must be a number above 0"),
        ({"mix": {"a.jsonl": 1, "b.jsonl": 2}, "path": "c"}, "path has no place beside mix"),
        ({"mix": {"a.jsonl": 1, "b.jsonl": 2}, "val_path": "c"}, "val_path has no place beside mix"),
        ({"mix": {"a.jsonl": 1, "movie_reviews": 2}}, "a.jsonl: there is no such file"),
        ({"mix": {"movie_prompts": 1, "movie_reviews": 2}}, "rows of different kinds"),
        ({}, "path is not set: name a .jsonl file, or several with mix"),
    ],
)
def test_what_is_wrong_with_a_mixture(settings: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = RatedTexts(rated_reviews().texts[::50], rated_reviews().shares[::50])
    monkeypatch.setattr(movies, "rated_reviews", lambda name="movie_reviews": few)
    with pytest.raises(ValueError, match=message):
        module(**settings)


def test_numbers_and_names() -> None:
    assert apportioned(10, [0.55, 0.41, 0.04]).tolist() == [5, 4, 1]
    assert apportioned(100, [0.999, 0.001]).tolist() == [99, 1], "nothing is left out"
    assert short_names(["a/chats.jsonl", "web.jsonl"]) == ("chats", "web")
    assert short_names(["a/x.jsonl", "b/x.jsonl", "owner/name"]) == ("a_x.jsonl", "b_x.jsonl", "owner_name")
