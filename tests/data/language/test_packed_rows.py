"""Packed tokens as rows: the stream of documents by hand, splits, ranks and workers, resumed, other tokenizers."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

from alignlab.corpus.packing import pack
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.pretraining.packed_tokens import PackedTokens
from alignlab.data.language.pretraining.plain_text import PlainText

import numpy as np
import pytest
import torch

WORDS = "a decoder reads what stands before it and says what comes next ".split()


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join([str(n), *rng.choice(WORDS, rng.integers(1, 40))]) for n in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packed")
    (place / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(120)))
    pack([place / "a.jsonl"], None, place / "tokens", vocab_size=300, shard_tokens=500)
    return place / "tokens"


def module(path: Path | str, **settings: object) -> LanguageDataModule:
    data = LanguageDataModule(PlainText, **({"path": str(path), "batch_size": 4, "max_length": 32} | settings))
    data.setup()
    return data


def same(one: tuple, two: tuple) -> bool:
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, two, strict=True))


def test_rows_are_the_stream_of_documents_cut_up(folder: Path) -> None:
    data, packed = module(folder, val_share=0.2), PackedTokens(folder)
    held_out = packed.held_out(0, 0.2)
    tokenizer = data.tokenizer
    assert len(packed.index["shards"]) > 3 and 10 < held_out.sum() < 40
    for split, wanted in (("train", ~held_out), ("val", held_out)):
        stream, document, position = [], [], []
        for number in np.flatnonzero(wanted):
            ids = tokenizer.encode(texts(120)[number], add_special_tokens=False)
            whole = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
            stream += whole
            document += [number] * len(whole)
        rows = data.rows[split]
        rows.seed = None
        batch = rows.__getitems__(range(len(rows)))
        real = batch.document > 0
        told = batch.ids[real].tolist()
        assert told == stream[: len(told)] and len(stream) - len(told) <= 1
        for row in range(len(rows)):
            here = document[row * 32 : row * 32 + 32][: int(real[row].sum())]
            borders = [n == 0 or here[n] != here[n - 1] for n in range(len(here))]
            assert batch.document[row][real[row]].tolist() == np.cumsum(borders).tolist()
            position = [n - max(m for m in range(n + 1) if borders[m]) for n in range(len(here))]
            assert batch.position[row][real[row]].tolist() == position
            predicted = [n for n, first in enumerate(borders) if not first]
            assert (batch.target[batch.target // 32 == row] % 32).tolist() == predicted


def test_copies_of_a_text_are_held_out_together(tmp_path: Path) -> None:
    rows = [json.dumps({"text": text}) for text in texts(60)]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, *rows]))
    pack([tmp_path / "a.jsonl"], None, tmp_path / "tokens", vocab_size=300)
    packed = PackedTokens(tmp_path / "tokens")
    one, two = packed.held_out(0, 0.3), packed.held_out(1, 0.3)
    assert (one[:60] == one[60:]).all() and (one != two).any() and 8 < one[:60].sum() < 30


def test_ranks_and_workers_share_an_epoch_and_a_loader_goes_on(folder: Path) -> None:
    whole = list(module(folder, batch_size=8).train_dataloader())
    halves = []
    for rank in (0, 1):
        data = module(folder, batch_size=4)
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, accumulate_grad_batches=1, lightning_module=None, datamodule=data
        )
        halves.append(list(data.train_dataloader()))
    for batch, one, two in zip(whole, *halves, strict=True):
        assert torch.equal(batch.ids, torch.cat([one.ids, two.ids]))
    workers = module(folder, batch_size=8, num_workers=2).train_dataloader()
    batches = iter(workers)
    assert all(same(next(batches), batch) for batch in whole[:2])
    again = module(folder, batch_size=8, num_workers=1).train_dataloader()
    again.load_state_dict(workers.state_dict())
    assert all(same(a, b) for a, b in zip(again, whole[2:], strict=True))
    rows = pickle.loads(pickle.dumps(module(folder).rows["train"]))
    assert same(rows.__getitems__([0, 1]), module(folder).rows["train"].__getitems__([0, 1]))


def test_prefixes_are_read_and_not_predicted(folder: Path) -> None:
    whole, prefixes = module(folder), module(folder, mask="prefix")
    for split, least, most in (("train", 0.35, 0.65), ("val", 0.4, 0.6)):
        one, two = (data.rows[split].__getitems__(range(len(data.rows[split]))) for data in (whole, prefixes))
        assert torch.equal(one.ids, two.ids) and set(two.target.tolist()) < set(one.target.tolist())
        assert least < len(two.target) / len(one.target) < most


def test_of_one_document_the_end_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": " ".join(texts(60))}))
    pack([tmp_path / "a.jsonl"], None, tmp_path / "tokens", vocab_size=300, end=2)
    data, tokens = module(tmp_path / "tokens", val_share=0.25), PackedTokens(tmp_path / "tokens")[0].tolist()
    told = []
    for split in ("train", "val"):
        rows = data.rows[split]
        rows.seed = None
        batch = rows.__getitems__(range(len(rows)))
        told.append(batch.ids[batch.document > 0].tolist())
    begin = data.tokenizer.bos_token_id
    assert told[0][0] == told[1][0] == begin and tokens[-1] == 2
    assert [*told[0][1:], *told[1][1:]] == tokens  # `--end` has set the end


def test_another_tokenizer_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text[::-1]}) + "\n" for text in texts(80)))
    pack([tmp_path / "b.jsonl"], None, tmp_path / "other", vocab_size=300)
    pack([tmp_path / "b.jsonl"], str(folder / "tokenizer"), tmp_path / "same")
    pack([tmp_path / "b.jsonl"], "bytes", tmp_path / "bytes")
    pack([tmp_path / "b.jsonl"], str(folder / "tokenizer"), tmp_path / "beyond", end=300)
    assert len(module(folder, val_path=str(tmp_path / "same")).rows["val"]) > 10
    assert len(module(folder, val_path=str(tmp_path / "b.jsonl")).rows["val"]) > 10
    for path, said, settings in (
        (folder, "val_path=.*other was packed with another tokenizer", {"val_path": str(tmp_path / "other")}),
        (tmp_path / "bytes", "was packed with bytes; set tokenizer", {}),
        (tmp_path / "beyond", "holds the id 300; the tokenizer has 300 ids", {}),
        (folder, "none of 120 documents is for val", {"val_share": 1e-9}),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            module(path, **settings)
        assert "\n" not in str(caught.value)
