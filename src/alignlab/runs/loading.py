"""`alignlab.load`: a trained or released vision-language model for notebooks and programs, without configs.

    model = alignlab.load("outputs/clip")  # a run directory; or a released CLIP or SigLIP: a hub id, folder or file
    pictures = ["beach.jpg", "street.jpg"]
    best = model.similarity(pictures, ["two dogs on a beach"]).argmax(0)

    alignlab.load("outputs/albef_vqa").answer("beach.jpg", "how many dogs are there").answer  # of a task's run

Legend: M pictures, N texts, D joint embedding, W width of the fusion.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
from alignlab.tasks.pictures.asking import NO_NAMES, Answered, asked, names_of
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
        """(M, N) how the model shares a picture out among labels, at its own temperature.

        Raises ValueError for runs that were fine-tuned for answers or labels: these don't compare any more.
        """
        if not hasattr(self.net, "scale"):
            raise ValueError(
                f"{type(self.net).__name__} was fine-tuned for {', '.join(names_of(self.data)[:3])}, ... and has no "
                "temperature for labels of one's own: ask it with answer(picture, text)"
            )
        return (self.net.scale.float() * self.similarity(pictures, labels)).softmax(-1)

    def match(self, picture: Picture, texts: str | Sequence[str]) -> list[PairScore]:
        """How well each text fits the picture: score, probability where the model states one, cosine."""
        text, _, mask = self._texts([texts] if isinstance(texts, str) else texts)
        return scores_of(self.net, self._images([picture]), text, mask)

    def answer(
        self, pictures: Picture | Sequence[Picture], text: str, *, top_k: int = 3, shortlist: int | None = None
    ) -> Answered:
        """What a run that was fine-tuned for it (albef_vqa, clip_vqa, albef_entailment, albef_nlvr2, ...) says: the
        likeliest answer to a question, or the label of a sentence, with its probability among all that the run knows.

        Args:
            pictures: one, or as many as the run looks at.
            text: question or sentence.
            top_k: so many answers in `probabilities`.
            shortlist: of a decoder: answers with the likeliest first word whose whole likelihood is compared.

        Raises:
            ValueError: of a run without answers, or that looks at another number of pictures.
        """
        for key, value in (("top_k", top_k), ("shortlist", 1 if shortlist is None else shortlist)):
            if value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1")
        if not (names := names_of(self.data)):
            raise ValueError(f"answer {NO_NAMES}")
        image = self.preprocess(pictures)[None]
        return asked(self.system, self.data, image, text, names, top_k=top_k, shortlist=shortlist)

    def encode(
        self,
        inputs: str | Picture | Sequence[str | Picture],
        batch_size: int = 32,
        *,
        normalize_embeddings: bool = True,
        convert_to_tensor: bool = False,
    ) -> np.ndarray | Tensor:
        """(N, D) float32, or (D,) of a single input, for programs that expect a sentence-transformers encoder: a `str`
        is a text, a `Path` or PIL picture is a picture, and a list may hold both.

        normalize_embeddings is theirs to say and changes nothing: the vectors have length 1 as they are.
        """
        several = [inputs] if (single := isinstance(inputs, Picture)) else list(inputs)
        texts = [place for place, one in enumerate(several) if isinstance(one, str)]
        pictures = [place for place, one in enumerate(several) if not isinstance(one, str)]
        parts = [
            ask([several[place] for place in places], batch_size)
            for ask, places in ((self.text_features, texts), (self.image_features, pictures))
            if places
        ]
        features = torch.cat(parts)[torch.tensor(texts + pictures).argsort()] if parts else self.text_features("")[:0]
        features = features[0] if single else features
        return features if convert_to_tensor else features.cpu().numpy()

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
            raise ValueError(f"{type(self.net).__name__} has no head that matches a picture with a text; ALBEF has")
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
