"""Planted near duplicates of words, of captions of five words, of Chinese; chains and boilerplate that must not go."""

import itertools
import json
import random
from pathlib import Path

from alignlab.corpus.cleaning import clean, plan_of
from alignlab.corpus.letters import Letters
from alignlab.corpus.near.clusters import Sets
from alignlab.corpus.near.shingles import BANDS, ROWS, shingled
from alignlab.corpus.near.stored import Stored
from alignlab.corpus.settings import chain_of
from planted_texts import HAN, changed_letter, english_words, jaccard, planted, replaced_unit

import numpy as np
import pytest

STEPS = ["schema", "exact_dup", "near_dup"]


def cleaned(tmp_path: Path, texts: list[str], key: str = "text", *words: str) -> tuple[list[str], list[dict]]:
    """Texts that are kept, and rows of dropped.jsonl."""
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({key: text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    clean(plan_of([file], chain=lambda kind: chain_of(kind, STEPS, words=words)), tmp_path / "out")
    kept = [json.loads(line)[key] for line in (tmp_path / "out" / "data" / "in.jsonl").read_text("utf-8").splitlines()]
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text("utf-8").splitlines()]
    return kept, lost


def _document(words: list[str], length: tuple[int, int]):
    return lambda rng: [rng.choice(words) for _ in range(rng.randint(*length))]


WORDS = english_words()
CASES = {
    "documents": (_document(WORDS, (60, 200)), " ", replaced_unit(WORDS), (0.3, 0.65)),
    "captions of 5 words": (_document([w for w in WORDS if len(w) > 2], (5, 5)), " ", changed_letter, (0.3, 0.65)),
    "Chinese documents": (_document(list(HAN), (60, 200)), "", replaced_unit(list(HAN)), (0.3, 0.65)),
    "Chinese captions": (_document(list(HAN), (9, 15)), "", replaced_unit(list(HAN)), (0.3, 0.65)),
}


@pytest.mark.parametrize("name", CASES)
def test_planted_pairs_are_found_and_no_others(tmp_path: Path, name: str) -> None:
    make, joint, change, far = CASES[name]
    near = planted(make, joint, 200, 1, (0.7, 0.95), change)
    apart = planted(make, joint, 200, 2, far, change)
    texts = [text for pair in near + apart for text in pair]
    random.Random(3).shuffle(texts)
    kept, lost = cleaned(tmp_path, texts, "caption" if "captions" in name else "text")
    gone = {row["row"] for row in lost}
    gone = {next(iter(json.loads(row).values())) for row in gone}
    found = sum(one in gone or other in gone for one, other in near)
    wrong = sum(one in gone or other in gone for one, other in apart)
    assert found / len(near) >= 0.95
    assert found / (found + wrong) >= 0.95
    assert len(kept) + len(lost) == len(texts)
    for row in lost:  # the evidence is the index itself
        if row["step"] == "near_dup":
            of = texts[int(row["evidence"]["of"].rpartition("line ")[2]) - 1]
            text = next(iter(json.loads(row["row"]).values()))
            assert row["evidence"]["jaccard"] == pytest.approx(jaccard(of, text), abs=1e-3)


def test_a_chain_of_small_changes_keeps_a_text_for_every_one_that_goes(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = [rng.choice(WORDS) for _ in range(120)]
    chain = [list(words)]
    for _ in range(150):  # each is nearly the one before; the last has nothing in common with the first
        chain.append(replaced_unit(WORDS)(rng, replaced_unit(WORDS)(rng, chain[-1])))
    texts = [" ".join(one) for one in chain]
    assert all(
        jaccard(one, other) >= 0.7 for one, other in itertools.pairwise(texts)
    )  # one cluster, if links were enough
    assert jaccard(texts[0], texts[-1]) < 0.1
    rng.shuffle(texts)
    kept, lost = cleaned(tmp_path, texts)
    assert len(kept) > 10
    for row in lost:
        text = json.loads(row["row"])["text"]
        assert max(jaccard(text, one) for one in kept) >= 0.7


def test_shared_boilerplate_wipes_nothing_out(tmp_path: Path) -> None:
    """Half of every text is the same: neighbours share many shingles, and no two are duplicates."""
    rng = random.Random(0)
    frame = [rng.choice(WORDS) for _ in range(60)]
    texts = [" ".join([*frame, *(rng.choice(WORDS) for _ in range(60))]) for _ in range(300)]
    kept, _ = cleaned(tmp_path, texts)
    assert len(kept) == 300


def test_clusters_lose_their_planted_members_alone(tmp_path: Path) -> None:
    rng, texts, sizes = random.Random(0), [], [2, 5, 40]
    for size in sizes:
        words = [rng.choice(WORDS) for _ in range(100)]
        texts += [" ".join(replaced_unit(WORDS)(rng, words)) for _ in range(size)]
    others = [" ".join(rng.choice(WORDS) for _ in range(100)) for _ in range(50)]
    kept, _ = cleaned(tmp_path, [*texts, *others])
    assert len(kept) == len(sizes) + len(others)
    assert kept[-50:] == others


def test_texts_of_both_sides_of_the_border_of_lengths_meet(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = []
    for length in range(12, 30):
        words = [rng.choice(WORDS) for _ in range(length)]
        texts += [" ".join(words), " ".join([*words, "end"])]
    kept, _ = cleaned(tmp_path, texts)
    assert len(kept) == len(texts) // 2


def test_bands_agree_as_often_as_the_index_says() -> None:
    """The share of equal bands of two sets of index J is J^5, over many pairs."""
    pairs = planted(_document(WORDS, (100, 100)), " ", 150, 4, (0.75, 0.85), replaced_unit(WORDS))
    found = shingled(Letters([text for pair in pairs for text in pair]), np.ones(300, bool))
    equal = (found.bands[:, 0::2] == found.bands[:, 1::2]).mean()
    expected = np.mean([jaccard(*pair) ** ROWS for pair in pairs])
    assert equal == pytest.approx(expected, abs=4 * (0.25 / (150 * BANDS)) ** 0.5)


def test_captions_of_different_pictures_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{"image": f"{n % 3}.png", "caption": "a dog on the grass"} for n in range(6)]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words, left in (((), 3), (("exact_dup.across_pictures=true",), 1)):
        place = tmp_path / f"out{left}"
        clean(plan_of([file], chain=lambda kind, words=words: chain_of(kind, STEPS, words=words)), place)
        assert len((place / "data" / "in.jsonl").read_text().splitlines()) == left


def test_the_index_of_sets_in_files_is_exact_and_sizes_alone_rule_out_no_near_pair(tmp_path: Path) -> None:
    rng = random.Random(0)
    held = [sorted(rng.sample(range(40), rng.randint(1, 30))) for _ in range(24)]
    held[5] = sorted([*held[4], *range(50, 50 + len(held[4]) // 3)])
    parts, bounds = [held[:10], [], held[10:]], []
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", np.array([value for one in part for value in one], np.uint32))
        bounds.append(np.cumsum([0, *map(len, part)]))
    sets = Sets([Stored(tmp_path / f"{number}.npy") for number in range(3)], bounds)
    left, right = (np.array(side) for side in zip(*itertools.combinations(range(24), 2), strict=True))
    wanted = [len(set(held[a]) & set(held[b])) / len({*held[a], *held[b]}) for a, b in zip(left, right, strict=True)]
    assert sets.jaccard(left, right).tolist() == wanted
    for threshold in (0.5, wanted[left.tolist().index(4)], max(wanted)):
        possible = sets.near_in_size(left, right, threshold)
        assert 0 < possible.sum() < len(left)
        assert not (np.array(wanted)[~possible] >= threshold).any()
    assert Stored(tmp_path / "none.npy", (20, 0)).read(0, 0).size == 0


def test_hashes_of_words_dont_depend_on_how_many_letters_are_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["a cat, 2 dogs and Ünïcode", "", "一二三 four", "averyveryverylongword x"]
    whole = Letters(texts).hashes
    monkeypatch.setattr("alignlab.corpus.letters._AT_ONCE", 7)
    assert (Letters(texts).hashes == whole).all()
    assert len(np.unique(whole)) == len(whole) == 12
