"""Every column against an independent computation; files of every kind; findings; what goes wrong."""

import csv
import gzip
import json
import re
import statistics
from pathlib import Path

from alignlab.cli import main
from alignlab.reports.charts import bars, histograms
from alignlab.reports.page import Figure, Page, Section, render
from alignlab.tokenizers.begin_tokens import wrapper
from alignlab.tokenizers.comparison import Comparison
from alignlab.tokenizers.corpus import Corpus
from alignlab.tokenizers.fingerprint import fingerprint, known_vocabularies
from alignlab.tokenizers.kinds.ranks import converted, open_ranks, read_ranks
from alignlab.tokenizers.kinds.sentencepiece_model import open_sentencepiece
from alignlab.tokenizers.measures import parity
from alignlab.tokenizers.opening import named, open_tokenizer
from tiny_tokenizers import CHINESE, ENGLISH, byte_bpe, ranks_of, sentencepiece_model

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer


def _independent(file: Path, texts: list[str], contexts: tuple[int, ...]) -> dict:
    """The columns, by nothing of the room: the library's own ids, one text at a time, and plain arithmetic."""
    tokenizer = Tokenizer.from_file(str(file))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    lengths, tokens = [len(row) for row in rows], sum(map(len, rows))
    cut = [[max(0, length + 1 - n) for length in lengths] for n in contexts]  # one begin token
    partial = [i for row in rows for i in row if "\ufffd" in tokenizer.decode([i])]
    han = [char for text in texts for char in text if "\u4e00" <= char <= "\u9fff"]
    alone = {tokenizer.decode([i]).strip() for i in range(tokenizer.get_vocab_size())}
    return {
        "texts": len(texts),
        "tokens": tokens,
        "mean": statistics.mean(lengths),
        "median": statistics.median(lengths),
        "p95": float(np.quantile(lengths, 0.95)),
        "bytes per token": len("".join(texts).encode()) / tokens,
        "chars per token": len("".join(texts)) / tokens,
        "round trip": sum(tokenizer.decode(r) == t for r, t in zip(rows, texts, strict=True)) / len(texts),
        "unknown": 0.0,
        "byte tokens": len(partial) / tokens,
        "Han single": sum(char in alone for char in han) / len(han) if han else None,
        "truncated": {n: sum(x > 0 for x in row) / len(texts) for n, row in zip(contexts, cut, strict=True)},
        "lost": {n: sum(row) / tokens for n, row in zip(contexts, cut, strict=True)},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files: a tokenizer.json, its ranks, a table of pairs, as News Commentary writes them."""
    place = tmp_path_factory.mktemp("tokenizers")
    byte_bpe(place / "gpt" / "tokenizer.json")
    ranks_of(place / "gpt" / "tokenizer.json", place / "ranks.json")
    lines = [f"{first}\t{second}" for first, second in zip(ENGLISH, CHINESE, strict=True)]
    with gzip.open(place / "news-commentary-v16.en-zh.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*lines[:2], "\tonly one side", *lines[2:]]) + "\n")
    return place


def _length(folder: Path) -> int:
    """Of a text: with the begin token, a context of as many tokens cuts it."""
    tokenizer = Tokenizer.from_file(str(folder / "gpt" / "tokenizer.json"))
    return len(tokenizer.encode(CHINESE[2], add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def report(folder: Path) -> dict:
    """What the command writes, read back; a name of another's and one that is nowhere are among the tokenizers."""
    words = [str(folder / "gpt"), f"ranks={folder / 'ranks.json'}", "GPT4=bytes", "nowhere"]
    corpus = folder / "news-commentary-v16.en-zh.tsv.gz"
    forms = ["--json", str(folder / "r.json"), "--csv", str(folder / "r.csv"), "--html", str(folder / "r.html")]
    more = ["--contexts", "77", "20", str(_length(folder)), "--passes", "3", "--batch-size", "2", *forms]
    assert main(["tokenizers", "compare", *words, "--corpus", str(corpus), *more]) == 3, "one couldn't be read"
    return json.loads((folder / "r.json").read_text(encoding="utf-8"))


def test_every_column_equals_an_independent_computation(folder: Path, report: dict) -> None:
    row = report["rows"][0]
    for part, texts in (("en", ENGLISH), ("zh", CHINESE)):
        expected = _independent(folder / "gpt" / "tokenizer.json", texts, (77, 20, _length(folder)))
        columns = row["parts"][part]
        assert expected["truncated"][20] > 0 or part == "en", "the test cuts something"
        for name, value in expected.items():
            value = {str(key): x for key, x in value.items()} if isinstance(value, dict) else value
            assert columns[name] == pytest.approx(value), f"{part}: {name}"
        ids = Tokenizer.from_file(str(folder / "gpt" / "tokenizer.json"))
        lengths = sorted(len(ids.encode(text, add_special_tokens=False)) for text in texts)
        assert [n for n, times in columns["lengths"] for _ in range(times)] == lengths
    ratio, low, high = row["parity"]["zh/en"]
    assert ratio == row["parts"]["zh"]["tokens"] / row["parts"]["en"]["tokens"] and low < ratio < high
    assert row["vocabulary"] == row["pieces"] + 1 and row["specials"] == 1
    used = {i for text in ENGLISH + CHINESE for i in ids.encode(text, add_special_tokens=False).ids}
    assert row["unused"] == pytest.approx(1 - len(used) / row["pieces"])
    speed = row["speed"]["zh"]
    assert speed["slowest"] <= speed["MB/s"] <= speed["fastest"] and speed["passes"] == 3 and speed["threads"] == 1
    assert report["corpus"]["skipped"] == 1 and report["corpus"]["parts"] == ["en", "zh"]


def test_bootstrap_interval_is_that_of_resampled_pairs() -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(5, 60, size=200)
    second = (first * rng.normal(1.5, 0.3, size=200)).astype(int) + 1
    ratio, low, high = parity(first, second, draws=2000)
    error = np.sqrt(np.sum((second - ratio * first) ** 2)) / first.sum()  # the ratio's standard error, linearised
    assert (low, high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=0.25 * error)
    assert parity(first, second, draws=2000) == (ratio, low, high), "the same every time"


def test_names_are_checked_against_contents(report: dict) -> None:
    texts = {finding["finding"]: finding["text"] for finding in report["findings"]}
    assert "gpt = ranks" in texts["duplicate"]
    assert texts["wrong name"] == "GPT4 is the name of cl100k_base (100256 pieces), but it is bytes (256 pieces)"
    assert "one vocabulary, other tokens" not in texts
    assert report["rows"][0]["fingerprint"] == report["rows"][1]["fingerprint"]
    assert report["rows"][2]["known as"] == "bytes"
    assert "alignlab fetch get nowhere" in report["rows"][3]["error"]
    rows = known_vocabularies()
    assert len({row.fingerprint for row in rows}) == len({row.name for row in rows}) == len(rows)


def test_csv_has_a_row_for_each_tokenizer_and_part(folder: Path, report: dict) -> None:
    with (folder / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["tokenizer"], row["part"]) for row in rows[:2]] == [("gpt", "en"), ("gpt", "zh")]
    assert float(rows[1]["parity"]) == report["rows"][0]["parity"]["zh/en"][0]
    assert float(rows[1]["truncated at 20"]) == report["rows"][0]["parts"]["zh"]["truncated"]["20"]
    assert rows[-1]["error"] and len(rows) == 7


def test_page_is_one_file_that_says_all(folder: Path, report: dict) -> None:
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|@import|url\(", page), "nothing is fetched"
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    for text in (*(row["tokenizer"] for row in report["rows"]), "GPT4 is the name of cl100k_base", "round trip"):
        assert text in page
    for part in ("en", "zh"):
        assert f"{report['rows'][0]['parts'][part]['mean']:.1f}</text>" in page
    marked = render(Page("a <b>", "", [Section("s", [Figure(bars([("<i>", 2, "2"), ("x", 1, "1")]), "c")])]))
    assert "a &lt;b&gt;" in marked and "&lt;i&gt;" in marked and 'width="50.00%"' in marked, "text stays text"
    picture = histograms({"n": [(0, 400), (3, 200), (900, 1)]}, [(3, "3")], bins=4)
    assert "V0.0h1V30.0h1V60.0h1V59.9h1" in picture and 'x1="1.50"' in picture, "two values a bin; the rest in the last"


def test_ranks_in_the_other_library_cut_alike(folder: Path) -> None:
    ranks, pattern = read_ranks(folder / "ranks.json")
    tokenizer, _ = open_tokenizer(str(folder / "gpt"))
    texts = [*ENGLISH, *CHINESE, "  two  spaces\n\n and\tmore 123456 ", "héllo 🙂 <s>"]
    assert converted(ranks, pattern).encode(texts) == tokenizer.encode(texts)
    assert tokenizer.decode(tokenizer.encode(texts)) == texts, "`<s>` in a text is text"


def test_sentencepiece_models(tmp_path: Path) -> None:
    special = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), *((f"<0x{n:02X}>", 0, 6) for n in range(256))]
    merged = [(text, -float(rank), 1) for rank, text in enumerate(["ab", "▁ab", "abc", "磁盘"])]
    letters = [(char, -100.0 - n, 1) for n, char in enumerate("▁abc磁盘")]
    file = sentencepiece_model(tmp_path / "m.model", [*special, *merged, *letters])
    tokenizer = open_sentencepiece(file, package=False)
    ids = {piece: 259 + n for n, (piece, *_) in enumerate([*merged, *letters])}
    expected = [ids["▁ab"], ids["c"], ids["▁"], ids["磁盘"], *(3 + byte for byte in "满".encode())]
    assert tokenizer.encode(["abc 磁盘满"]) == [expected]
    assert tokenizer.decode([expected]) == ["abc 磁盘满"]
    assert tokenizer.pieces[ids["▁ab"]] == b" ab" and tokenizer.pieces[3 + 0x41] == b"A" and 1 not in tokenizer.pieces
    unigram = sentencepiece_model(tmp_path / "u.model", [*special, *letters], algorithm=1)
    with pytest.raises(ValueError, match=r"pip install 'alignlab\[tokenizers\]'"):
        open_sentencepiece(unigram, package=False)


def test_packages_cut_as_the_same_file_without_them(folder: Path, tmp_path: Path) -> None:
    texts = [*ENGLISH, *CHINESE, "  two  spaces\n and\tmore 123456", "héllo 🙂"]
    package, alone = (open_ranks(folder / "ranks.json", package=package) for package in (True, False))
    assert package.implementation.startswith("tiktoken") and package.encode(texts) == alone.encode(texts)
    assert package.decode(package.encode(texts)) == texts and package.pieces == alone.pieces

    for kind in ("bpe", "unigram"):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*ENGLISH, *CHINESE] * 4), model_prefix=str(tmp_path / kind), model_type=kind,
            vocab_size=500, hard_vocab_limit=False, byte_fallback=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, character_coverage=1.0, minloglevel=2,
        )  # fmt: skip
    package, alone = (open_sentencepiece(tmp_path / "bpe.model", package=package) for package in (True, False))
    assert package.implementation.startswith("sentencepiece") and package.encode(texts) == alone.encode(texts)
    assert package.decode(package.encode(texts)) == texts and package.pieces == alone.pieces
    other = open_sentencepiece(tmp_path / "unigram.model")
    assert other.kind.startswith("Unigram") and other.decode(other.encode(texts)) == texts
    broken = bytearray((tmp_path / "bpe.model").read_bytes())
    broken.extend(b"\x0a\x0a\x0a\x03abc\x15" + bytes(4) + b"\x0a\x0a\x0a\x03abc\x15" + bytes(4))  # a piece twice
    (tmp_path / "broken.model").write_bytes(broken)
    with pytest.raises(ValueError, match="sentencepiece refuses it: "):
        open_tokenizer(str(tmp_path / "broken.model"))


def test_lists_of_words(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\ndisk\n##s\n磁\n")
    bert, _ = open_tokenizer(str(tmp_path))
    assert bert.encode(["The disks 磁盘"]) == [[4, 5, 6, 7, 1]] and bert.specials == 2
    row = _row("bert", tmp_path, ["The disks 磁盘"], contexts=(6,))
    assert row["unknown"] == pytest.approx(0.2) and row["Han single"] == 0.5 and row["lost"] == {6: pytest.approx(0.2)}
    assert row["failures"][0]["text"] == "The disks 磁盘"
    (tmp_path / "clip.txt.gz").write_bytes(gzip.compress(b"#version\nt h\nth e</w>\n"))
    clip, _ = open_tokenizer(str(tmp_path / "clip.txt.gz"))
    assert [clip.pieces[i] for i in clip.encode(["The  THE"])[0]] == [b"the</w>", b"the</w>"]
    assert clip.decode(clip.encode(["The  THE"])) == ["the the"] and clip.specials == 2
    characters, _ = open_tokenizer("characters")
    assert characters.encode(["磁a"]) == [[0x78C1, 0x61]] and characters.pieces[0x78C1] == "磁".encode()


def _row(name: str, place: Path, texts: list[str], **settings: object) -> dict:
    corpus = place / "corpus.text"
    corpus.write_text("\n".join(texts))
    report = Comparison(passes=0, **settings).run(named([f"{name}={place}"]), Corpus([corpus]))
    return report["rows"][0]["parts"]["text"]


def test_preferences_that_a_context_makes_equal(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [("ab", "cdX", "cdY"), ("abcdef", "x", "y"), ("a", "x", "y")]
    file.write_text("\n".join(json.dumps({"prompt": p, "chosen": c, "rejected": r}) for p, c, r in rows))
    report = Comparison(contexts=(4, 5, 6), passes=0).run(named(["bytes"]), Corpus([file]))
    pairs = report["rows"][0]["pairs"]
    assert pairs["pairs equal"] == pytest.approx({4: 2 / 3, 5: 1 / 3, 6: 1 / 3})
    assert pairs["pairs without answer"] == pytest.approx({4: 1 / 3, 5: 1 / 3, 6: 1 / 3}), "no room left at 6"


def test_corpora(tmp_path: Path) -> None:
    for name, lines in (("n.en", ["one", "two", "", "four"]), ("n.zh", ["一", "二", "三", "四"])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    parallel = Corpus([tmp_path / "n.en", tmp_path / "n.zh"])
    assert list(parallel)[-1] == {"en": "four", "zh": "四"} and parallel.skipped == 1 and parallel.kind == "aligned"
    (tmp_path / "n.zh").write_text("一\n二\n")
    with pytest.raises(ValueError, match=r"n\.en has 4 lines, .*n\.zh has 2 lines"):
        list(Corpus([tmp_path / "n.en", tmp_path / "n.zh"]))
    (tmp_path / "c.jsonl").write_text('{"image": "a.png", "caption": "A dog"}\n')
    assert list(Corpus([tmp_path / "c.jsonl"])) == [{"caption": "A dog"}]
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: no UTF-8"):
        list(Corpus([tmp_path / "bad.txt"]))
    (tmp_path / "t.tsv").write_text("a\tb\nc\n")
    with pytest.raises(ValueError, match=r"line 2: 1 columns"):
        list(Corpus([tmp_path / "t.tsv"]))
    assert main(["tokenizers", "compare", "bytes", "--corpus", str(tmp_path / "none.txt")]) == 2
    assert main(["tokenizers", "compare", "a=bytes", "a=characters", "--corpus", str(tmp_path / "n.en")]) == 2


def test_begin_tokens_and_chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    byte_bpe(tmp_path / "tokenizer.json")
    template = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "磁盘"}]}))
    report = Comparison(passes=0).run(named([f"own={tmp_path}"]), Corpus([tmp_path / "chats.jsonl"]))
    assert [finding["finding"] for finding in report["findings"]] == ["begin token doubled"]
    monkeypatch.chdir(tmp_path)
    assert wrapper("bytes") is None and wrapper("package:json/decoder.py") is None, "what lies here isn't theirs"
    assert wrapper(".") is not None
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = tokenizer.encode("<s>[user] 磁盘", add_special_tokens=False).ids
    assert report["rows"][0]["parts"]["chat"]["tokens"] == len(ids)


def test_python_tokenizers_of_transformers(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    tokenizer, _ = open_tokenizer(f"slow:{tmp_path}")
    assert tokenizer.implementation.endswith("(Python)") and tokenizer.specials == 1
    assert tokenizer.encode(["a磁"]) == [[byte + 3 for byte in "a磁".encode()]]
    assert tokenizer.decode(tokenizer.encode(["a磁"])) == ["a磁"]
    assert tokenizer.pieces == {byte + 3: bytes([byte]) for byte in range(256)}
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match="transformers can't read its tokenizer"):
        open_tokenizer(f"slow:{tmp_path}")


def test_fingerprint_is_of_pieces_and_ids() -> None:
    assert fingerprint({0: b"a", 1: b"b"}) == fingerprint({1: b"b", 0: b"a"})
    assert fingerprint({0: b"a", 1: b"b"}) != fingerprint({0: b"b", 1: b"a"}) != fingerprint({0: b"ab"})
