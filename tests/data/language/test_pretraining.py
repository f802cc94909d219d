"""Plain text as packed rows, tokenizers of a data set's own, made-up tasks, batches that grow."""

import json
from pathlib import Path

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.pretraining.decimal_addition import DecimalAddition
from alignlab.data.language.pretraining.modular_addition import ModularAddition
from alignlab.data.language.pretraining.own_tokenizer import trained_tokenizer
from alignlab.data.language.pretraining.plain_text import PlainText
from alignlab.data.language.rated_reviews import rated_reviews
from alignlab.data.loaders import JointBatches, JointOrder, ramp_of

import pytest
import torch

WORDS = "a decoder reads what stands before it and says what comes next ".split()


def texts(count: int, words: int = 40) -> list[str]:
    draw = torch.Generator().manual_seed(0)
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (words,), generator=draw)) for _ in range(count)]


def module(rows: object = PlainText, **settings: object) -> LanguageDataModule:
    data = LanguageDataModule(rows, **({"batch_size": 4, "max_length": 32, "vocab_size": 300} | settings))
    data.setup()
    return data


def jsonl(file: Path, documents: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return str(file)


def test_rows_are_full_and_hold_every_training_token_once(tmp_path: Path) -> None:
    data = module(path=jsonl(tmp_path / "a.jsonl", texts(60)))
    rows, tokenizer = data.rows["train"], data.tokenizer
    batch = rows.__getitems__(range(len(rows)))
    real = batch.document > 0
    assert batch.ids.shape[1] == 32 and real.float().mean() > 0.9
    pieces = [
        batch.ids[i, batch.document[i] == n] for i in range(len(rows)) for n in range(1, batch.document[i].max() + 1)
    ]
    told = sorted(token for piece in pieces for token in piece.tolist())
    wanted = [
        token
        for text in data.source.documents("train")
        for token in [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    ]
    assert len(told) >= len(wanted) - len(data.source.documents("train"))  # a piece of one token is left out
    assert set(told) <= set(wanted) and abs(len(told) - len(wanted)) <= len(data.source.documents("train"))
    assert len(batch.target) == sum(len(piece) - 1 for piece in pieces)
    position = batch.position[real]
    assert (position[1:] - position[:-1] == 1).float().mean() > 0.9


def test_no_document_is_in_both_splits(tmp_path: Path) -> None:
    data = PlainText(path=jsonl(tmp_path / "a.jsonl", texts(80)), split_seed=0, val_share=0.2)
    train, val = (set(data.documents(split)) for split in ("train", "val"))
    assert not train & val and 5 < len(val) < 30
    built_in = PlainText(split_seed=0, val_share=0.1)
    train, val = (set(built_in.documents(split)) for split in ("train", "val"))
    assert not train & val and len(train | val) > 0.95 * (
        len(rated_reviews().texts) + len(rated_reviews("product_reviews").texts)
    )


def test_of_a_single_document_the_last_lines_are_held_out(tmp_path: Path) -> None:
    lines = texts(50, 8)
    (tmp_path / "book.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = PlainText(path=str(tmp_path), split_seed=0, val_share=0.2)
    train, val = (data.documents(split)[0] for split in ("train", "val"))
    assert train + val == "\n".join(lines) and train.endswith("\n") and 7 <= len(val.split("\n")) <= 12


def test_prefixes_are_read_and_not_predicted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", texts(60))
    whole, prefixes = module(path=path), module(path=path, mask="prefix")
    for split, least, most in (("train", 0.35, 0.65), ("val", 0.45, 0.6)):
        rows, other = whole.rows[split], prefixes.rows[split]
        one, two = rows.__getitems__(range(len(rows))), other.__getitems__(range(len(other)))
        assert torch.equal(one.ids, two.ids)
        assert least < len(two.target) / len(one.target) < most
        assert set(two.target.tolist()) < set(one.target.tolist())


def test_a_tokenizer_of_own_text_is_the_same_again_and_gives_the_text_back() -> None:
    documents = [*texts(50), "Größe, 大きさ\tand\n  spaces"]
    one, two = (trained_tokenizer(documents, 400) for _ in range(2))
    assert one.get_vocab() == two.get_vocab() and len(one) <= 400
    for text in documents:
        assert one.decode(one.encode(text)) == text
    assert len(one.encode(documents[0])) < len(documents[0]) / 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "path=.*none.txt: there is no such file"),
        ("a.csv", "x", "plain text is a .txt or .jsonl file"),
        ("a.jsonl", '{"txt": "x"}\n', "a.jsonl, line 1: no column text; there are txt"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "line 2"),
        ("empty.txt", "  \n", "no text is in there"),
        ("folder/x.md", "x", "no .txt or .jsonl file is in there"),
    ],
)
def test_what_is_no_plain_text_is_said(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if content is not None:
        file.write_text(content)
    place = file.parent if "/" in name else file
    with pytest.raises(ValueError, match=said):
        module(path=str(place))


def test_the_table_of_a_modulus_is_complete_and_right() -> None:
    data = module(ModularAddition, modulus=7, val_share=0.4)
    seen = []
    for split, count in (("train", 29), ("val", 20)):
        rows = data.rows[split]
        batch = rows.__getitems__(range(len(rows)))
        assert len(rows) == count == len(batch.target)
        words = [data.tokenizer.convert_ids_to_tokens(row) for row in batch.ids.tolist()]
        seen += [(int(a), int(b), int(c)) for a, b, equal, c in words if equal == "="]
    assert sorted(seen) == [(a, b, (a + b) % 7) for a in range(7) for b in range(7)]


def test_sums_are_right_and_items_are_held_out() -> None:
    settings = {"digits": 2, "examples": 300, "num_items": 40, "split_seed": 0, "val_share": 0.1}
    data = DecimalAddition(**settings)
    for item in data.items:
        a, b = map(int, item.prompt.removesuffix("=").split("+"))
        assert int(item.target) == a + b and item.task == "addition_2_digits" and len(item.prompt + item.target) == 9
    trained = {item.id for item in data._drawn["train"]}
    assert len(trained) == 300 and len(data.items) == 40 and not trained & {item.id for item in data.items}
    assert [item.id for item in DecimalAddition(**settings).items] == [item.id for item in data.items]
    assert DecimalAddition(**settings, reverse=True).items[0].target == data.items[0].target[::-1]
    with pytest.raises(ValueError, match="more than there are sums of numbers of 1 digits"):
        DecimalAddition(**(settings | {"digits": 1})).items  # noqa: B018


def test_batches_grow_to_the_whole_and_resume_where_they_were() -> None:
    def batches(skip: int = 0, epoch: int = 0) -> list[int]:
        joint = JointBatches(JointOrder(40), 4, 1, 2, ramp=ramp_of(0.25, 6, 4))
        joint.skip = skip
        joint.sampler.set_epoch(epoch)
        return [len(rows) for rows in joint]

    assert batches() == [1, 2, 2, 2, 3] and batches(3) == [2, 3] and batches(epoch=1) == [4] * 5
    assert ramp_of(1.0, 50, 4) is None and ramp_of(0.1, 0, 4) is None
    with pytest.raises(ValueError, match="batch_start is 0"):
        ramp_of(0, 5, 4)
