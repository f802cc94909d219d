"""Writes down what open_clip and the sentencepiece package make of the tiny nets and captions of `tiny_released`.

    pip install open_clip_torch==3.3.0 sentencepiece==0.2.3 protobuf ftfy==6.3.1
    PYTHONPATH=src:tests/support python tests/support/open_clip_record.py tests/models/released/recorded.json

The tests compare with the file and need none of these packages.
"""

import json
import sys
import tempfile
from pathlib import Path

import alignlab.launch.torchvision_ops  # noqa: F401  before whatever imports torchvision
from tiny_released import CAPTIONS, merges_file, open_clip_folder, openai_file, pictures, siglip_folder

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from transformers import SiglipTokenizer


def pipeline(model: torch.nn.Module, prepare, folder: Path) -> dict:
    """Features, logits and loss of all pictures and captions."""
    model = model.float().eval()
    image = torch.stack([prepare(Image.open(folder / "pictures" / f"{n}.png")) for n in range(len(CAPTIONS))])
    ids = SimpleTokenizer(str(merges_file(folder)), context_length=24)(CAPTIONS)
    with torch.no_grad():
        pixels, texts, scale = model(image, ids)[:3]
        return {
            "image": pixels.tolist(),
            "text": texts.tolist(),
            "logits": (scale * pixels @ texts.T).tolist(),
            "loss": ClipLoss()(pixels, texts, scale).item(),
            "ids": ids.tolist(),
        }


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures(folder)
        made = open_clip_folder(folder / "open_clip")
        model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{made}")
        openai = openai_file(folder / "openai", jit=True)
        # What open_clip prepares for OpenAI's nets.
        theirs = open_clip.load_openai_model(str(openai), precision="fp32", device="cpu")
        as_openai = open_clip.image_transform(32, is_train=False)
        ids = SiglipTokenizer.from_pretrained(siglip_folder(folder / "siglip"))(
            CAPTIONS, padding="max_length", max_length=16, truncation=True
        )["input_ids"]
        recorded = {
            "versions": {"open_clip": open_clip.__version__},
            "open_clip": pipeline(model, prepare, folder),
            "openai": pipeline(theirs, as_openai, folder),
            "siglip_ids": ids,
        }
    Path(sys.argv[1]).write_text(json.dumps(recorded))


if __name__ == "__main__":
    main()
