"""A run's record says how its data was cleaned, if it was."""

import json
import random
from pathlib import Path

from alignlab.corpus.cleaning import clean, plan_of
from alignlab.corpus.fingerprints import cleaned
from alignlab.corpus.mixing import mix
from alignlab.corpus.packing import pack
from alignlab.files.result import Result
from alignlab.runs.record import recorded
from planted_texts import english_words

from omegaconf import OmegaConf


def test_a_run_records_the_fingerprint_of_its_data(tmp_path: Path) -> None:
    rng, words = random.Random(0), english_words()
    texts = [" ".join(["the", "of", *(rng.choice(words) for _ in range(80))]) for _ in range(5)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "t.csv").write_text("text\n" + "\n".join(texts[:2]) + "\n")
    report = clean(
        plan_of([tmp_path / "in.jsonl", tmp_path / "t.csv"], chain=lambda _: [("schema", {})]), tmp_path / "out"
    )
    data = tmp_path / "out" / "data"
    expected = {"fingerprint": report["fingerprint"], "documents": 7, "as cleaned": True}
    result = Result()
    cfg = OmegaConf.create({"data": {"path": str(data / "in.jsonl"), "mix": {str(data): 1.0, "movies": 2.0}, "n": 3}})
    with recorded(result, tmp_path / "run", cfg):
        result.status = "ok"
    assert Result.read(tmp_path / "run").corpora == {str(data / "in.jsonl"): expected, str(data): expected}
    mix({str(data / "in.jsonl"): None}, tmp_path / "mixed")
    pack([tmp_path / "mixed" / "data"], "bytes", tmp_path / "tokens")
    for place in (tmp_path / "mixed" / "data" / "mixed.jsonl", tmp_path / "tokens"):
        assert cleaned(str(place)) == {str(data / "in.jsonl"): expected}
    with (data / "in.jsonl").open("a") as file:
        file.write("{}\n")
    assert cleaned(str(data))[str(data)]["as cleaned"] is False
    (tmp_path / "out" / "report.json").write_text("[]")
    assert cleaned([str(data), str(tmp_path / "in.jsonl"), "nothing", None, "x" * 10_000]) == {}
