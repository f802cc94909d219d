"""What the tests of language models share: nets, batches and runs of seconds."""

from functools import partial

import recorder
from alignlab.methods.method import Method
from alignlab.methods.step import Step, StepOutput
from alignlab.models.language.new import llama
from alignlab.optim.adamw import adamw
from alignlab.types.language import LanguageVocabulary, PreferenceBatch, TokenBatch

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

WORDS = LanguageVocabulary(size=50, pad_id=2, bos_id=1, eos_id=2)  # padding is the end of text
NET = partial(llama, width=32, depth=2, heads=4, context_length=64)
OPTIM = partial(adamw, lr=3e-3)


def texts(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (B, T), right padded with the end of text, and their mask."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(3, WORDS.size, mask.shape, generator=g)
    ids[:, 0] = WORDS.bos_id
    return ids.masked_fill(~mask, WORDS.pad_id), mask


def token_batch(lengths: list[int], seed: int = 0) -> TokenBatch:
    """One text a row, everything but the first token to predict."""
    ids, mask = texts(lengths, seed)
    position = torch.arange(ids.shape[1]).expand_as(ids) * mask
    target = (mask & (position > 0)).flatten().nonzero().squeeze(1)
    return TokenBatch(ids, mask.long(), position, target, packed=False)


def preference_batch(lengths: list[int], seed: int = 0, share: float = 1.0) -> PreferenceBatch:
    """Pairs of rows i and P + i; the first three tokens of a text are its prompt."""
    ids, mask = texts(lengths, seed)
    pairs = len(lengths) // 2
    ids[:, :3] = ids[:1, :3]
    target = (mask & (torch.arange(ids.shape[1]) > 2)).flatten().nonzero().squeeze(1)
    first = torch.arange(pairs)
    index = torch.arange(len(lengths)) + 100 * seed
    return PreferenceBatch(
        ids, mask, target, first, first + pairs, torch.full((pairs,), share), torch.ones(pairs), index
    )


def fit(system: pl.LightningModule, steps: int, batches: list, **settings) -> list[float]:
    """Trains on a list of batches again and again; the losses."""
    return recorder.fit(system, steps, batches, **settings)[1]


def loop(method: Method, batch: tuple, steps: int) -> tuple[list[float], StepOutput]:
    """Trains a method without a trainer; the losses and the last output. In the first step every parameter gets a gradient."""
    optimizer, losses = torch.optim.AdamW(method.net.parameters(), lr=3e-3), []
    for number in range(steps):
        output = method(batch, Step(number))
        output.loss.backward()
        if not number:
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.net.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    return losses, output


def validated(system: pl.LightningModule, batches: list) -> dict[str, float]:
    """Metrics of a validation."""
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    return trainer.validate(system, DataLoader(batches, batch_size=None), verbose=False)[0]
