"""Retrieval on held-out pictures during training."""

import json
import sys
from pathlib import Path

import lightning

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, most_batches, read_by, transfer
from alignlab.evaluation.encoding import EncodedSet, encode_retrieval_set
from alignlab.evaluation.reranking import MatchScore, rerank
from alignlab.evaluation.retrieval import Reranking, ranks_from_features, recall_from_features
from alignlab.files.writing import write_text


class RetrievalEvaluator(Evaluator):
    """Recall at 1, 5 and 10 both ways, of the features alone and, where the net can match, with its best candidates
    re-ranked.

    Ranks: as `Evaluator`; features are gathered, and candidates are re-ranked where their picture is.

    Args:
        rerank_top_k: candidates of every query that the matching head scores; 0: none.
        rerank_every: "validation", or "end": only after the last validation, for it costs more than all the rest.
        every: the same for the features.
        score, similarity_weight: see `evaluation.reranking.rerank`.
        split: of `datamodule.retrieval_dataloader`.
        tokens_on_host: keep tokens in host memory and move them picture by picture; needed for large sets of large
            pictures.
        texts_per_pass: largest number of texts that go through the fusion layers together.
        prefix: of the metrics' names, where there are several of these evaluators.
        items: writes the rank that each caption and picture got to `items/retrieval.jsonl`, for `alignlab scaling`.
    """

    def __init__(
        self,
        rerank_top_k: int = 32,
        rerank_every: Every = "end",
        every: Every = "validation",
        score: MatchScore = "log_odds",
        similarity_weight: float = 0.0,
        split: str = "val",
        tokens_on_host: bool = False,
        texts_per_pass: int = 256,
        prefix: str = "",
        items: bool = False,
    ) -> None:
        super().__init__(every)
        if rerank_top_k < 0:
            raise ValueError(f"rerank_top_k is {rerank_top_k}; it must be 0 (off) or more")
        if texts_per_pass < 1:
            raise ValueError(f"texts_per_pass is {texts_per_pass}; it must be at least 1")
        if rerank_every not in ("validation", "end"):
            raise ValueError(f'rerank_every is {rerank_every!r}; it must be "validation" or "end"')
        self.rerank_top_k, self.rerank_every = rerank_top_k, rerank_every
        self.score, self.similarity_weight, self.texts_per_pass = score, similarity_weight, texts_per_pass
        self.split, self.tokens_on_host, self.prefix, self.items = split, tokens_on_host, prefix, items

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuses a split that the data lack now, not after hours."""
        read_by(trainer, "retrieval", "retrieval_dataloader").retrieval_dataloader(self.split)

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        rerankable = self.rerank_top_k > 0 and hasattr(module.net, "match")
        reranks = rerankable and (last or self.rerank_every == "validation")
        encoded = encode_split(
            trainer, module, "retrieval", split=self.split, keep_tokens=reranks, tokens_on_host=self.tokens_on_host
        )
        recall = recall_from_features(encoded.text_features, encoded.image_features, encoded.image_of_text)
        reranking = None
        if reranks:
            reranking = rerank(
                module.net,
                encoded,
                top_k=self.rerank_top_k,
                score=self.score,
                similarity_weight=self.similarity_weight,
                texts_per_pass=self.texts_per_pass,
            )
            again = recall_from_features(
                encoded.text_features, encoded.image_features, encoded.image_of_text, reranking=reranking
            )
            recall |= {f"reranked_{name}": value for name, value in again.items()}
        if self.items:
            rows = self._rows(encoded, None) + (self._rows(encoded, reranking) if reranking else [])
            if trainer.is_global_zero:
                write_text(Path(trainer.default_root_dir) / "items" / f"{self.prefix}retrieval.jsonl", "".join(rows))
        return {f"{self.prefix}{name}": value for name, value in recall.items()}

    def _rows(self, encoded: EncodedSet, reranking: Reranking | None) -> list[str]:
        """Lines of items.jsonl: one for each text and for each picture."""
        features = encoded.text_features, encoded.image_features, encoded.image_of_text
        forth, back = (ranks.tolist() for ranks in ranks_from_features(*features, reranking=reranking))
        kind = "reranked_" if reranking else ""
        lines = []
        for task, ranks, among in (("text_to_image", forth, len(back)), ("image_to_text", back, len(forth))):
            name = f"{self.prefix}{kind}{task}"
            for number, rank in enumerate(ranks):
                row = {"id": str(number), "task": name, "rank": rank, "candidates": among, "correct": rank == 1}
                lines.append(json.dumps(row) + "\n")
        return lines


def encode_split(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    key: str,
    *,
    split: str = "val",
    keep_tokens: bool = False,
    tokens_on_host: bool = False,
    max_pictures: int | None = None,
) -> EncodedSet:
    """A split through the model; only `trainer.limit_val_batches` of it where that is set, or about `max_pictures`."""
    batches = read_by(trainer, key, "retrieval_dataloader").retrieval_dataloader(split)
    limit = most_batches(trainer, len(batches))
    if max_pictures is not None:
        joint = trainer.datamodule.batch_size * trainer.world_size
        limit = min(limit or sys.maxsize, -(-max_pictures // joint))
    return encode_retrieval_set(
        module,
        batches,
        transfer=transfer(trainer, module),
        keep_tokens=keep_tokens,
        tokens_on_host=tokens_on_host,
        limit_batches=limit,
    )
