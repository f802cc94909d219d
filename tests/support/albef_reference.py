"""ALBEF pre-training written a second time, plainly and slowly: the oracle of the parity tests and the baseline of the benchmark.

It follows arXiv:2107.07651 and the published implementation's order of operations, names its parameters like the released checkpoints,
and shares no code with the package. Nothing here is meant to be fast: similarities are taken against a concatenated
[batch, queue] matrix with one-hot targets, negatives are drawn sample by sample, fusion runs three times, the MLM head sees every
position, and the moving average walks over single tensors.

Legend: B pairs, T tokens, S image tokens, W width, H heads, D joint embedding, Q queue, V vocabulary. Masks: 1 = keep.
"""

from typing import NamedTuple

from albef_reference_encoders import Sizes, TextModel, VisionTransformer

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Losses(NamedTuple):
    mlm: Tensor
    ita: Tensor
    itm: Tensor


class AlbefReference(nn.Module):
    """The published pre-training model; `forward` updates teacher and queues on its way, as the published one does.

    `teacher_dropout=False` keeps the teacher in evaluation mode, which the published code doesn't.
    """

    def __init__(self, sizes: Sizes, teacher_dropout: bool = True):
        super().__init__()
        z = self.sizes = sizes
        self.teacher_dropout = teacher_dropout
        self.visual_encoder, self.visual_encoder_m = VisionTransformer(z), VisionTransformer(z)
        self.text_encoder, self.text_encoder_m = TextModel(z), TextModel(z)
        self.vision_proj, self.vision_proj_m = (nn.Linear(z.vision_width, z.embed_dim) for _ in range(2))
        self.text_proj, self.text_proj_m = (nn.Linear(z.text_width, z.embed_dim) for _ in range(2))
        self.temp = nn.Parameter(torch.ones([]) * 0.07)
        self.itm_head = nn.Linear(z.text_width, 2)
        self.register_buffer("image_queue", F.normalize(torch.randn(z.embed_dim, z.queue_size), dim=0))
        self.register_buffer("text_queue", F.normalize(torch.randn(z.embed_dim, z.queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        # Extension, not in the published pre-training: who is in the queue. -100 equals nobody's id.
        self.register_buffer("image_id_queue", torch.full((z.queue_size,), -100), persistent=False)
        self.register_buffer("text_id_queue", torch.full((z.queue_size,), -100), persistent=False)
        self.initialise()

    def initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.visual_encoder.cls_token, self.visual_encoder.pos_embed):
            nn.init.normal_(parameter, std=0.02)
        self.copy_to_teacher()

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        names = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")  # neither `temp` nor `itm_head`
        return [(getattr(self, name), getattr(self, name + "_m")) for name in names]

    @torch.no_grad()
    def copy_to_teacher(self) -> None:
        for student, teacher in self.pairs():
            for p, m in zip(student.parameters(), teacher.parameters(), strict=True):
                m.copy_(p)
                m.requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self) -> None:
        for student, teacher in self.pairs():
            for p, m in zip(student.parameters(), teacher.parameters(), strict=True):
                m.data = m.data * self.sizes.momentum + p.data * (1 - self.sizes.momentum)

    def train(self, mode: bool = True) -> "AlbefReference":
        super().train(mode)
        if not self.teacher_dropout:
            for _, teacher in self.pairs():
                teacher.eval()
        return self

    @torch.no_grad()
    def enqueue(self, image_feat: Tensor, text_feat: Tensor, image_ids: Tensor | None, text_ids: Tensor | None) -> None:
        """Overwrite the oldest columns. The published code asserts that the batch divides the queue; here the writing wraps around."""
        size, start = self.sizes.queue_size, int(self.queue_ptr) if self.queue_ptr.device.type != "meta" else 0
        for row in range(len(image_feat)):
            column = (start + row) % size
            self.image_queue[:, column] = image_feat[row]
            self.text_queue[:, column] = text_feat[row]
            if image_ids is not None:
                self.image_id_queue[column] = image_ids[row]
            if text_ids is not None:
                self.text_id_queue[column] = text_ids[row]
        self.queue_ptr[0] = (start + len(image_feat)) % size

    def mask_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """15 % of the tokens but PAD and CLS; of these 80 % become [MASK], 10 % a random word, 10 % stay. Labels are -100 elsewhere."""
        z, ids, labels = self.sizes, ids.clone(), ids.clone()
        chosen = torch.bernoulli(torch.full(ids.shape, z.mlm_probability, device=ids.device)).bool()
        chosen[(ids == z.pad_id) | (ids == z.cls_id)] = False
        labels[~chosen] = -100
        replaced = torch.bernoulli(torch.full(ids.shape, 0.8, device=ids.device)).bool() & chosen
        ids[replaced] = z.mask_id
        random = torch.bernoulli(torch.full(ids.shape, 0.5, device=ids.device)).bool() & chosen & ~replaced
        ids[random] = torch.randint(z.vocab_size, ids.shape, device=ids.device)[random]
        return ids, labels

    @torch.no_grad()
    def draw_negatives(self, sim_i2t: Tensor, sim_t2i: Tensor, same: Tensor) -> tuple[list[int], list[int]]:
        """One picture for each text, then one text for each picture, from this batch, by similarity; `same` (B, B) pairs are excluded."""
        b = len(sim_i2t)
        weights_i2t = sim_i2t[:, :b].float().softmax(dim=1).masked_fill(same, 0)
        weights_t2i = sim_t2i[:, :b].float().softmax(dim=1).masked_fill(same, 0)
        images = [int(torch.multinomial(weights_t2i[row], 1).item()) for row in range(b)]
        texts = [int(torch.multinomial(weights_i2t[row], 1).item()) for row in range(b)]
        return images, texts

    def positives(self, image: Tensor, image_ids: Tensor | None, text_ids: Tensor | None) -> Tensor:
        """(B, B + Q) targets whose rows sum to one: the diagonal, or every column with an equal id (model_retrieval's rule)."""
        if image_ids is None:
            return torch.eye(len(image), len(image) + self.sizes.queue_size, device=image.device, dtype=image.dtype)
        equal = image_ids[:, None] == torch.cat([image_ids, self.image_id_queue])[None]
        if text_ids is not None:
            equal = equal | (text_ids[:, None] == torch.cat([text_ids, self.text_id_queue])[None])
        return equal.to(image.dtype) / equal.sum(dim=1, keepdim=True)

    def forward(
        self,
        image: Tensor,
        ids: Tensor,
        mask: Tensor,
        alpha: float,
        *,
        image_ids: Tensor | None = None,
        text_ids: Tensor | None = None,
        masked_ids: Tensor | None = None,
        labels: Tensor | None = None,
        negative_images: Tensor | None = None,
        negative_texts: Tensor | None = None,
    ) -> Losses:
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        b, bert, mask = len(image), self.text_encoder.bert, mask.to(torch.int64)

        image_tokens = self.visual_encoder(image)
        image_feat = F.normalize(self.vision_proj(image_tokens[:, 0]), dim=-1)
        text_tokens = bert.text(ids, mask)
        text_feat = F.normalize(self.text_proj(text_tokens[:, 0]), dim=-1)

        targets = self.positives(image, image_ids, text_ids)
        with torch.no_grad():
            self.update_teacher()
            image_tokens_m = self.visual_encoder_m(image)
            image_feat_m = F.normalize(self.vision_proj_m(image_tokens_m[:, 0]), dim=-1)
            text_feat_m = F.normalize(self.text_proj_m(self.text_encoder_m.bert.text(ids, mask)[:, 0]), dim=-1)
            image_all = torch.cat([image_feat_m.t(), self.image_queue.clone().detach()], dim=1)  # (D, B + Q)
            text_all = torch.cat([text_feat_m.t(), self.text_queue.clone().detach()], dim=1)
            soft_i2t = alpha * F.softmax(image_feat_m @ text_all / self.temp, dim=1) + (1 - alpha) * targets
            soft_t2i = alpha * F.softmax(text_feat_m @ image_all / self.temp, dim=1) + (1 - alpha) * targets
        sim_i2t = image_feat @ text_all / self.temp
        sim_t2i = text_feat @ image_all / self.temp
        loss_i2t = -torch.sum(F.log_softmax(sim_i2t, dim=1) * soft_i2t, dim=1).mean()
        loss_t2i = -torch.sum(F.log_softmax(sim_t2i, dim=1) * soft_t2i, dim=1).mean()
        self.enqueue(image_feat_m, text_feat_m, image_ids, text_ids)

        fused = bert.fusion(text_tokens, mask, image_tokens)
        if negative_images is None or negative_texts is None:
            negative_images, negative_texts = self.draw_negatives(sim_i2t, sim_t2i, targets[:, :b] > 0)
        images_neg = torch.stack([image_tokens[n] for n in negative_images])
        texts_neg = torch.stack([text_tokens[n] for n in negative_texts])
        masks_neg = torch.stack([mask[n] for n in negative_texts])
        fused_neg = bert.fusion(
            torch.cat([text_tokens, texts_neg]), torch.cat([mask, masks_neg]), torch.cat([images_neg, image_tokens])
        )
        logits = self.itm_head(torch.cat([fused[:, 0], fused_neg[:, 0]]))
        matched = torch.cat([torch.ones(b, dtype=torch.long), torch.zeros(2 * b, dtype=torch.long)]).to(image.device)
        loss_itm = F.cross_entropy(logits, matched)

        if masked_ids is None or labels is None:
            masked_ids, labels = self.mask_tokens(ids)
        with torch.no_grad():
            soft = F.softmax(self.text_encoder_m.vocabulary_logits(masked_ids, mask, image_tokens_m), dim=-1)
        scores = self.text_encoder.vocabulary_logits(masked_ids, mask, image_tokens)
        hard_loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=-100)
        chosen = (labels != -100).to(scores.dtype)
        soft_loss = (-torch.sum(F.log_softmax(scores, dim=-1) * soft, dim=-1) * chosen).sum() / chosen.sum()
        return Losses(mlm=(1 - alpha) * hard_loss + alpha * soft_loss, ita=(loss_i2t + loss_t2i) / 2, itm=loss_itm)


def adamw(model: nn.Module, lr: float = 1e-4, weight_decay: float = 0.02, reference: bool = True) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.999), eps 1e-8; decay spares vectors and biases and, unless `reference`, temperature, tokens, embeddings."""
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spare = parameter.ndim == 1 or name.endswith(".bias")
        if not reference:
            spare |= name == "temp" or name.endswith(("cls_token", "pos_embed")) or "_embeddings." in name
        (spared if spare else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, foreach=False, fused=False)
