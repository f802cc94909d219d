"""Tiny language models, a backend without tricks and prompts, for tests of reinforcement learning."""

from collections.abc import Callable, Sequence
from pathlib import Path

from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request
from alignlab.types.language import LanguageVocabulary, PromptBatch

import lightning
import torch
from torch.utils.data import DataLoader

WORDS = [
    "[PAD]",
    "[END]",
    "[START]",
    *"the a film actor plot was is and not good bad great dull very quite so . ,".split(),
]
PAD, END = 0, 1
VOCABULARY = LanguageVocabulary(len(WORDS), PAD, 2, END)


def make_tokenizer():
    """Words by number."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[PAD]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        eos_token="[END]",
        bos_token="[START]",
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int = 0, scale: float = 8.0, **changes: int):
    """A random Llama whose distribution is far from uniform, so that a wrong temperature or place shows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    sizes |= {"vocab_size": len(WORDS), "max_position_embeddings": 64}
    config = LlamaConfig(**(sizes | {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 2} | changes))
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    return model


def save_model(folder: Path, **settings) -> str:
    """Model and tokenizer in Hugging Face's format."""
    make_model(**settings).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


class PlainBackend:
    """Samples by one whole forward pass for each token of each request: slow, and nothing that could go wrong."""

    name = "plain"

    def available(self) -> Availability:
        return Availability(True, "")

    def load(self, source: ModelSource) -> LoadReport:
        self.model = source.model
        return LoadReport(0.0, 0, 0)

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], *, on_token=None, on_done=None) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        generator = torch.Generator().manual_seed(request.seed)
        ids, logprobs = list(request.ids), []
        for _ in range(request.sampling.max_new_tokens):
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            logits = logits / (request.sampling.temperature or 1.0)
            chosen = int(torch.multinomial(logits.softmax(0), 1, generator=generator))
            if request.sampling.temperature == 0:
                chosen = int(logits.argmax())
            logprobs.append(float(logits.log_softmax(0)[chosen]))
            ids.append(chosen)
            if chosen == END:
                break
        new = ids[len(request.ids) :]
        return Completion(new, logprobs, "eos" if new[-1] == END else "length")


class Prompts(lightning.LightningDataModule):
    """Random openings of one to four words, new ones in every batch, dealt out over ranks."""

    def __init__(self, batch_size: int = 8, num_batches: int = 100) -> None:
        super().__init__()
        self.batch_size, self.num_batches, self.vocabulary = batch_size, num_batches, VOCABULARY
        self.tokenizer = make_tokenizer()

    def batch(self, number: int, ranks: int = 1, rank: int = 0) -> PromptBatch:
        g = torch.Generator().manual_seed(number)
        size = self.batch_size * ranks
        ids = torch.randint(3, len(WORDS), (size, 4), generator=g)
        length = torch.randint(1, 5, (size, 1), generator=g)
        mask = torch.arange(4) >= 4 - length
        part = slice(rank * self.batch_size, (rank + 1) * self.batch_size)
        return PromptBatch(torch.where(mask, ids, PAD)[part], mask[part], torch.arange(size)[part])

    def _loader(self, first: int, number: int) -> DataLoader:
        trainer = self.trainer
        where = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        return DataLoader([self.batch(first + i, *where) for i in range(number)], batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader(0, self.num_batches)

    def val_dataloader(self) -> DataLoader:
        return self._loader(1000, 2)


def count_good(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward that is easy to learn: how much of a response is the word good."""
    return [response.split().count("good") / max(len(response.split()), 1) for response in responses]


def count_letters(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward for any tokenizer."""
    return [response.count("e") - 0.1 * len(response) for response in responses]


def constant_rate(lr: float) -> Callable[..., dict]:
    """AdamW at a constant rate."""
    from functools import partial

    from alignlab.optim.adamw import adamw

    return partial(adamw, lr=lr, weight_decay=0.0, schedule="constant", eps=1e-5)


def trainer(folder: Path, max_steps: int, **settings) -> lightning.Trainer:
    """A quiet trainer on the CPU."""
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        default_root_dir=str(folder),
        **(
            {
                "devices": 1,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "limit_val_batches": 0,
                "use_distributed_sampler": False,
            }
            | settings
        ),
    )


def sgd(module: torch.nn.Module) -> dict:
    """Plain gradient descent: a step is the gradient."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)},
    }
