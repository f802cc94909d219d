"""`alignlab.load`: a trained or released vision-language model for notebooks and programs, without configs.

    model = alignlab.load("outputs/clip")  # a run directory; or a released CLIP or SigLIP: a hub id, folder or file
    pictures = ["beach.jpg", "street.jpg"]
    best = model.similarity(pictures, ["two dogs on a beach"]).argmax(0)

Legend: M pictures, N texts, D joint embedding, W width of the fusion.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.image_text.picture_modes import as_rgb
from alignlab.evaluation.encoding import crop_padding
from alignlab.evaluation.grounding import upsample
from alignlab.files.runs import newest_run
from alignlab.losses.contrastive import InfoNce
from alignlab.methods.clip import ClipMethod
from alignlab.models.released.net import pretrained_clip
from alignlab.runs.building import load_system
from alignlab.tasks.pictures.heat import word_heats
from alignlab.tasks.pictures.pair_scores import PairScore, scores_of
from alignlab.types.pairs import ImageEncoding, TextEncoding

Picture = str | Path | Image.Image


def load(place: str | Path, device: str = "cpu", plugins: str | Sequence[str] = ()) -> "VisionLanguageModel":
    """The model of a run directory (of a folder of runs: the newest), or a released CLIP or SigLIP.

    Args:
        place: the run directory; or what `model.net.path` takes: a hub id, a folder in transformers' or open_clip's
            format, a file of OpenAI's.
        plugins: packages of one's own that the run directory may name parts of.

    Raises:
        ValueError, one line: there is nothing like that, or it is a language model's.
    """
    folder = Path(place).expanduser()
    if (
        folder.is_dir()
        and (run_dir := newest_run(folder, holding="checkpoints"))
        and (run_dir / "checkpoints").is_dir()
    ):
        system, data = load_system(run_dir, plugins)
        if not isinstance(data, PairDataModule):
            raise ValueError(f"{place} is a run of a language model: infer.py model={place} asks it")
    else:
        data = PairDataModule(_NoPairs, like=str(place))
        data.setup()
        net = lambda vocab_size: pretrained_clip(str(place), vocab_size=vocab_size)  # noqa: E731
        system = ClipMethod(net, InfoNce(), vocabulary=data.vocabulary).eval()
    return VisionLanguageModel(system.to(device).requires_grad_(False), data, torch.device(device))


class VisionLanguageModel:
    """Pictures and texts as vectors, how well they fit, and where a word is; made by `load`.

    Pictures are paths or PIL's, upright and resized as in the model's validation. Vectors are fp32 on the model's
    device.
    """

    def __init__(self, system: Any, data: PairDataModule, device: torch.device) -> None:
        self.system, self.data, self.device = system, data, device

    @property
    def net(self) -> torch.nn.Module:
        """The net itself, in eval mode."""
        return self.system.net

    def preprocess(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """(M, 3, H, W), normalised. Raises ValueError naming a file that can't be read."""
        pixels = [
            self.data.pixels(as_rgb(picture) if isinstance(picture, Image.Image) else Path(picture))
            for picture in _several(pictures)
        ]
        return self.data.normalise(torch.stack(pixels).to(self.device))

    def image_features(self, pictures: Picture | Sequence[Picture], batch_size: int = 32) -> Tensor:
        """(M, D) unit vectors."""
        pictures = _several(pictures)
        parts = (pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size))
        return torch.cat([self._images(part).features.float() for part in parts])

    def text_features(self, texts: str | Sequence[str], batch_size: int = 256) -> Tensor:
        """(N, D) unit vectors."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        parts = (texts[start : start + batch_size] for start in range(0, len(texts), batch_size))
        return torch.cat([self._texts(part)[0].features.float() for part in parts])

    def fused_features(self, picture: Picture, texts: str | Sequence[str]) -> Tensor:
        """(N, W) what the fusion makes of each text with the picture, at its first token.

        Raises ValueError for models without fusion.
        """
        image, (text, _, mask) = self._fusable(picture), self._texts([texts] if isinstance(texts, str) else texts)
        with torch.no_grad():
            return self.net.encoder.fuse(text.tokens, mask, self.net.image_states(image.tokens)).matching.float()

    def similarity(self, pictures: Picture | Sequence[Picture], texts: str | Sequence[str]) -> Tensor:
        """(M, N) cosines."""
        return self.image_features(pictures) @ self.text_features(texts).T

    def probabilities(self, pictures: Picture | Sequence[Picture], labels: Sequence[str]) -> Tensor:
        """(M, N) how the model shares a picture out among labels, at its own temperature."""
        return (self.net.scale.float() * self.similarity(pictures, labels)).softmax(-1)

    def match(self, picture: Picture, texts: str | Sequence[str]) -> list[PairScore]:
        """How well each text fits the picture: score, probability where the model states one, cosine."""
        text, _, mask = self._texts([texts] if isinstance(texts, str) else texts)
        return scores_of(self.net, self._images([picture]), text, mask)

    def heat_map(self, picture: Picture, text: str) -> dict[str, Tensor]:
        """(H, W), at least 0, at the model's picture size for every word that names something.

        Raises ValueError for models without fusion.
        """
        image, encoded = self._fusable(picture), self._texts([text])
        size = self.data.image_size
        heats = word_heats(self.net, self.data.tokenizer, image, encoded, text)
        return {word: upsample(heat[None], (size, size))[0] for word, heat in heats.items()}

    def _images(self, pictures: Sequence[Picture]) -> ImageEncoding:
        with torch.no_grad():
            return self.system.encode_image(self.preprocess(pictures))

    def _texts(self, texts: Sequence[str]) -> tuple[TextEncoding, Tensor, Tensor]:
        ids, mask = (x.to(self.device) for x in crop_padding(*self.data.encode_texts(list(texts))))
        with torch.no_grad():
            return self.system.encode_text(ids, mask), ids, mask

    def _fusable(self, picture: Picture) -> ImageEncoding:
        if not hasattr(self.net, "match_with_attention"):
            raise ValueError(f"{type(self.net).__name__} has no fusion; ALBEF has")
        return self._images([picture])


def _several(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    return [pictures] if isinstance(pictures, Picture) else pictures


class _NoPairs:
    """A data set without data, for a tokenizer and recipes alone."""

    num_train = 0

    def __init__(self, image_size: int) -> None: ...

    def vocabulary_texts(self) -> Iterator[str]:
        return iter(())

    held_out_texts = vocabulary_texts
