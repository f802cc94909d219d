"""ALBEF's tasks written a second time, plainly: what they compute on the oracle's encoders (`albef_reference`), student and teacher.

Legend: B rows, T tokens, W width, C classes, A answers, L tokens of an answer, V vocabulary.
"""

import copy

from albef_reference import AlbefReference
from albef_reference_encoders import TextModel
from alignlab.models.albef_checkpoint import bert_names

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Sequential):
    """Two linear maps with a ReLU between them."""

    def __init__(self, width: int, classes: int):
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


class EntailmentReference(nn.Module):
    """arXiv:2107.07651, sec. 4: a head on the fused [CLS], and the teacher's opinion on its logits."""

    def __init__(self, albef: AlbefReference, classes: int):
        super().__init__()
        self.albef, self.head = albef, Head(albef.sizes.text_width, classes)
        self.head_m = copy.deepcopy(self.head).requires_grad_(False)

    def judged(self, image: Tensor, ids: Tensor, mask: Tensor, m: str = "") -> Tensor:
        """Logits (B, C) of the student, or with "_m" of the teacher."""
        vision, bert = getattr(self.albef, f"visual_encoder{m}"), getattr(self.albef, f"text_encoder{m}").bert
        tokens, mask = vision(image[:, 0]), mask.to(torch.int64)
        return getattr(self, f"head{m}")(bert.fusion(bert.text(ids, mask), mask, tokens)[:, 0])

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor, label: Tensor, alpha: float) -> Tensor:
        logits = self.judged(image, ids, mask)
        with torch.no_grad():
            teacher = self.judged(image, ids, mask, "_m").softmax(1)
        return (1 - alpha) * F.cross_entropy(logits, label) - alpha * (teacher * logits.log_softmax(1)).sum(1).mean()


class VqaReference(nn.Module):
    """Question and picture through all text layers, an answer through a causal decoder whose every layer looks at their states."""

    def __init__(self, albef: AlbefReference):
        super().__init__()
        z = albef.sizes
        # a decoder's "picture" is as wide as a text, and all of its layers look at it
        sizes = z._replace(text_layers=z.text_layers - z.fusion_layer, fusion_layer=0, vision_width=z.text_width)
        self.albef, self.decoder, self.decoder_m = albef, TextModel(sizes), TextModel(sizes)
        self.decoder_m.requires_grad_(False)

    def logits(self, batch: tuple, m: str = "") -> Tensor:
        """What each word of each answer but the last one is followed by: (A, L - 1, V)."""
        image, ids, mask, (answer_ids, answer_mask), question = batch
        vision, bert = getattr(self.albef, f"visual_encoder{m}"), getattr(self.albef, f"text_encoder{m}").bert
        states = bert.fusion(bert.text(ids, mask.long()), mask.long(), vision(image))
        decoder: TextModel = getattr(self, f"decoder{m}")
        rows = []
        for number, asked in enumerate(question.tolist()):
            own = answer_ids[number : number + 1, : int(answer_mask[number].sum())]
            length = own.shape[1]
            later = torch.full((length, length), -10000.0, dtype=states.dtype).triu(1)[None, None]
            x, seen = decoder.bert.embeddings(own), states[asked : asked + 1, : int(mask[asked].sum())]
            for layer in decoder.bert.encoder.layer:
                x = layer(x, later, seen, torch.zeros(1, dtype=states.dtype))
            rows.append(decoder.cls.predictions(x)[0, :-1])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def forward(self, image, ids, mask, answers, question, weight: Tensor, alpha: float) -> Tensor:
        batch = (image, ids, mask, answers, question)
        logits = self.logits(batch).log_softmax(2)
        with torch.no_grad():
            teacher = self.logits(batch, "_m").softmax(2)
        total = 0.0
        for row, (own, length) in enumerate(zip(answers[0], answers[1].sum(1).tolist(), strict=True)):
            for place in range(length - 1):
                hard = -logits[row, place, own[place + 1]]
                soft = -(teacher[row, place] * logits[row, place]).sum()
                total = total + weight[row] * ((1 - alpha) * hard + alpha * soft)
        return total / len(image)


def decoder_named(model: TextModel, of: str = "value") -> dict[str, Tensor]:
    """The decoder's weights, or with of="grad" its gradients, by the names of `AnswerDecoder`."""
    theirs = {name: x if of == "value" else x.grad for name, x in model.state_dict(keep_vars=True).items()}
    ours = {"language_head.bias": theirs["cls.predictions.bias"]}
    for name, parts in bert_names(0, len(model.bert.encoder.layer)):
        for kind in ("weight", "bias"):
            stack = [theirs[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in theirs]
            if stack:
                ours[f"{name.replace('fusion.', 'layers.')}.{kind}"] = torch.cat(stack)
    return {name: x.detach() for name, x in ours.items()}


class Nlvr2Reference(EntailmentReference):
    """Every fusion layer twice, for the first picture and the second, with the first's keys and values; a head on [CLS]."""

    def __init__(self, albef: AlbefReference, classes: int):
        super().__init__(albef, classes)
        layers = [
            model.bert.encoder.layer[albef.sizes.fusion_layer :] for model in (albef.text_encoder, albef.text_encoder_m)
        ]
        self.second, self.second_m = (nn.ModuleList(map(copy.deepcopy, own)) for own in layers)

    def judged(self, image: Tensor, ids: Tensor, mask: Tensor, m: str = "") -> Tensor:
        vision, bert = getattr(self.albef, f"visual_encoder{m}"), getattr(self.albef, f"text_encoder{m}").bert
        x, additive = bert.text(ids, mask.long()), bert.additive(mask.long(), image.dtype)
        nothing = torch.zeros(1, dtype=image.dtype)
        first = bert.encoder.layer[bert.fusion_layer :]
        for one, other in zip(first, getattr(self, f"second{m}"), strict=True):
            for name in ("key", "value"):
                setattr(other.crossattention.self, name, getattr(one.crossattention.self, name))
            x = one(x, additive, vision(image[:, 0]), nothing)
            x = other(x, additive, vision(image[:, 1]), nothing)
        return getattr(self, f"head{m}")(x[:, 0])


def second_gradients(reference: Nlvr2Reference) -> dict[str, Tensor]:
    """Gradients of the layers for the second picture, by the names of `PairClassifier.second`."""
    theirs = {f"bert.encoder.layer.{name}": p.grad for name, p in reference.second.named_parameters()}
    ours = {}
    for name, parts in bert_names(0, len(reference.second)):
        for kind in ("weight", "bias"):
            stack = [theirs[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in theirs]
            if stack and "cross_attention.key_value" not in name:
                ours[f"net.{name.replace('fusion.', 'second.')}.{kind}"] = torch.cat(stack)
    return ours
