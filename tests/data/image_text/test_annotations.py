"""Lists of pictures and captions in every format, and what is said about bad ones."""

import json

from alignlab.data.image_text.annotations import read_annotations, split_by_hash
from alignlab.data.image_text.picture_files import check_files, same_files, say_shared

import pytest


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
            "line 2: the picture b.png has no caption",
        ),
        ("a.jsonl", '{"image": "a.png", "captions": []}\n', "line 1: the picture a.png has no caption"),
        ("a.jsonl", '{"image": "a.png", "caption": "one"}\n{"image": \n', "line 2: no JSON"),
        ("a.jsonl", "[1]\n", "line 1: a row must be an object with keys, not a list of 1"),
        (
            "a.csv",
            "picture,caption\na.png,one\n",
            "line 1: the header reads .*; it must name the picture .image, filepath",
        ),
        ("a.csv", "image,caption\na.png,\n", "line 2: the picture a.png has no caption"),
        ("a.csv", "image,caption\n", "lists no picture"),
        ("a.json", '{"pictures": []}', "neither a list of pictures nor"),
        ("a.json", '{"images": [{"filename": "a.png", "split": "val"}]}', "row 1 is no entry.*sentences is missing"),
        ("a.txt", "a.png one", "captions come as .jsonl, .json, .csv or .tsv"),
    ],
)
def test_bad_lists(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(write(tmp_path / name, text))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(p.path.name, *p.captions) for p in read_annotations(tmp_path / name)[""]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.csv", b"\xef\xbb\xbfimage,caption\na.png,one\n"),
        ("wide.tsv", "image\tcaption\r\na.png\tone\r\n".encode("utf-16")),
        ("capitals.CSV", " Image , CAPTION\na.png, one\n"),
        ("semicolons.csv", 'image;"caption"\na.png;one\n'),
        ("tabs.csv", "image\tcaption\na.png\tone\n"),
        ("commas.tsv", '"image","caption"\na.png,one\n'),
        ("index.csv", ",image,caption\n0,a.png,one\n"),
        ("old.csv", "image,caption\ra.png,one\r"),
        ("bom.jsonl", b'\xef\xbb\xbf{"image": "a.png", "caption": "one"}\n'),
        ("capitals.jsonl", '{"Image": "a.png", " caption": ["one"], "note": null}'),
        ("bom.json", b'\xef\xbb\xbf[{"image": "a.png", "title": "one", "caption": ""}]'),
    ],
)
def test_what_spreadsheets_and_other_systems_write(tmp_path, name, content):
    assert rows(tmp_path, name, content) == [("a.png", "one")]


def test_captions_with_separators_marks_and_odd_letters(tmp_path):
    text = 'image,caption\na.png,"a 12"" disc, and more"\nb.png,a 12" disc\nc.png,a\u2028b\x85c\x0cd\n'
    assert rows(tmp_path, "a.csv", text) == [
        ("a.png", 'a 12" disc, and more'),
        ("b.png", 'a 12" disc'),
        ("c.png", "a\u2028b\x85c\x0cd"),
    ]
    long = "x" * 200_000
    assert rows(tmp_path, "a.csv", f"image,caption\na.png,{long}\n") == [("a.png", long)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            'image,caption\na.png,"a dog\nb.png,a cat\n',
            r"line 2: a field begins with a quotation mark and isn't closed",
        ),
        (
            "a.csv",
            'image,caption\na.png,"a dog\nb.png,a ""cat""\nc.png,"\n',
            "line 2: a field begins with a quotation mark",
        ),
        ("a.csv", 'image,caption\na.png,"big" dog\n', "line 2: a field begins with a quotation mark"),
        (
            "a.csv",
            "image,caption\na.jpg,a dog, a cat and a bird\n",
            r"line 2: 3 fields, but the header has 2: .*',' stands in quotation marks",
        ),
        (
            "a.csv",
            "image,caption,split\na.jpg,a dog\n",
            "line 2: 2 fields, but the header has 3: an empty field keeps its separator",
        ),
        ("a.csv", "image,caption,Caption \na.jpg,a,b\n", "line 1: two columns are called 'caption'"),
        (
            "a.csv",
            "a.jpg,a dog\nb.jpg,a cat\n",
            r"line 1: the header reads 'a.jpg,a dog'; it must name the picture .image.* and its caption",
        ),
        ("a.csv", "image,caption\na.jpg,caf\xe9\n".encode("latin-1"), "line 2: byte 0xe9 is no UTF-8"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "caption": 3}',
            "line 1: caption is the number 3; it must be a text or a list of texts",
        ),
        ("a.jsonl", '{"image": "a.jpg", "caption": NaN}', "line 1: caption is the number nan; it must be a text"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "captions": ["a", 3]}',
            r"line 1: captions\[1\] is the number 3; it must be a text",
        ),
        (
            "a.jsonl",
            '{"image": "a.jpg", "captions": [["a"]]}',
            r"line 1: captions\[0\] is a list of 1 .* must be a text",
        ),
        (
            "a.jsonl",
            '{"image": "a.jpg", "caption": {"en": "a", "zh": "b"}}',
            "line 1: caption is an object with the keys en, zh; it must be a text .*one of its keys",
        ),
        (
            "a.jsonl",
            '{"image": "a.jpg", "captions": [{"en": "a"}]}',
            r"line 1: captions\[0\] is an object with the keys en; it must be a text",
        ),
        ("a.jsonl", '{"image": ["a.jpg"], "caption": "a"}', "line 1: image is a list of 1 .*; it must be a text"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "caption": "a", "caption": "b"}',
            "line 1: no JSON .the key 'caption' stands there twice",
        ),
        ("a.jsonl", '{"image": "a.jpg", "caption": "a", "Caption": "b"}', "line 1: two keys differ only in capitals"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "caption": "a", "split": 1}',
            "line 1: split is the number 1; it must be train, val, test or empty",
        ),
        ("a.jsonl", '{"image": "a\\u0000.jpg", "caption": "a"}', "line 1: image holds a zero byte"),
        ("a.jsonl", '{"image": "a.jpg", "caption": "a\\ud800"}', "line 1: caption holds .*half a letter"),
        (
            "a.json",
            '[{"image": "a.jpg", "caption": "a"}, 3]',
            "row 2: a row must be an object with keys, not the number 3",
        ),
        (
            "a.json",
            '{"images": [{"filename": "a", "split": "val", "sentences": ["a"]}]}',
            "row 1: sentences is a list of 1",
        ),
        (
            "a.json",
            '{"images": [{"filename": "a", "split": "val", "sentences": [{"raw": 3}]}]}',
            r"row 1: sentences\[0\].raw is the number 3",
        ),
    ],
)
def test_rows_that_mean_something_else_are_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        rows(tmp_path, name, content)
    assert str(caught.value).startswith(f"annotations={tmp_path}/{name}") and "\n" not in str(caught.value)


COCO = {
    "images": [
        {"id": 7, "file_name": "7.jpg", "coco_url": "http://x/val2017/7.jpg"},
        {"id": 9, "file_name": "9.jpg", "coco_url": "http://x/val2017/9.jpg"},
    ],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "a cat"},
        {"image_id": 7, "id": 2, "caption": "a dog "},
        {"image_id": 9, "id": 3, "caption": "one cat"},
    ],
}


def test_cocos_own_captions(tmp_path):
    """captions_val2017.json was refused as a "Karpathy" file without splits."""
    file = write(tmp_path / "captions_val2017.json", json.dumps(COCO))
    assert contents(read_annotations(file)) == {"": [("7.jpg", ("a dog",)), ("9.jpg", ("a cat", "one cat"))]}
    (tmp_path / "val2017").mkdir()
    write(tmp_path / "val2017" / "7.jpg", "x")
    assert [picture.name for picture in read_annotations(file)[""]] == ["val2017/7.jpg", "val2017/9.jpg"]
    boxes = [{"image_id": 7, "bbox": [0, 0, 1, 1], "category_id": 3}]
    for change, message in (
        (
            {"annotations": boxes},
            r"a file of COCO without captions .annotations with image_id, bbox, .*: take captions",
        ),
        ({"annotations": []}, "a file of COCO without captions .no annotations"),
        ({"images": COCO["images"][:1]}, "1 image_id of captions are no id of images, such as 9"),
        ({"annotations": COCO["annotations"][:1]}, "row 1: the picture .*7.jpg has no caption"),
        ({"annotations": [{"image_id": 7, "caption": 3}]}, "annotation 1: caption is the number 3"),
    ):
        write(file, json.dumps(COCO | change))
        with pytest.raises(ValueError, match=message):
            read_annotations(file)


def test_a_split_under_a_misspelt_name_is_said(tmp_path, caplog):
    file = write(tmp_path / "a.csv", "image,caption,splt\na.png,one,val\nb.png,two,val\n")
    assert list(read_annotations(file)) == [""]
    assert [record.getMessage() for record in caplog.records] == [
        f"annotations={file}, line 2: nothing reads the key splt; did you mean split?"
    ]


def test_names_of_splits(tmp_path, caplog):
    names = ["Train", "training", " validation ", "VAL", "dev", "Test", "restval", "", "extra"]
    file = write(tmp_path / "a.csv", "image,caption,split\n" + "".join(f"{i}.png,a,{s}\n" for i, s in enumerate(names)))
    found = {split: [int(p.path.stem) for p in pictures] for split, pictures in read_annotations(file).items()}
    assert found == {"train": [0, 1, 6], "val": [2, 3, 4], "test": [5], "": [7], "extra": [8]}
    assert "a.csv: pictures of the splits 'extra' (1) are neither trained on nor validated with" in caplog.text


def test_a_missing_list(tmp_path):
    with pytest.raises(ValueError, match=r"annotations=.*none.jsonl: there is no such file"):
        read_annotations(tmp_path / "none.jsonl")


def test_missing_and_empty_pictures_are_found_before_training(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\na.png,one\nb.png,two\n")
    pictures = read_annotations(file)[""]
    write(tmp_path / "a.png", "something")
    with pytest.raises(ValueError, match=r"list.csv, line 3: there is no picture .*b.png"):
        check_files(pictures)
    write(tmp_path / "b.png", "")
    with pytest.raises(ValueError, match=r"line 3: the picture .*b.png is empty"):
        check_files(pictures)


def test_the_split_by_hash_is_stable(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\n" + "".join(f"{i}.png,one\n" for i in range(500)))
    pictures = read_annotations(file)[""]
    train, held_out = split_by_hash(pictures, 0.2)
    assert 70 < len(held_out) < 130 and len(train) + len(held_out) == 500
    assert list(split_by_hash(pictures[:100], 0.2)[1]) == [p for p in held_out if p in pictures[:100]]


def test_no_more_than_so_many_are_held_out(tmp_path):
    file = write(tmp_path / "list.csv", "image,caption\n" + "".join(f"{i}.png,one\n" for i in range(500)))
    pictures = read_annotations(file)[""]
    all_held, (train, held) = split_by_hash(pictures, 0.2)[1], split_by_hash(pictures, 0.2, 30)
    assert len(held) == 30 and len(train) == 470 and not {p.name for p in held} - {p.name for p in all_held}
    assert {p.name for p in train} | {p.name for p in held} == {f"{i}.png" for i in range(500)}


def test_the_split_by_hash_takes_the_whole_path(tmp_path):
    names = [f"s/{i}/image.jpg" for i in range(500)]
    held_out = {}
    for name, below in (("list.csv", ""), ("moved.csv", f"{tmp_path}/")):
        file = write(tmp_path / name, "image,caption\n" + "".join(f"{below}{name},one\n" for name in names))
        train, held_out[name] = split_by_hash(read_annotations(file)[""], 0.2)
        assert 70 < len(held_out[name]) < 130 and len(train) + len(held_out[name]) == 500
    assert [p.path for p in held_out["list.csv"]] == [p.path for p in held_out["moved.csv"]]


def test_the_same_picture_in_training_and_validation_is_said(tmp_path, caplog):
    for name, content in (
        ("a", b"one"),
        ("copy", b"one"),
        ("b", b"two"),
        ("c", b"3" * 5000),
        ("d", b"3" * 4999 + b"4"),
    ):
        (tmp_path / f"{name}.png").write_bytes(content)
    splits = {"a": "train", "a ": "val", "copy": "val", "b": "val", "c": "train", "d": "test", "./b": "test"}
    lines = "".join(f"{name.strip()}.png,one,{split}\n" for name, split in splits.items())
    listed = read_annotations(write(tmp_path / "list.csv", f"image,caption,split\n{lines}"))
    found = {split: check_files(pictures) for split, pictures in listed.items()}
    assert [[p.name for p in pair] for pair in same_files(found["train"], found["val"])] == [
        ["a.png", "a.png"],
        ["a.png", "copy.png"],
    ]
    assert say_shared(found) == 2
    assert (
        "2 of 3 pictures of the split 'val' are training pictures too" in caplog.text
        and "line 3 is the picture of" in caplog.text
    )


def test_a_folder_with_texts_beside_its_pictures(tmp_path):
    (tmp_path / "beach").mkdir()
    for name in ("2.jpg", "beach/1.JPG", "3.png", ".hidden.png", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "beach" / "1.txt").write_text("\ufefftwo dogs\r\n\r\na beach, with dogs", encoding="utf-8")
    (tmp_path / "2.caption").write_text("a boat")
    left: list[ValueError] = []
    (found,) = read_annotations(tmp_path, bad=left.append).values()
    assert [(one.name, one.captions) for one in found] == [
        ("2.jpg", ("a boat",)),
        ("beach/1.JPG", ("two dogs", "a beach, with dogs")),
    ]
    assert found[1].path == tmp_path / "beach" / "1.JPG" and "picture beach/1.JPG" in found[1].where
    assert [
        str(error).startswith(f"annotations={tmp_path}, picture 3.png: the picture 3.png has no caption")
        for error in left
    ] == [True]
    (tmp_path / "3.txt").write_bytes(b"\xff\xfa")
    with pytest.raises(ValueError, match=r"3\.txt, line 1: byte 0xff is no UTF-8"):
        read_annotations(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither a picture nor a shard"):
        read_annotations(tmp_path / "empty")
