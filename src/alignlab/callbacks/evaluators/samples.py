"""What the trained model finds and where it looks, as pictures in the run directory."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from PIL import Image
from torch import Tensor

from alignlab.callbacks.evaluators.evaluator import Callback, evaluation, read_by
from alignlab.callbacks.evaluators.retrieval import encode_split
from alignlab.distributed import collectives
from alignlab.evaluation.encoding import EncodedSet
from alignlab.evaluation.grounding import grad_cam, mean_heat
from alignlab.evaluation.reranking import nearest, score_pairs
from alignlab.evaluation.retrieval import Candidates, lift, similarity
from alignlab.evaluation.sheets import NEUTRAL, RIGHT, WRONG, SheetRow, Tile, draw_sheet, overlay
from alignlab.evaluation.words import content_words, tokens_of
from alignlab.files.writing import replaced, write_text

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """The answer to one caption; pictures by their number in the split."""

    caption: str
    picture: int  # the right one
    place: int  # where the right one came, 1 = first
    pictures: list[int]  # the best, best first
    scores: list[float]
    files: list[str] | None = None  # of these pictures, where they are files
    file: str | None = None  # of the right one


class SampleSheets(Callback):
    """Writes `samples/retrieval.png`, `retrieval.jsonl` and, for nets that match, `grad_cam.png` when training has
    ended.

    Ranks: all of them encode and search together; rank zero alone draws.

    Args:
        num_captions: captions on the retrieval sheet, evenly spread over the split.
        num_scenes, num_words: pictures on the Grad-CAM sheet, and the largest number of words of each.
        max_pictures: among so many pictures of the split is searched.
        rerank_top_k: candidates of a caption that the matching head orders, where there is one.
        layer: fusion layer whose attention is shown, from 0; None: the net's `pointing_layer`.
        split: of the data module.
    """

    def __init__(
        self,
        num_captions: int = 8,
        num_scenes: int = 6,
        num_words: int = 5,
        max_pictures: int = 1000,
        rerank_top_k: int = 32,
        layer: int | None = None,
        split: str = "val",
    ) -> None:
        for key, value in (("num_captions", num_captions), ("num_words", num_words), ("max_pictures", max_pictures)):
            if value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1")
        self.num_captions, self.num_scenes, self.num_words = num_captions, num_scenes, num_words
        self.max_pictures, self.rerank_top_k, self.layer, self.split = max_pictures, rerank_top_k, layer, split

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Complain about an unsuitable data module now rather than after the training."""
        read_by(trainer, "samples", "retrieval_dataloader")
        read_by(trainer, "samples", "picture")

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        datamodule = trainer.datamodule
        with evaluation(trainer, pl_module) as module:
            net = module.net
            matches = hasattr(net, "match")
            encoded = encode_split(
                trainer,
                module,
                "samples",
                split=self.split,
                keep_tokens=matches,
                tokens_on_host=True,
                max_pictures=self.max_pictures,
            )
            index, chosen = encoded.image_index.tolist(), _spread(len(encoded.image_index), self.num_captions)
            answers = search(net if matches else None, encoded, chosen, self.rerank_top_k)
            if collectives.rank() != 0:
                return
            folder = Path(trainer.default_root_dir) / "samples"
            folder.mkdir(parents=True, exist_ok=True)
            searched = [
                Found(
                    caption=datamodule.caption(index[right], self.split),
                    picture=index[right],
                    place=order.index(right) + 1,
                    pictures=[index[i] for i in order[:5]],
                    scores=[round(score, 4) for score in scores[:5]],
                    **_files(datamodule, self.split, index[right], [index[i] for i in order[:5]]),
                )
                for right, (order, scores) in zip(chosen, answers, strict=True)
            ]
            self._write_retrieval(searched, len(encoded.image_index), matches, datamodule, folder)
            if matches and hasattr(net, "match_with_attention") and self.num_scenes > 0:
                rows = self._look(net, encoded, datamodule)
                legend = "Grad-CAM of the matching score: where the net looks for a word. "
                legend += "Each map is scaled to its own maximum."
                _save(draw_sheet("Single words on pictures", legend, rows), folder / "grad_cam.png")
        log.info("sample sheets are in %s", folder)

    def _write_retrieval(self, searched: list[Found], total: int, matches: bool, datamodule: Any, folder: Path) -> None:
        rows = []
        for answer in searched:
            tiles = [
                Tile(datamodule.picture(i, self.split), RIGHT if i == answer.picture else WRONG, f"{score:.2f}", name)
                for i, score, name in zip(answer.pictures, answer.scores, answer.files or [""] * 5, strict=False)
            ]
            aside = None
            if answer.place > len(tiles):
                aside = Tile(
                    datamodule.picture(answer.picture, self.split), NEUTRAL, f"place {answer.place}", answer.file or ""
                )
            note = "right picture first" if answer.place == 1 else f"right picture in place {answer.place}"
            rows.append(SheetRow(answer.caption, note, tiles, aside))
        kind = "log-odds of a match" if matches and self.rerank_top_k > 0 else "cosine similarity"
        legend = f"Green: the caption's own picture. Red: another one. Grey: its own, found later. Below: {kind}."
        best = max(len(answer.pictures) for answer in searched)
        _save(draw_sheet(f"Captions and the {best} best of {total} pictures", legend, rows), folder / "retrieval.png")
        named = [{key: value for key, value in each._asdict().items() if value is not None} for each in searched]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in named]
        write_text(folder / "retrieval.jsonl", "".join(lines))

    def _look(self, net: torch.nn.Module, encoded: EncodedSet, datamodule: Any) -> list[SheetRow]:
        """Heat of single words on some of this rank's pictures."""
        own = (encoded.image_rank == collectives.rank()).nonzero().flatten().tolist()
        rows = []
        for slot in _spread(len(own), self.num_scenes):
            text = int(torch.searchsorted(encoded.image_of_text, own[slot]))
            number = int(encoded.image_index[own[slot]])
            picture, caption = datamodule.picture(number, self.split), datamodule.caption(number, self.split)
            heat = text_heat(net, encoded, [slot], [text], self.layer)[0]
            tiles = [Tile(picture, NEUTRAL, "picture")]
            for span in content_words(caption, self.num_words):
                tokens = tokens_of(datamodule.tokenizer, caption, span, encoded.text_ids[text].cpu())
                if tokens.any():
                    word_heat = mean_heat(heat[None], tokens[None, : heat.shape[0]].to(heat.device))[0]
                    tiles.append(Tile(overlay(picture, word_heat), NEUTRAL, caption[span[0] : span[1]]))
            rows.append(SheetRow(caption, "", tiles))
        return rows


def _files(datamodule: Any, split: str, right: int, pictures: list[int]) -> dict[str, Any]:
    """The files of an answer; empty where pictures are none."""
    name_of = getattr(datamodule, "name_of", lambda index, split: None)
    if (file := name_of(right, split)) is None:
        return {}
    return {"file": file, "files": [name_of(i, split) for i in pictures]}


def search(
    net: torch.nn.Module | None, encoded: EncodedSet, chosen: list[int], rerank_top_k: int
) -> list[tuple[list[int], list[float]]]:
    """All pictures of the set, best first, with their scores, for the first captions of the chosen pictures.

    Ordered by similarity; with a net, `rerank_top_k` candidates are ordered by matching and stand above the rest.
    """
    texts = torch.searchsorted(encoded.image_of_text, torch.tensor(chosen, device=encoded.image_of_text.device))
    features = encoded.text_features[texts]
    score = similarity(features, encoded.image_features)
    if net is not None and rerank_top_k > 0:
        best = nearest(features, encoded.image_features, rerank_top_k)
        image, text = best.index.flatten(), texts.repeat_interleave(best.index.shape[1])
        by_picture = image.argsort(stable=True)
        matching = score.new_empty(len(image))
        matching[by_picture] = score_pairs(net, encoded, image[by_picture], text[by_picture])
        score = lift(score, Candidates(best.index, matching.view_as(best.index)))
    ordered = score.sort(1, descending=True)
    return list(zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True))


def text_heat(
    net: torch.nn.Module, encoded: EncodedSet, slots: list[int], texts: list[int], layer: int | None = None
) -> Tensor:
    """Grad-CAM of pairs of this rank's pictures (places among its own) and texts: (B, T, rows, cols) on the net's
    device.
    """
    device = encoded.text_features.device
    image = encoded.image_tokens[slots].to(device)
    mask = encoded.text_mask[texts]
    length = max(1, int(mask.any(0).sum()))
    tokens, mask = encoded.text_tokens[texts, :length].to(device), mask[:, :length]
    return grad_cam(net, image, tokens, mask, layer=net.pointing_layer if layer is None else layer, grid=net.grid)


def _spread(total: int, number: int) -> list[int]:
    """At most `number` different places, evenly spread over 0..total-1."""
    number = min(number, total)
    return [i * total // number for i in range(number)]


def _save(image: Image.Image, path: Path) -> None:
    with replaced(path) as temporary:
        image.save(temporary, format="PNG")
