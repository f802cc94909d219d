"""Lists of pictures and captions in every format, and what is said about bad ones."""

import json

import pytest

from alignlab.data.annotations import check_files, read_annotations, split_by_hash


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def contents(splits):
    return {split: [(p.path.name, p.captions) for p in pictures] for split, pictures in splits.items()}


EXPECTED = {"train": [("a.png", ("one", "two")), ("b.png", ("three",))], "val": [("c.png", ("four",))]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "list.jsonl",
            '{"image": "a.png", "caption": "one", "split": "train"}\n{"image": "a.png", "captions": ["two"], "split": "train"}\n\n'
            '{"image": "b.png", "caption": "three", "split": "train"}\n{"image": "c.png", "caption": "four", "split": "val"}\n',
        ),
        ("list.csv", "image,caption,split\na.png,one,train\na.png,two,train\nb.png,three,train\nc.png,four,val\n"),
        (
            "list.tsv",
            "filepath\ttitle\tsplit\na.png\tone\ttrain\na.png\ttwo\ttrain\nb.png\tthree\ttrain\nc.png\tfour\tval\n",
        ),
        (
            "list.json",
            json.dumps(
                [
                    {"image": "a.png", "caption": ["one", "two"], "split": "train"},
                    {"image": "b.png", "caption": "three", "split": "train"},
                    {"image": "c.png", "caption": "four", "split": "val"},
                ]
            ),
        ),
        (
            "karpathy.json",
            json.dumps(
                {
                    "images": [
                        {"filename": "a.png", "split": "train", "sentences": [{"raw": "one"}, {"raw": " two "}]},
                        {"filename": "b.png", "split": "restval", "sentences": [{"raw": "three"}]},
                        {"filename": "c.png", "split": "val", "sentences": [{"raw": "four"}]},
                    ]
                }
            ),
        ),
    ],
)
def test_formats(tmp_path, name, text):
    assert contents(read_annotations(write(tmp_path / name, text))) == EXPECTED


def test_paths_are_relative_to_the_file_or_to_a_folder(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\nx/a.png,one\n/abs/b.png,two\n")
    paths = [picture.path for picture in read_annotations(file)[""]]
    assert paths[0] == tmp_path / "x" / "a.png" and str(paths[1]) == "/abs/b.png"
    assert read_annotations(file, "/pictures")[""][0].path.as_posix() == "/pictures/x/a.png"
    karpathy = {"images": [{"filepath": "val2014", "filename": "a.png", "split": "val", "sentences": [{"raw": "one"}]}]}
    file = write(tmp_path / "k.json", json.dumps(karpathy))
    assert read_annotations(file)["val"][0].path == tmp_path / "val2014" / "a.png"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jsonl",
            '{"image": "a.png", "caption": "one"}\n{"image": "b.png", "caption": " "}\n',
            "row 2: the picture b.png has no caption",
        ),
        ("a.jsonl", '{"image": "a.png", "captions": []}\n', "row 1: the picture a.png has no caption"),
        ("a.jsonl", '{"image": "a.png", "caption": "one"}\n{"image": \n', "row 2 is not JSON"),
        ("a.jsonl", "[1]\n", "row 1 is not an object"),
        ("a.csv", "picture,caption\na.png,one\n", "row 2 has none of the keys image, filepath"),
        ("a.csv", "image,caption\na.png,\n", "row 2: the picture a.png has no caption"),
        ("a.csv", "image,caption\n", "lists no picture"),
        ("a.json", '{"pictures": []}', "neither a list of pictures nor"),
        ("a.json", '{"images": [{"filename": "a.png", "split": "val"}]}', "row 1 is no entry.*'sentences'"),
        ("a.txt", "a.png one", "captions come as .jsonl, .json, .csv or .tsv"),
    ],
)
def test_bad_lists(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(write(tmp_path / name, text))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none.jsonl \(data.annotations\)"):
        read_annotations(tmp_path / "none.jsonl")


def test_missing_and_empty_pictures_are_found_before_training(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\na.png,one\nb.png,two\n")
    pictures = read_annotations(file)[""]
    write(tmp_path / "a.png", "something")
    with pytest.raises(ValueError, match=r"list.csv, row 3: there is no picture .*b.png"):
        check_files(pictures)
    write(tmp_path / "b.png", "")
    with pytest.raises(ValueError, match=r"row 3: the picture .*b.png is empty"):
        check_files(pictures)


def test_the_split_by_hash_is_stable(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\n" + "".join(f"{i}.png,one\n" for i in range(500)))
    pictures = read_annotations(file)[""]
    train, held_out = split_by_hash(pictures, 0.2)
    assert 70 < len(held_out) < 130 and len(train) + len(held_out) == 500
    assert split_by_hash(pictures[:100], 0.2)[1] == [p for p in held_out if p in pictures[:100]]
