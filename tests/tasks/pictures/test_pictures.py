"""Tasks on pictures against the evaluation code on the same scenes."""

import json
import shutil
from pathlib import Path

from alignlab.evaluation.encoding import EncodedSet, encode_retrieval_set
from alignlab.evaluation.grounding import grad_cam, mean_heat
from alignlab.evaluation.reranking import score_pairs
from alignlab.evaluation.words import content_words, tokens_of
from alignlab.runs.building import load_system
from alignlab.tasks.pictures.classify import Classify
from alignlab.tasks.pictures.foils import Foils
from alignlab.tasks.pictures.ground import Ground, _hottest
from alignlab.tasks.pictures.index import find_nearest, index_pictures
from alignlab.tasks.pictures.match import Match
from alignlab.tasks.pictures.retrieve import Retrieve
from alignlab.tasks.pictures.subject import VisionLanguage, find_pictures
from language_job import job_of, printed
from pictures_run import write_pictures

import pytest
import torch
from PIL import Image


@pytest.fixture
def pictures(vision: VisionLanguage, tmp_path: Path) -> Path:
    write_pictures(vision, tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def encoded(vision: VisionLanguage) -> EncodedSet:
    batches = vision.datamodule.retrieval_dataloader()
    return encode_retrieval_set(vision.system, batches, keep_tokens=vision.matches)


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]


def captions(vision: VisionLanguage) -> list[str]:
    return [vision.datamodule.caption(number) for number in range(12)]


def write_lines(file: Path, lines: list) -> Path:
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return file


def test_a_folder_of_runs_is_its_newest_run(vision_run: Path) -> None:
    """Language models alone could be named so."""
    system, _ = load_system(vision_run.parent)
    assert system.net is not None


def test_retrieve_by_text(vision: VisionLanguage, encoded: EncodedSet, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_text("no picture")
    job = job_of(tmp_path / "run", file=write_lines(tmp_path / "queries.txt", captions(vision)))
    found = Retrieve(str(pictures), top_k=4, index=str(tmp_path / "index")).run(vision, job)
    assert found == {"pictures": 12.0, "encoded": 12.0, "unreadable": 1.0, "failed": 0.0}
    assert "broken.png" in printed(job)
    expected = (encoded.text_features @ encoded.image_features.T).sort(1, descending=True)
    for row, scores, places in zip(rows_of(job.run_dir), expected.values, expected.indices, strict=True):
        assert row["scores"] == pytest.approx(scores[:4].tolist(), abs=1e-5)
        assert [Path(path).name for path in row["pictures"]] == [f"{place:02}.png" for place in places[:4].tolist()]
    assert Image.open(job.run_dir / "samples" / "retrieval.png").width > 500


def test_retrieve_by_picture(vision: VisionLanguage, pictures: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", str(pictures / "03.png"))
    Retrieve(str(pictures), top_k=2, index=str(tmp_path / "index")).run(vision, job)
    (row,) = rows_of(job.run_dir)
    assert row["pictures"][0].endswith("03.png") and row["scores"][0] == pytest.approx(1.0, abs=1e-5)


def test_a_broken_query_leaves_the_others(vision: VisionLanguage, pictures: Path, tmp_path: Path) -> None:
    """A query picture that can't be read ended the run; one that isn't there was searched for as a text."""
    (tmp_path / "broken.png").write_text("no picture")
    queries = [str(tmp_path / "broken.png"), {"image": "pictures/03.png"}, "nowhere/9.jpg", {"imgae": "x"}, "a dog"]
    lines = [{"text": line} if isinstance(line, str) else line for line in queries]
    job = job_of(tmp_path / "run", file=write_lines(tmp_path / "queries.jsonl", lines))
    found = Retrieve(str(pictures), top_k=2, index=str(tmp_path / "index")).run(vision, job)
    first, second, third, fourth, fifth = rows_of(job.run_dir)
    assert "broken.png" in first["error"] and "nowhere/9.jpg" in third["error"] and "image by imgae" in fourth["error"]
    assert second["pictures"][0].endswith("03.png") and len(fifth["pictures"]) == 2 and found["failed"] == 3
    assert "query 0 failed: the picture" in printed(job)


def test_retrieve_reranked(vision: VisionLanguage, encoded: EncodedSet, pictures: Path, tmp_path: Path) -> None:
    task = Retrieve(str(pictures), top_k=3, rerank_top_k=6, index=str(tmp_path / "index"))
    job = job_of(tmp_path / "run", captions(vision)[2])
    if not vision.matches:
        with pytest.raises(ValueError, match="has no matching head"):
            task.run(vision, job)
        return
    task.run(vision, job)
    best = (encoded.text_features[2] @ encoded.image_features.T).topk(6).indices.sort().values
    score = score_pairs(vision.system.net, encoded, best, torch.full((6,), 2))
    (row,) = rows_of(job.run_dir)
    order = score.argsort(descending=True)
    assert row["scores"] == pytest.approx(score[order][:3].tolist(), abs=1e-4)
    assert [Path(path).name for path in row["pictures"]] == [f"{place:02}.png" for place in best[order][:3].tolist()]


def test_the_index_is_kept(vision: VisionLanguage, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = index_pictures(vision, find_pictures(str(pictures)), folder)
    assert first.num_encoded == 12
    again = index_pictures(vision, find_pictures(str(pictures)), folder)
    assert again.num_encoded == 0 and torch.equal(again.features, first.features)
    shutil.copy(pictures / "00.png", pictures / "05.png")
    (pictures / "07.png").unlink()
    changed = index_pictures(vision, find_pictures(str(pictures)), folder)
    assert changed.num_encoded == 1 and len(changed.paths) == 11
    torch.testing.assert_close(changed.features[5], changed.features[0], rtol=0, atol=1e-6)
    assert torch.equal(changed.features[6], first.features[6])
    (vision.run_dir / "checkpoints" / "last.ckpt").touch()
    assert index_pictures(vision, find_pictures(str(pictures)), folder).num_encoded == 11, "other weights"


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss")
    features = torch.nn.functional.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    exact, faiss = (find_nearest(features[:20], features, 5, search) for search in ("exact", "faiss"))
    assert torch.equal(exact.index, faiss.index)
    torch.testing.assert_close(exact.score, faiss.score, rtol=0, atol=1e-5)


def test_classify(vision: VisionLanguage, encoded: EncodedSet, tmp_path: Path) -> None:
    names = ["dog", "car", "tree"]
    write_pictures(vision, tmp_path / "pictures", lambda n: f"{names[n % 3]}/{n:02}")
    (tmp_path / "pictures" / "broken.png").write_text("no picture")
    job = job_of(tmp_path / "run")
    found = Classify(str(tmp_path / "pictures"), names, ["a picture of a {}", "a {}"]).run(vision, job)
    rows = {Path(row["input"]).stem: row for row in rows_of(job.run_dir)}
    assert found["pictures"] == 12 and found["failed"] == 1 and "can't be read" in rows.pop("broken")["error"]
    prompts = [[f"a picture of a {name}", f"a {name}"] for name in names]
    with torch.no_grad():
        features = [vision.system.encode_text(*vision.datamodule.encode_texts(some)).features for some in prompts]
    classes = torch.stack([torch.nn.functional.normalize(f.mean(0), dim=0) for f in features])
    net = vision.system.net
    scale = 1 / net.temperature
    chance = (scale * encoded.image_features @ classes.T).softmax(1)
    for number in range(12):
        row = rows[f"{number:02}"]
        assert row["probabilities"] == pytest.approx(dict(zip(names, chance[number].tolist(), strict=True)), abs=1e-4)
        assert row["answer"] == names[int(chance[number].argmax())]
    right = sum(names[int(chance[n].argmax())] == names[n % 3] for n in range(12)) / 12
    assert found["accuracy"] == pytest.approx(right)


def test_match(vision: VisionLanguage, encoded: EncodedSet, pictures: Path, tmp_path: Path) -> None:
    texts = captions(vision)
    lines = [{"image": f"pictures/{n:02}.png", "text": texts[m]} for n, m in ((0, 0), (0, 1), (4, 2))]
    lines[1] = {"filename": "pictures/00.png", "caption": texts[1]}  # scored the empty text
    lines += [{"image": "pictures/none.png", "text": "a dog"}, {"imgae": "pictures/01.png", "text": "a dog"}]
    job = job_of(tmp_path / "run", file=write_lines(tmp_path / "pairs.jsonl", lines))
    found = Match().run(vision, job)
    image, text = torch.tensor([0, 0, 4]), torch.tensor([0, 1, 2])
    similarity = (encoded.image_features[image] * encoded.text_features[text]).sum(1)
    rows = rows_of(job.run_dir)
    assert [row["similarity"] for row in rows[:3]] == pytest.approx(similarity.tolist(), abs=1e-5)
    assert "none.png" in rows[3]["error"] and found["failed"] == 2
    assert "no picture" in rows[4]["error"] and rows[4]["error"].endswith("did you mean image by imgae?")
    if vision.matches:
        odds = score_pairs(vision.system.net, encoded, image, text)
        assert [row["score"] for row in rows[:3]] == pytest.approx(odds.tolist(), abs=1e-4)
        assert [row["probability"] for row in rows[:3]] == pytest.approx(odds.sigmoid().tolist(), abs=1e-4)
    else:
        pairs = vision.system.net(*_one_batch(vision))
        chance = None if pairs.bias is None else (pairs.scale * similarity + pairs.bias).sigmoid().tolist()
        assert [row["score"] for row in rows[:3]] == pytest.approx(similarity.tolist(), abs=1e-5)
        expected = [None] * 3 if chance is None else pytest.approx(chance, abs=1e-5)
        assert [row["probability"] for row in rows[:3]] == expected


def _one_batch(vision: VisionLanguage) -> tuple:
    batch = next(iter(vision.datamodule.retrieval_dataloader()))
    return batch.image[:2], batch.ids[:2], batch.mask[:2]


def test_ground(vision: VisionLanguage, encoded: EncodedSet, pictures: Path, tmp_path: Path) -> None:
    text = captions(vision)[0]
    job = job_of(tmp_path / "run", text)
    if not vision.matches:
        with pytest.raises(ValueError, match="task=ground needs a model with a matching head"):
            Ground(str(pictures / "00.png")).run(vision, job)
        return
    Ground(str(pictures / "00.png"), layer=0).run(vision, job)
    (row,) = rows_of(job.run_dir)
    net, length = vision.system.net, int(encoded.text_mask[0].sum())
    tokens, mask = encoded.text_tokens[:1, :length], encoded.text_mask[:1, :length]
    heat = grad_cam(net, encoded.image_tokens[:1], tokens, mask, layer=0, grid=net.grid)
    spans = content_words(text, 6)
    assert list(row["hottest"]) == [text[first:end] for first, end in spans]
    for first, end in spans:
        word = tokens_of(vision.datamodule.tokenizer, text, (first, end), encoded.text_ids[0, :length])
        place = int(mean_heat(heat, word[None])[0].argmax())
        assert row["hottest"][text[first:end]] == [
            (place % net.grid[1] + 0.5) / net.grid[1],
            (place // net.grid[1] + 0.5) / net.grid[0],
        ]
    assert Image.open(row["overlay"]).width > 500


def test_the_hottest_patch() -> None:
    heat = torch.zeros(2, 3)
    heat[1, 0] = 1.0
    assert _hottest(heat) == pytest.approx((1 / 6, 3 / 4)), "x of three columns, y of two rows"


def test_what_cannot_be_done(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures=.*: there is no picture below"):
        find_pictures(str(tmp_path))
    with pytest.raises(ValueError, match="no such file or folder"):
        find_pictures(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="at least two different names"):
        Classify("x", ["dog", "dog"])
    with pytest.raises(ValueError, match=r"each needs a \{\}"):
        Classify("x", ["dog", "cat"], ["a picture"])
    with pytest.raises(ValueError, match=r"top_k=0 must be at least 1"):
        Retrieve("x", top_k=0)


def test_foils_of_a_list(vision: VisionLanguage, encoded: EncodedSet, pictures: Path, tmp_path: Path) -> None:
    """Each picture's caption against the next one's, whose picture is the second: as the features say."""
    told = captions(vision)
    lines = [
        {"image": f"{i:02}.png", "caption": told[i], "foil": told[(i + 1) % 12], "foil_image": f"{(i + 1) % 12:02}.png"}
        for i in range(12)
    ]
    (pictures / "broken.png").write_text("no picture")
    lines.append({"image": "broken.png", "caption": "a dog", "foil": "a cat"})
    job = job_of(tmp_path / "run", file=write_lines(pictures / "foils.jsonl", lines))
    found = Foils().run(vision, job)
    similar = encoded.image_features @ encoded.text_features.T
    text = [similar[i, i] > similar[i, (i + 1) % 12] for i in range(12)]
    assert found["foils_caption_accuracy"] == pytest.approx(sum(text) / 12)
    both = [text[i] and similar[(i + 1) % 12, (i + 1) % 12] > similar[(i + 1) % 12, i] for i in range(12)]
    assert found["foils_text_score"] == pytest.approx(sum(both) / 12)
    assert found["failed"] == 1 and rows_of(job.run_dir)[12]["error"].count("line 13") == 1
    assert ("matched_foils_group_score" in found) == vision.matches
    assert next(iter(found)).startswith("matched_") == vision.matches and "group" in printed(job)


def test_foils_of_the_runs_own_data(vision: VisionLanguage, tmp_path: Path) -> None:
    vision.datamodule.source.num_val_foils = 6
    found = Foils().run(vision, job := job_of(tmp_path / "run"))
    assert [row["id"] for row in rows_of(job.run_dir)] == ["relations", "which_is_where", "counts", "backgrounds"]
    assert len(rows_of(job.run_dir)[0]["similarity"]) == 6 and "counts_text_score" in found
    with pytest.raises(ValueError, match="prompt_text: task=foils takes input=LIST"):
        Foils().run(vision, job_of(tmp_path / "other", "a dog"))
