"""Mixtures by weight and temperature, counts, tokens packed to shards."""

import json
import random
from collections import Counter
from pathlib import Path

from alignlab.cli import main
from alignlab.corpus.mixing import mix, shares_of
from alignlab.corpus.packing import pack
from alignlab.corpus.statistics import stats
from alignlab.data.language.pretraining.packed_tokens import PackedTokens

import numpy as np
import pytest


def source(file: Path, count: int, words: int) -> Path:
    rows = [{"text": " ".join([f"{file.stem}{n}", *["word"] * (words - 1)])} for n in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def first_words(file: Path) -> list[str]:
    return [json.loads(line)["text"].split()[0] for line in file.read_text().splitlines()]


def test_shares_by_size_weight_and_temperature() -> None:
    sizes = {"a": 900, "b": 100}
    assert shares_of(sizes, {"a": None, "b": None}, 1.0) == pytest.approx({"a": 0.9, "b": 0.1})
    assert shares_of(sizes, {"a": None, "b": None}, 2.0) == pytest.approx({"a": 0.75, "b": 0.25})  # 30 : 10
    assert shares_of(sizes, {"a": 1.0, "b": 3.0}, 1.0) == pytest.approx({"a": 0.25, "b": 0.75})
    for weights, temperature, said in (
        ({"a": 1.0, "b": None}, 1, "b has no weight"),
        ({"a": 0.0}, 1, "above 0"),
        ({"a": None}, 0, "--temperature is 0"),
    ):
        with pytest.raises(ValueError, match=said):
            shares_of(sizes, weights, temperature)


def test_epochs_of_each_source_are_counted(tmp_path: Path) -> None:
    a, b = source(tmp_path / "a.jsonl", 1000, 10), source(tmp_path / "b.jsonl", 100, 10)
    rows = mix({str(a): 0.5, str(b): 0.5}, tmp_path / "out", words=8000)
    found = Counter(first_words(tmp_path / "out" / "data" / "mixed.jsonl"))
    assert [row["epochs"] for row in rows] == [0.4, 4.0]
    assert [row["words drawn"] for row in rows] == [4000, 4000]
    assert Counter(n for word, n in found.items() if word[0] == "b") == {4: 100}
    assert Counter(n for word, n in found.items() if word[0] == "a") == {1: 400}
    order = first_words(tmp_path / "out" / "data" / "mixed.jsonl")
    assert 150 < sum(word[0] == "a" for word in order[:400]) < 250  # mixed, not one behind the other
    again = mix({str(a): 0.5, str(b): 0.5}, tmp_path / "again", words=8000)
    assert again == rows
    assert (tmp_path / "again/data/mixed.jsonl").read_bytes() == (tmp_path / "out/data/mixed.jsonl").read_bytes()


def test_every_document_once_by_default(tmp_path: Path) -> None:
    a, b = source(tmp_path / "a.jsonl", 30, 7), source(tmp_path / "b.jsonl", 20, 9)
    mix({str(a): None, str(b): None}, tmp_path / "out")
    assert sorted(first_words(tmp_path / "out/data/mixed.jsonl")) == sorted(first_words(a) + first_words(b))


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source(tmp_path / "a.jsonl", 50, 10)
    source(tmp_path / "b.jsonl", 5, 10)
    assert main(["corpus", "mix", "a.jsonl=1", "b.jsonl=1", "--to", "mixed"]) == 0
    assert "b.jsonl is gone through 5.4 times" in capsys.readouterr().out.replace("5.5", "5.4")
    assert main(["corpus", "stats", "a.jsonl", "--json", "stats.json"]) == 0
    assert json.loads((tmp_path / "stats.json").read_text())[0]["words"] == 500
    assert main(["corpus", "pack", "mixed/data", "--tokenizer", "bytes", "--to", "tokens", "--end", "0"]) == 0
    assert "(uint16)" in capsys.readouterr().out
    for words, said in (
        (["mix", "a.jsonl=x", "--to", "m2"], "'x' is no weight"),
        (["mix", "a.jsonl", "--to", "mixed"], "mixed holds results already"),
        (["mix", "none.jsonl=1", "--to", "m2"], "none.jsonl: there is no such file"),
        (["mix", "a.jsonl", "--words", "0", "--to", "m2"], "--words is 0"),
        (["pack", "a.jsonl", "--tokenizer", "nothing", "--to", "t2"], "nothing"),
        (["pack", "a.jsonl", "--tokenizer", "bytes", "--to", "tokens"], "tokens holds shards already"),
        (["pack", "a.jsonl", "--to", "t2"], "one of --tokenizer and --vocab-size"),
        (["pack", "a.jsonl", "--vocab-size", "10", "--to", "t2"], "vocab_size is 10"),
    ):
        assert main(["corpus", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_stats_against_plain_counting(tmp_path: Path) -> None:
    rng = random.Random(0)
    lengths = [rng.randint(1, 60) for _ in range(200)]
    (tmp_path / "a.txt").write_text("".join(" ".join(["word"] * n) + "\n" for n in lengths))
    (row,) = stats([tmp_path])
    assert (row["documents"], row["words"], row["wrong"]) == (200, sum(lengths), 0)
    assert row["characters"] == sum(5 * n - 1 for n in lengths)
    assert row["words of a document"]["median"] == round(float(np.median(lengths)))


def test_packed_tokens_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    texts = ["Hello.", "Grüße aus 北京", "", "third"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    index = pack([tmp_path / "a.jsonl"], "bytes", tmp_path / "out", end=65_000, shard_tokens=10)
    packed = PackedTokens(tmp_path / "out")
    expected = [[*text.encode(), 65_000] for text in texts if text]
    assert [packed[n].tolist() for n in range(len(packed))] == expected
    assert index["tokens"] == sum(map(len, expected)) and index["left out"] == 1
    assert len(index["shards"]) == 2 and packed[0].dtype == np.uint16
    assert pack([tmp_path / "a.jsonl"], "bytes", tmp_path / "wide", end=70_000)["dtype"] == "uint32"
    np.save(tmp_path / "out" / "00000.npy", packed[0][:3])
    with pytest.raises(ValueError, match=r"00000.npy has 3 tokens; index.json says"):
        PackedTokens(tmp_path / "out")
    (tmp_path / "out" / "00001.keys.npy").unlink()
    np.save(tmp_path / "out" / "00000.npy", np.zeros(index["shards"][0]["tokens"], np.uint16))
    with pytest.raises(ValueError, match=r"00001.keys.npy can't be read .*; pack the texts again"):
        PackedTokens(tmp_path / "out")
    with pytest.raises(ValueError, match="holds no packed tokens, or not all of them"):
        PackedTokens(tmp_path)
