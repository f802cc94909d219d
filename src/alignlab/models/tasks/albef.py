"""What becomes of an ALBEF that is fine-tuned for a task: its encoder, and a head.

Legend: B rows, P pictures of a row, S image tokens, T tokens of text, W text width, C classes, A answers, L tokens of
an answer, V vocabulary, N candidates, G groups.
"""

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from alignlab.models.albef import Albef, AlbefEncoder, initialise_bert, run_layer
from alignlab.models.bert import ImageState, attention_bias
from alignlab.types.pairs import ImageEncoding, TextEncoding
from alignlab.types.picture_tasks import Answers

ANSWERS_PER_PASS = 64  # of each question, that are decoded together


class TaskNet(nn.Module):
    """The encoder of an ALBEF; what the task doesn't use of it stays as it is and isn't trained.

    Args:
        albef: gives its encoder.
        idle: parts of the encoder that the task doesn't use.
    """

    def __init__(self, albef: Albef, idle: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = albef.encoder
        for name in idle:
            getattr(self.encoder, name).requires_grad_(False)

    def settle(self, loaded: Collection[str]) -> None:
        """Begins what is new and has a model in the encoder, when weights of these names were loaded into the rest."""

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D) and tokens (B, S, vision width)."""
        return self.encoder.encode_image(image)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D) and tokens (N, T, W)."""
        return self.encoder.encode_text(ids, mask)


class FusedClassifier(TaskNet):
    """Two linear maps with a ReLU between them on the fused [CLS]."""

    def __init__(self, albef: Albef, classes: int) -> None:
        super().__init__(albef, ("image_projection", "text_projection", "language_head"))
        if classes < 2:
            raise ValueError(f"classes={classes}: there must be at least 2 to choose from")
        width = self.encoder.embeddings.word.embedding_dim
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 1, 3, H, W), (B, T), (B, T) -> logits (B, C)."""
        # salesforce/ALBEF b9727e4 models/model_ve.py:28-32, 53-66
        states = self.encoder.image_states(self.encoder.vision.tokens(image[:, 0]))
        fused = self.encoder.fuse(self.encoder.text_tokens(ids, mask), mask, states)
        return self.head(fused.matching)


class PairClassifier(FusedClassifier):
    """As `FusedClassifier`, about two pictures: every fusion layer stands twice, one after the other, for the first
    picture and for the second. The two begin alike and share the projection of keys and values.
    """

    def __init__(self, albef: Albef, classes: int) -> None:
        super().__init__(albef, classes)
        self.second = copy.deepcopy(self.encoder.fusion)
        for layer in self.second:
            layer.cross_attention.key_value = None  # its states are made by the layer for the first picture

    @torch.no_grad()
    def settle(self, loaded: Collection[str]) -> None:
        """Layers for the second picture that weren't loaded begin as those for the first."""
        if not any(name.startswith("second.") for name in loaded):
            for own, first in zip(self.second, self.encoder.fusion, strict=True):
                own.load_state_dict(first.state_dict(), strict=False)

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 2, 3, H, W), (B, T), (B, T) -> logits (B, C)."""
        # salesforce/ALBEF b9727e4 models/model_nlvr.py:57-93, xbert.py:485-495
        encoder = self.encoder
        tokens = encoder.vision.tokens(image.transpose(0, 1).flatten(0, 1))
        pictures = [encoder.image_states(half) for half in tokens.chunk(2)]
        states = [state for both in zip(*pictures, strict=True) for state in both]
        layers = [layer for both in zip(encoder.fusion, self.second, strict=True) for layer in both]
        return self.head(encoder.fuse(encoder.text_tokens(ids, mask), mask, states, layers=layers).matching)


class AnswerDecoder(nn.Module):
    """Writes an answer word by word while it looks at a question that has seen the picture.

    Layers, embeddings and language head are copies of the fusion layers', embeddings and head of an encoder, and are
    trained apart from them.
    """

    def __init__(self, encoder: AlbefEncoder) -> None:
        super().__init__()
        self.embeddings, self.language_head = map(copy.deepcopy, (encoder.embeddings, encoder.language_head))
        self.layers = copy.deepcopy(encoder.fusion)
        self.gradient_checkpointing = encoder.gradient_checkpointing
        width = encoder.embeddings.word.embedding_dim
        for layer in self.layers:
            if layer.cross_attention.key_value.in_features != width:  # pictures are of another width than texts
                layer.cross_attention.key_value = nn.Linear(width, 2 * width)
                initialise_bert(layer.cross_attention.key_value, width)

    @torch.no_grad()
    def begin_as(self, encoder: AlbefEncoder) -> None:
        """Takes an encoder's weights, as far as they fit."""
        # salesforce/ALBEF b9727e4 VQA.py:154-180
        pairs = ((self.embeddings, encoder.embeddings), (self.language_head, encoder.language_head))
        for own, theirs in (*pairs, (self.layers, encoder.fusion)):
            given = theirs.state_dict()
            fitting = {name: given[name] for name, x in own.state_dict().items() if given[name].shape == x.shape}
            own.load_state_dict(fitting, strict=False)

    def states(self, question: Tensor, mask: Tensor) -> list[ImageState]:
        """Keys and values of questions for every layer, projected once: (B, T, W), (B, T)."""
        bias = attention_bias(mask, question.dtype)
        return [layer.image_state(question)._replace(bias=bias) for layer in self.layers]

    def forward(self, ids: Tensor, mask: Tensor, states: list[ImageState]) -> Tensor:
        """Logits (A, L, V) of what follows each token of answers (A, L), (A, L), in whole groups of the states' B
        questions, the b-th of a group answering question b.
        """
        x = self.embeddings(ids)
        bias = attention_bias(mask, x.dtype, causal=True)
        for layer, state in zip(self.layers, states, strict=True):
            x = run_layer(layer, self.gradient_checkpointing, x, bias, state)
        return self.language_head(x, self.embeddings.word.weight)


class AnsweringNet(TaskNet):
    """An encoder that reads question and picture, and a decoder that answers (arXiv:2107.07651, sec. 4, VQA)."""

    def __init__(self, albef: Albef) -> None:
        super().__init__(albef, ("image_projection", "text_projection", "language_head"))
        self.decoder = AnswerDecoder(self.encoder)

    def settle(self, loaded: Collection[str]) -> None:
        """A decoder that wasn't loaded begins as the fusion layers."""
        if not any(name.startswith("decoder.") for name in loaded):
            self.decoder.begin_as(self.encoder)

    def ask(self, image: Tensor, ids: Tensor, mask: Tensor) -> list[ImageState]:
        """What answers look at: (B, 3, H, W), (B, T), (B, T) -> the fused question's keys and values."""
        (rows, length), encoder = ids.shape, self.encoder
        states, every = encoder.image_states(encoder.vision.tokens(image)), torch.arange(ids.numel(), device=ids.device)
        tokens = encoder.text_tokens(ids, mask)
        fused = encoder.fuse(tokens, mask, states, masked_rows=slice(0, rows), masked_position=every).masked
        return self.decoder.states(fused.view(rows, length, -1), mask)

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor, answers: Answers, question: Tensor) -> Tensor:
        """Logits (A, L - 1, V) of the answers' words after [CLS]; question (A,) says which each answers."""
        states = [state.of(question) for state in self.ask(image, ids, mask)]
        return self.decoder(answers.ids[:, :-1], answers.mask[:, :-1], states)

    def log_likelihood(self, states: list[ImageState], answers: Answers) -> tuple[Tensor, Tensor]:
        """Sum over words of log p(word | words before, question, picture), and the first word's part of it.

        answers (G * B, L), in whole groups of the states' B questions -> 2 x (G * B,), float32.
        """
        ids, mask = answers
        logprob = self.decoder(ids[:, :-1], mask[:, :-1], states).float().log_softmax(2)
        words = logprob.gather(2, ids[:, 1:, None]).squeeze(2) * mask[:, 1:]
        return words.sum(1), words[:, 0]

    def rank(
        self, states: list[ImageState], candidates: Answers, shortlist: int | None = None, *, twice: bool = False
    ) -> Tensor:
        """Log-likelihood of N candidates as answers to each of B questions: (B, N), minus infinity for what isn't on a
        question's shortlist: so many whose first word is likeliest.

        twice: the first word counts twice, as in the published code.
        """
        rows, number = len(states[0].key), len(candidates.ids)
        if shortlist is None or shortlist >= number:
            chosen = torch.arange(number, device=candidates.ids.device).repeat(rows, 1)
        else:
            start, there = candidates.ids[:1, :1].expand(rows, 1), candidates.mask[:1, :1].expand(rows, 1)
            first = self.decoder(start, there, states)[:, 0]
            chosen = first.index_select(1, candidates.ids[:, 1]).topk(shortlist).indices
        scores = candidates.ids.new_full((rows, number), -torch.inf, dtype=torch.float32)
        for some in chosen.split(ANSWERS_PER_PASS, 1):
            index = some.T.flatten()  # groups of B
            whole, first = self.log_likelihood(states, Answers(*(x.index_select(0, index) for x in candidates)))
            scores.scatter_(1, some, (whole + first if twice else whole).view(-1, rows).T)
        return scores

    def write(self, states: list[ImageState], cls_id: int, sep_id: int, most: int) -> Answers:
        """The likeliest word after the other until [SEP], at most so many: (B, 1 + most), of which the mask tells what
        belongs to the answer, [SEP] included.
        """
        # salesforce/ALBEF has no free answers; greedy ones here
        device = states[0].key.device
        ids = torch.full((len(states[0].key), 1), cls_id, device=device)
        mask = torch.ones_like(ids, dtype=torch.bool)
        for _ in range(most):
            word = self.decoder(ids, mask, states)[:, -1:].argmax(2)
            going = mask[:, -1:] & (ids[:, -1:] != sep_id)
            ids, mask = torch.cat([ids, word], 1), torch.cat([mask, going], 1)
        return Answers(ids, mask)
