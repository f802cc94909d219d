"""ALBEF pre-training: ITC, ITM and MLM with a momentum teacher (arXiv:2107.07651, sec. 3).

Legend: B batch of this process, T tokens, D joint embedding, K queue, M masked positions, V vocabulary, R ranks.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.distributed.collectives import all_gather, rank, reduce_mean, world_size
from alignlab.distributed.shards import is_sharded
from alignlab.losses.albef import ContrastiveTerms, Keys, hard_negatives, image_text_contrastive, partners, sameness
from alignlab.losses.language import MaskedTokens
from alignlab.methods.method import WHOLE
from alignlab.methods.pairs import PairMethod
from alignlab.methods.parts.blind import Blind, contrast, matching
from alignlab.methods.parts.chances import DRAW, Chances, Draws, joint_draws, masked_texts
from alignlab.methods.parts.counting import counts_of
from alignlab.methods.parts.fusion_losses import FusionInputs, foil_rows, fusion_losses, words_loss
from alignlab.methods.parts.teaching import Teaching, teach
from alignlab.methods.step import Step, StepOutput
from alignlab.models.albef import Albef
from alignlab.models.momentum import FeatureQueue, MomentumTwin, QueueState
from alignlab.types.pairs import PairBatch, PairIds


class Losses(NamedTuple):
    """Losses of a batch, and what the queues take after it."""

    losses: dict[str, Tensor]  # scalars: loss, itc_loss, itm_loss, mlm_loss, itm_accuracy, and those of the options
    keys: tuple[Tensor, Tensor, Tensor, Tensor]  # of all ranks: teacher features 2 x (R * B, D), ids 2 x (R * B,)


class AlbefMethod(PairMethod):
    """Trains `Albef`; the momentum twin and the feature queues are part of its state.

    R processes with B pairs each learn what one process with R * B pairs and `negative_pool=B` learns: all random
    choices are drawn for the joint batch from (seed, step).

    Args:
        net: builds an `Albef`; see `PairMethod` for the rest.
        queue_size: features of each kind that a batch is compared with besides its own.
        momentum: of the teacher; 0: the student is its own teacher.
        teach_from_step: ours, for short runs from nothing. Before it there is neither teacher nor queue: keys of fast
            students differ by age instead of content. The teacher begins as the student is then.
        momentum_ramp_steps: in which the momentum rises from 0.
        alpha: weight of the teacher's opinion in ITC and MLM.
        alpha_ramp_steps: in which alpha rises from 0. alpha_ramp_epochs: the same, by the data (published: 1).
        fuse_from_step: ours. Before it the towers are aligned by ITC alone, at about a third of the cost.
        mask_probability: of a token, for MLM.
        negative_pool: pairs among which hard negatives are drawn. None: those of the process.
        seed: of all random choices. itm_weight, mlm_weight: beside ITC's 1.
        salient_weight: ours, of the telling words of a batch's short sentences, where it has any: each sentence's alone
            is hidden (salient span masking). Foils of a batch are negatives of ITM.
        filip_weight: ours, of the contrast of words and patches, where the net has `late_interaction_dim`.
        reference: as in the published code: dropout in the teacher; another caption of the same picture is a negative,
            other ranks' pictures only once they are in the queue; temperature and embeddings are decayed.
    """

    within_batch = "ITM and MLM are those of the whole step; micro_batch_size is for CLIP and SigLIP only"
    shown = ("train/itc_loss", "train/itm_loss", "train/mlm_loss")
    renames = {"net.vision.": "net.encoder.vision.", "net.": "net.encoder."}  # noqa: RUF012 - of CLIP, of CoCa

    def __init__(
        self,
        net: Callable[..., Albef],
        *,
        queue_size: int = 65536,
        momentum: float = 0.995,
        teach_from_step: int = 0,
        momentum_ramp_steps: int = 0,
        alpha: float = 0.4,
        alpha_ramp_steps: int = 0,
        alpha_ramp_epochs: float = 0.0,
        fuse_from_step: int = 0,
        mask_probability: float = 0.15,
        negative_pool: int | None = None,
        seed: int = 0,
        itm_weight: float = 1.0,
        mlm_weight: float = 1.0,
        salient_weight: float = 1.0,
        filip_weight: float = 1.0,
        reference: bool = False,
        **settings,
    ) -> None:
        if not 0.0 <= alpha <= 1.0 or not 0.0 <= momentum <= 1.0 or not 0.0 < mask_probability < 1.0:
            raise ValueError(
                f"alpha={alpha} and momentum={momentum} lie in [0, 1], mask_probability={mask_probability} in (0, 1)"
            )
        super().__init__(net, **settings)
        if self.vocabulary.mask_id is None:
            raise ValueError("vocabulary has no token that hides a word: take a tokenizer in the manner of BERT")
        self.twin = MomentumTwin(self.net.encoder)
        self.queue = FeatureQueue(queue_size, self.net.encoder.image_projection.out_features)
        self.momentum, self.momentum_ramp_steps, self.teach_from_step = momentum, momentum_ramp_steps, teach_from_step
        self.alpha, self.alpha_ramp_steps, self.alpha_ramp_epochs = alpha, alpha_ramp_steps, alpha_ramp_epochs
        self.fuse_from_step, self.mask_probability = fuse_from_step, mask_probability
        self.negative_pool, self.seed = negative_pool, seed
        self.itm_weight, self.mlm_weight, self.reference = itm_weight, mlm_weight, reference
        self.salient_weight, self.filip_weight = salient_weight, filip_weight
        self.optimizer_settings = {"decay": "reference"} if reference else {}
        self._counts: Tensor | None = None  # of the present step

    def settle(self, loaded: Collection[str]) -> None:
        """A teacher that wasn't loaded begins as the student."""
        if not any(name.startswith("twin.") for name in loaded):
            self.twin.update(self.net.encoder, momentum=0.0)

    def before_step(self, step: Step) -> None:
        """Moves the teacher, while sharded parameters are what is stored."""
        self.net.clamp_temperature()
        self.twin.update(self.net.encoder, step.ramped(self.momentum, self.momentum_ramp_steps, self.teach_from_step))

    def forward(self, batch: PairBatch, step: Step = WHOLE) -> StepOutput:
        """The losses of a batch of training; the queues take its features after the backward pass."""
        fuse, chances = step.number >= self.fuse_from_step, self._chances(batch, step.number, step)
        counts = self._counts_of_step(batch, step) if fuse and step.total > 1 else None
        alpha, taught = self._teaching(step)
        losses = self.losses(batch, alpha, chances, taught=taught, fuse=fuse, counts=counts, share=1 / step.total)
        loss = losses.losses.pop("loss")
        state = {"temperature": self.net.temperature.detach().squeeze()}
        return StepOutput(loss if fuse else loss + self._no_gradient(), losses.losses, state, (losses.keys, fuse))

    def after_backward(self, kept: tuple[tuple[Tensor, ...], bool]) -> None:
        """Pushes the teacher's features of all ranks; not earlier, since the backward pass still reads the queues."""
        keys, fused = kept
        if not fused:
            for parameter in self._idle():  # whole ones got their zeros from `_no_gradient`, ZeRO-3 makes its own
                if parameter.grad is None and hasattr(parameter, "to_local"):
                    parameter.grad = torch.zeros_like(parameter)
        self.queue.push(*keys)

    def validate(self, batch: PairBatch, index: int = 0, step: Step = WHOLE) -> dict[str, Tensor]:
        """The same losses on held-out pairs, with the same random choices at every validation."""
        if len(batch.image) < 2:
            return {}
        alpha, taught = self._teaching(step)
        return self.losses(batch, alpha, self._chances(batch, -1 - index), taught=taught).losses

    def blind(self, batch: PairBatch) -> dict[str, Blind]:
        """Of ITC over the batch and the queue, and of ITM."""
        size, foils = len(batch.ids), 0 if batch.foils is None else batch.foils.valid.numel()
        joint = size if self.reference else size * world_size()
        return {"itc_loss": contrast(joint + self.queue.size), "itm_loss": matching(size, 2 * size + foils)}

    def losses(
        self,
        batch: PairBatch,
        alpha: float,
        chances: Chances = DRAW,
        *,
        taught: bool = True,
        fuse: bool = True,
        counts: Tensor | None = None,
        share: float = 1.0,
    ) -> Losses:
        """All losses of one batch, or those of the towers alone where `fuse` is False; changes neither teacher nor
        queues.

        taught: whether there is a teacher and a queue. counts (3,): what ITM, MLM and telling words are divided by
        instead of what this batch counts; share: of the contrasts. A batch's losses are then its parts of a step's.
        """
        if len(batch.image) < 2:
            raise ValueError("a batch of 1 pair has no hard negative: batch_size must be at least 2")
        student, size = self.net.encoder, len(batch.image)
        image = student.encode_image(batch.image)
        masked = (chances.masked or self._mask(batch, chances.draws)) if fuse else None
        foils = foil_rows(batch)
        # Masked, plain and false texts in one call.
        parts = [(masked.ids, batch.mask), (batch.ids, batch.mask), foils[:2]] if fuse else [(batch.ids, batch.mask)]
        ids, mask = (torch.cat(same) for same in zip(*parts, strict=True))
        tokens = student.text_tokens(ids, mask)
        plain = tokens[size : 2 * size] if fuse else tokens
        teacher = self._teach(batch, masked, alpha) if taught else None
        features = (image.features, student.text_features(plain))
        itc, own, keys = self._contrast(*features, teacher, batch, alpha, taught)
        losses = {"itc_loss": itc.loss * share}
        if student.late_interaction is not None:
            words = batch.mask & (batch.ids != self.vocabulary.cls_id)
            losses["filip_loss"] = words_loss(self.net, plain, words, image.tokens, own, self._pool(batch)) * share
        weights = {"itc_loss": 1.0, "filip_loss": self.filip_weight, "salient_loss": self.salient_weight}
        if not fuse:
            return Losses({"loss": _weighted(losses, weights), **losses}, keys)
        draw = None if chances.draws is None else chances.draws.negatives
        negatives = chances.negatives or hard_negatives(itc.image_to_text, itc.text_to_image, own, draw)
        if counts is None:
            counts = self._joint(counts_of(batch, negatives.valid, masked))
        losses |= fusion_losses(
            self.net,
            batch,
            FusionInputs(tokens, mask, image.tokens, foils),
            masked,
            negatives,
            teacher,
            alpha,
            counts,
            self.vocabulary.mask_id,
        )
        weights |= {"itm_loss": self.itm_weight, "mlm_loss": self.mlm_weight}
        return Losses({"loss": _weighted(losses, weights), **losses}, keys)

    def _contrast(
        self, image: Tensor, text: Tensor, teacher: Teaching | None, batch: PairBatch, alpha: float, taught: bool
    ) -> tuple[ContrastiveTerms, Tensor, tuple[Tensor, ...]]:
        """ITC, which pairs of this process's batch are the same (B, B), and all ranks' keys."""
        own_keys = (image.detach(), text.detach()) if teacher is None else (teacher.image, teacher.text)
        keys = tuple(all_gather(x) for x in (*own_keys, batch.image_id, batch.text_id))
        queue, size = QueueState(*(x if taught else x[:0] for x in self.queue.state())), len(image)
        if self.reference:
            same, first, near = None, 0, own_keys
            own = torch.eye(size, dtype=torch.bool, device=image.device)
        else:
            same = sameness(
                PairIds(batch.image_id, batch.text_id), PairIds(*keys[2:]), PairIds(queue.image_id, queue.text_id)
            )
            first, near = rank() * size, keys[:2]
            own = same.batch[:, first : first + size]
        image_keys, text_keys = Keys(near[0], queue.image), Keys(near[1], queue.text)
        terms = image_text_contrastive(image, text, image_keys, text_keys, same, self.net.temperature, alpha, first)
        return terms, own, keys

    def _teach(self, batch: PairBatch, masked: MaskedTokens | None, alpha: float) -> Teaching | None:
        """The teacher's features, and its opinion on the masked tokens where there are any and alpha asks for it.

        None where the momentum is 0: the teacher is the student then, so nothing is computed twice.
        """
        if self.momentum == 0.0:
            return None
        self.twin.teacher.train(self.training and self.reference)
        return teach(self.twin.teacher, batch, None if alpha == 0.0 else masked)

    def _teaching(self, step: Step) -> tuple[float, bool]:
        """alpha, and whether there is a teacher and a queue."""
        start = self.teach_from_step
        return step.ramped(self.alpha, self.alpha_ramp_steps, start, self.alpha_ramp_epochs), step.number >= start

    @torch.no_grad()
    def _counts_of_step(self, batch: PairBatch, step: Step) -> Tensor:
        """(3,) rows of ITM, masked tokens and telling ones of all batches of the present step, as a mean over ranks;
        the device isn't waited for.
        """
        if step.index == 0 or self._counts is None:
            counted = []
            for index, each in enumerate(step.batches(batch)):
                each = each._replace(image=batch.image).moved(batch.ids.device)  # pictures don't count
                draws = self._chances(each, step.number, step._replace(index=index)).draws
                valid = partners(each.image_id, each.text_id, draws.negatives.shape[2], ignore_ids=self.reference)
                counted.append(counts_of(each, valid, self._mask(each, draws)))
            self._counts = self._joint(torch.stack(counted).sum(0))
        return self._counts

    def _joint(self, counts: Tensor) -> Tensor:
        """For a mean over the joint batch; the reference has a mean of ranks' means."""
        return counts if self.reference else reduce_mean(counts)

    def _no_gradient(self) -> Tensor:
        """Zero that every whole parameter of the fusion has a part in: DDP waits for a gradient of each."""
        return sum(
            (0.0 * p.sum() for p in self._idle() if not is_sharded(p)),
            torch.zeros((), device=self.net.temperature.device),
        )

    def _idle(self) -> list[Tensor]:
        """Parameters that only fusion uses."""
        encoder = self.net.encoder
        parts = (encoder.fusion, encoder.language_head, encoder.fusion_positions, self.net.matching_head)
        idle = [p for part in parts if part is not None for p in part.parameters()]
        return idle if encoder.late_interaction is None else [*idle, encoder.late_interaction.log_affinity]

    def _chances(self, batch: PairBatch, number: int, step: Step = WHOLE) -> Chances:
        pairs, pool = len(batch.ids), self._pool(batch)
        draws = joint_draws(
            self.seed,
            number,
            pairs,
            width=self.net.encoder.embeddings.position.num_embeddings,
            pool=pool,
            vocab_size=self.vocabulary.size,
            device=batch.ids.device,
            part=(step.index, step.total),
        )
        return Chances(draws=draws)

    def _pool(self, batch: PairBatch) -> int:
        pairs = len(batch.ids)
        pool = self.negative_pool if self.training and self.negative_pool else pairs
        if pairs % pool:
            raise ValueError(f"negative_pool={pool} must divide batch_size={pairs}")
        return pool

    def _mask(self, batch: PairBatch, draws: Draws | None) -> MaskedTokens:
        return masked_texts(batch, draws, self.vocabulary, self.mask_probability)


def _weighted(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    return sum(weight * losses[name] for name, weight in weights.items() if name in losses)
