"""Our runs, and released nets, as models of LAION's CLIP_benchmark: its data sets, prompts and metrics.

    python -m alignlab.tools.clip_benchmark eval --model outputs/clip --dataset cifar10 --no_amp

is its own command line with one more `--model_type`, which is also the default. In a program of one's own:

    from alignlab.tools.clip_benchmark import clip_model, register

    register()  # now clip_benchmark.models.load_clip("alignlab", "outputs/clip", "", None, "cpu") works

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from alignlab.data.image_text.picture_modes import as_rgb
from alignlab.evaluation.encoding import crop_padding
from alignlab.runs.loading import load

NAME = "alignlab"


class BenchmarkedModel(nn.Module):
    """The two towers of a run as CLIP_benchmark calls them; a text's ids and mask travel as one tensor."""

    def __init__(self, system: nn.Module) -> None:
        super().__init__()
        self.system = system

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return self.system.encode_image(image).features

    def encode_text(self, text: Tensor) -> Tensor:
        """(N, 2, T) int64 -> (N, D)."""
        ids, mask = crop_padding(text[:, 0], text[:, 1].bool())
        return self.system.encode_text(ids, mask).features


def clip_model(
    model_name: str, pretrained: str = "", cache_dir: str | None = None, device: str | torch.device = "cpu"
) -> tuple[BenchmarkedModel, Callable[[Image.Image], Tensor], Callable[[list[str]], Tensor]]:
    """Model, transform of a picture to (3, H, W) and tokenizer, as the functions in CLIP_benchmark's `TYPE2FUNC` give
    them. Pictures are made in its workers, on the CPU.

    Args:
        model_name: what `alignlab.load` takes: a run directory, a released net.
        pretrained: CLIP_benchmark's name of the weights; here the run says it, so it is only a label of the results.
        cache_dir: isn't used.

    Raises:
        ValueError: see `alignlab.load`.
    """
    loaded = load(model_name, str(device))
    data = loaded.data

    def transform(picture: Image.Image) -> Tensor:
        return data.normalise(data.pixels(as_rgb(picture))[None])[0]

    def tokenizer(texts: list[str]) -> Tensor:
        ids, mask = data.encode_texts(list(texts))
        return torch.stack([ids, mask.to(ids.dtype)], 1)

    return BenchmarkedModel(loaded.system).eval(), transform, tokenizer


def register() -> Any:
    """Makes `clip_model` one of CLIP_benchmark's kinds of models, and gives its command line's function.

    Raises ValueError where it isn't installed.
    """
    try:
        from clip_benchmark.models import MODEL_TYPES, TYPE2FUNC
    except ImportError as error:
        raise ValueError(f"{error}: CLIP_benchmark is an extra, pip install 'alignlab[clip_benchmark]'") from None
    TYPE2FUNC[NAME] = clip_model
    if NAME not in MODEL_TYPES:
        MODEL_TYPES.append(NAME)
    from clip_benchmark.cli import main

    return main


def main(words: list[str]) -> int:
    """CLIP_benchmark's command line, with our models unless another `--model_type` is named; the exit code."""
    try:
        run = register()
        sys.argv[1:] = _with_ours(words)
        run()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _with_ours(words: list[str]) -> list[str]:
    """Their words for our models: `--model DIR ...` becomes pairs of place and label, the label a part of the name of
    the results' file, which a place with / can't be.
    """
    if words[:1] != ["eval"] or "--model_type" in words:
        return words
    words = [*words, "--model_type", NAME]
    if "--model" in words and "--pretrained" not in words:
        first = words.index("--model") + 1
        end = next(n for n in range(first, len(words)) if words[n].startswith("--"))
        pairs = [f"{place},{place.strip('/.').replace('/', '-')}" for place in words[first:end]]
        words[first - 1 : end] = ["--pretrained_model", *pairs]
    return words if "--output" in words else [*words, "--output", "{dataset}_{pretrained}_{language}_{task}.json"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
