"""The pointing game on held-out pictures whose objects' boxes are known."""

import lightning
import torch
from torch import Tensor

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, read_by
from alignlab.callbacks.evaluators.retrieval import encode_split
from alignlab.callbacks.evaluators.samples import text_heat
from alignlab.distributed import collectives
from alignlab.evaluation.encoding import EncodedSet, gather_rows
from alignlab.evaluation.grounding import box_mask, box_ranking, mean_heat, pointing_game, upsample
from alignlab.evaluation.words import tokens_of


class GroundingEvaluator(Evaluator):
    """Share of nouns whose hottest pixel lies on what they name, for nets that match and data that know the boxes.

    Ranks: as `Evaluator`; hits are gathered.

    Reads `datamodule.source.grounded_phrases(index, split)`: character spans of the first caption with their boxes.
    Logs `pointing_game_accuracy` and `pointing_game_chance`, what pointing blindly would reach, and where the source
    has `candidate_boxes(index, split)` the same of choosing among these as `box_ranking_...`; nothing where net or data
    don't fit.

    Args:
        max_pictures: use about so many pictures of the split.
        layer: fusion layer, from 0; None: the net's `pointing_layer`.
        split, every: as for retrieval.
    """

    def __init__(
        self, max_pictures: int = 200, layer: int | None = None, split: str = "val", every: Every = "end"
    ) -> None:
        super().__init__(every)
        if max_pictures < 1:
            raise ValueError(f"max_pictures is {max_pictures}; it must be at least 1")
        self.max_pictures, self.layer, self.split = max_pictures, layer, split

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        datamodule = read_by(trainer, "grounding", "retrieval_dataloader")
        if not hasattr(module.net, "match_with_attention") or not hasattr(
            getattr(datamodule, "source", None), "grounded_phrases"
        ):
            return {}
        encoded = encode_split(
            trainer, module, "grounding", split=self.split, keep_tokens=True, max_pictures=self.max_pictures
        )
        means = gather_rows(self._play(module.net, encoded, datamodule)).mean(0).tolist()
        names = ("pointing_game_accuracy", "pointing_game_chance", "box_ranking_accuracy", "box_ranking_chance")
        return dict(zip(names if hasattr(datamodule.source, "candidate_boxes") else names[:2], means, strict=False))

    def _play(self, net: torch.nn.Module, encoded: EncodedSet, datamodule: lightning.LightningDataModule) -> Tensor:
        """Hit and chance of every noun on this rank's pictures, of pointing and of ranking boxes: (M, 4)."""
        device = encoded.text_features.device
        own = (encoded.image_rank == collectives.rank()).nonzero().flatten()
        texts = torch.searchsorted(encoded.image_of_text, own).tolist()
        numbers, ids = encoded.image_index[own].tolist(), encoded.text_ids.cpu()
        results, candidates = [torch.zeros(0, 4, device=device)], getattr(datamodule.source, "candidate_boxes", None)
        for start in range(0, len(own), 32):
            slots = list(range(start, min(start + 32, len(own))))
            heat = text_heat(net, encoded, slots, [texts[slot] for slot in slots], self.layer)
            rows, tokens, targets, choices = [], [], [], []
            for row, slot in enumerate(slots):
                picture, caption = (
                    datamodule.picture(numbers[slot], self.split),
                    datamodule.caption(numbers[slot], self.split),
                )
                size = (picture.height, picture.width)
                for first, end, boxes in datamodule.source.grounded_phrases(numbers[slot], self.split):
                    token = tokens_of(datamodule.tokenizer, caption, (first, end), ids[texts[slot]])
                    if token.any():
                        rows.append(row)
                        tokens.append(token[: heat.shape[1]])
                        targets.append(box_mask(boxes, size))
                        there = boxes if candidates is None else candidates(numbers[slot], self.split)
                        choices.append((there, boxes))
            if rows:
                word_heat = mean_heat(heat[rows], torch.stack(tokens).to(device))
                target = torch.stack(targets).to(device)
                large = upsample(word_heat, target.shape[1:])
                ranked = [box_ranking(one, *choice) for one, choice in zip(large.cpu(), choices, strict=True)]
                pointed = torch.stack(pointing_game(large, target), dim=1)
                results.append(torch.cat([pointed, torch.tensor(ranked, device=device)], 1))
        return torch.cat(results)
