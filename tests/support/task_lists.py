"""Lists of tasks on pictures in the formats in which their authors give them, tiny, with scenes of emoji as pictures."""

import json
from pathlib import Path

from alignlab.data.emoji.scenes import EmojiScenes

from PIL import Image

SIZE = 48
_SCENES = EmojiScenes(SIZE)


def picture(file: Path, number: int) -> None:
    """A scene, twice as wide as high."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scene = Image.fromarray(_SCENES.render(_SCENES.scene(number)))
    scene.resize((2 * SIZE, SIZE)).save(file, quality=95)


def vqa(folder: Path, part: str, number: int, first: int = 0) -> Path:
    """VQA v2's questions with its annotations beside them; question n is about picture n // 2. Of ten people 6 say yes
    and 3 no to even ones, one says a "Two."; to odd ones all say "the dog"."""
    questions, annotations = [], []
    for n in range(first, first + number):
        file = folder / part / f"COCO_{part}_{n // 2:012d}.jpg"
        if n % 2 == 0:
            picture(file, n // 2)
        said = ["yes"] * 6 + ["no"] * 3 + ["Two."] if n % 2 == 0 else ["the dog"] * 10
        answers = [{"answer": one, "answer_confidence": "yes", "answer_id": k + 1} for k, one in enumerate(said)]
        text = f"is there a dog in picture {n}?" if n % 2 == 0 else "what is on the left?"
        questions.append({"image_id": n // 2, "question": text, "question_id": 1000 * n})
        kind = "yes/no" if n % 2 == 0 else "other"
        annotations.append(
            {
                "question_type": "is there",
                "multiple_choice_answer": said[0],
                "answers": answers,
                "image_id": n // 2,
                "answer_type": kind,
                "question_id": 1000 * n,
            }
        )
    head = {"info": {"description": "VQA v2.0", "year": 2017}, "license": {"name": "CC BY 4.0"}}
    head |= {"data_type": "mscoco", "data_subtype": part}
    file = folder / f"v2_OpenEnded_mscoco_{part}_questions.json"
    file.write_text(json.dumps(head | {"task_type": "Open-Ended", "questions": questions}))
    (folder / f"v2_mscoco_{part}_annotations.json").write_text(json.dumps(head | {"annotations": annotations}))
    return file


def nlvr2(folder: Path, part: str, pairs: int) -> Path:
    """NLVR2's list, two sentences a pair; pictures of train lie in folders of directories, those of dev don't."""
    rows = []
    for n in range(pairs):
        directory = {"directory": n % 3} if part == "train" else {}
        place = folder / "images" / part / (str(n % 3) if directory else "")
        for side in (0, 1):
            picture(place / f"{part}-{n}-0-img{side}.png", 2 * n + side)
        for sentence, label in enumerate(("True", "False")):
            about = {"sentence": f"The left image {n} has {sentence} dogs.", "label": label, "writer": 7}
            rows.append({"identifier": f"{part}-{n}-0-{sentence}", "synset": "dog", **about, **directory})
    file = folder / f"{part}.json"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


def snli_ve(folder: Path, part: str, number: int, first: int = 0) -> Path:
    """SNLI-VE's list; the last row is one that nobody agreed on."""
    labels = ("entailment", "neutral", "contradiction")
    rows = []
    for n in range(first, first + number):
        picture(folder / "flickr30k-images" / f"{1000 + n}.jpg", n)
        label = "-" if n == first + number - 1 else labels[n % 3]
        texts = {"sentence1": "A caption.", "sentence2": f"A dog is number {n}.", "annotator_labels": [label]}
        ids = {"Flickr30K_ID": str(1000 + n), "captionID": f"{1000 + n}.jpg#0", "pairID": f"{1000 + n}.jpg#0r1"}
        rows.append({"gold_label": label, **ids, **texts})
    file = folder / f"snli_ve_{part}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file
