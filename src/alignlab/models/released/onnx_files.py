"""Both towers of a `Clip` as ONNX, for whoever runs them without torch; checked with onnxruntime as they are written.

Legend: M pictures, N texts, T tokens, D joint embedding.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.files.checksums import write_sums
from alignlab.models.clip import Clip
from alignlab.types.recipes import PictureRecipe, TextRecipe

NEEDS = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of an entry of a unit vector
OPSET = 18
Inputs = dict[str, Any]


class _Tower(nn.Module):
    """One of the two ways through a net."""

    def __init__(self, net: Clip, way: str) -> None:
        super().__init__()
        self.net, self.way = net, way

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.way == "encode_text" and len(inputs) == 1:  # padding is read as words are
            inputs = (*inputs, torch.ones_like(inputs[0], dtype=torch.bool))
        return getattr(self.net, self.way)(*inputs)


def write_onnx(net: Clip, folder: Path, tokenizer: Any, text: TextRecipe, picture: PictureRecipe) -> int:
    """Writes both towers; gives the number of weights' tensors.

    image.onnx takes pixels (M, 3, H, W) float32, normalised; text.onnx ids (N, T) int64 and mask (N, T) bool, SigLIP's
    ids alone. They give unit vectors (M, D), (N, D); M, N and T are free. recipe.json says how inputs are made.

    Raises:
        ValueError: the packages aren't there, or onnxruntime computes something else.
    """
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise ValueError(f"to-onnx needs {', '.join(missing)}: pip install 'alignlab[onnx]'")
    net = net.float().eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, inputs, shapes in _examples(len(tokenizer), text, picture):
        tower = _Tower(net, f"encode_{name}").eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that two axes share
            program = torch.onnx.export(
                tower,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["features"],
                dynamic_shapes=(tuple(shapes.values()),),
                verbose=False,
            )
        file = folder / f"{name}.onnx"
        program.save(file)
        number += len(program.model.graph.initializers)
        _check(tower, inputs, file, shorter=name == "text" and not text.whole)
    recipe = {
        "picture": picture._asdict(),
        "text": text._asdict(),
        "scale": net.scale.item(),
        "bias": None if net.logit_bias is None else net.logit_bias.item(),
    }
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return number


def _examples(vocabulary: int, text: TextRecipe, picture: PictureRecipe) -> Iterator[tuple[str, Inputs, Inputs]]:
    """Name, inputs and their free axes of either tower."""
    pixels = torch.randn(3, 3, picture.size, picture.size, generator=torch.Generator().manual_seed(0))
    ids = torch.full((3, text.context_length), text.pad_id)
    mask = torch.arange(text.context_length) < torch.tensor(
        [[text.context_length], [text.context_length // 2 + 1], [2]]
    )
    if text.whole:
        mask = torch.ones_like(mask)
    ids = torch.where(mask, torch.arange(ids.numel()).view(ids.shape) % vocabulary, ids)
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2, max=text.context_length)
    free = {0: rows} if text.whole else {0: rows, 1: tokens}
    yield "image", {"pixels": pixels}, {"pixels": {0: rows}}
    texts = {"ids": ids} if text.whole else {"ids": ids, "mask": mask}
    yield "text", texts, dict.fromkeys(texts, free)


def _check(tower: nn.Module, inputs: Mapping[str, Tensor], file: Path, *, shorter: bool) -> None:
    """Raises ValueError where onnxruntime's vectors of these rows, or of one shorter row, aren't torch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    one = {name: value[1:2, : value.shape[1] // 2 + 1] if shorter else value[1:2] for name, value in inputs.items()}
    for rows in (inputs, one):
        with torch.no_grad():
            wanted = tower(*rows.values())
        given = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in rows.items()})[0])
        if (off := (given - wanted).abs().max().item()) > TOLERANCE:
            raise ValueError(f"{file.name}: onnxruntime's vectors are {off:.2g} off torch's, more than {TOLERANCE}")
