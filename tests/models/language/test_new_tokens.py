"""Tokens that a model hasn't known: their rows begin as the mean of their pieces, are trained under LoRA, and travel."""

import json
from functools import partial
from pathlib import Path

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.tokenizer import add_tokens
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.sft import SftMethod
from alignlab.models.language.loading import load_language_model, pretrained
from alignlab.models.language.lora import add_lora, reference, train_only
from alignlab.models.language.paths import load_tokenizer
from tiny_policy import WORDS, make_tokenizer, save_model

import pytest
import torch
from torch import nn
from torch.testing import assert_close

NEW = ("great_film", "<|quite|>")
ADDED = range(len(WORDS), len(WORDS) + 2)


def data(folder: Path, base: str, kind: str) -> LanguageDataModule:
    """Rows in which the first new token is asked for and answered; the second is a control token."""
    sft = [{"prompt": f"a {w} was", "completion": " great_film and <|quite|>"} for w in WORDS[4:18]]
    pairs = [{"prompt": f"a {w}", "chosen": " great_film", "rejected": " dull"} for w in WORDS[4:18]]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, sft if kind == "sft" else pairs)))
    path = str(folder / "rows.jsonl")
    made = LanguageDataModule(
        OwnRows, path=path, kind=kind, tokenizer=base, batch_size=8, val_share=0.3, new_tokens=list(NEW)
    )
    made.setup()
    return made


def trained(method: nn.Module, batch: tuple, steps: int = 5) -> None:
    optimizer = torch.optim.AdamW([p for p in method.net.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        method(batch).loss.backward()
        optimizer.step()


@pytest.fixture(params=[True, False], ids=["tied", "apart"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return save_model(tmp_path / "base", tie_word_embeddings=request.param)


def tables(net: nn.Module) -> list[torch.Tensor]:
    ends = (net.get_input_embeddings(), net.get_output_embeddings())
    return [end.weight.detach().clone() for end in ends]


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=2)], ids=["whole", "lora"])
def test_rows_are_trained_and_exported(base: str, tmp_path: Path, peft: object) -> None:
    made = data(tmp_path, base, "sft")
    before = tables(load_language_model(base))
    method = SftMethod(partial(pretrained, path=base), vocabulary=made.vocabulary, peft=peft)
    start = tables(method.net)
    for old, table in zip(before, start, strict=True):
        assert torch.equal(table[: len(old)], old) and len(table) == len(old) + 2
        assert_close(table[ADDED[0]], old[list(made.vocabulary.added[0])].mean(0))
    batch = next(iter(made.train_dataloader()))
    assert ADDED[0] in batch.ids.flatten()[batch.target], "text is read with the new token"
    assert ADDED[1] not in batch.ids, "what people wrote is never a control token"
    trained(method, batch)
    rows = tables(method.net)
    for was, now in zip(start, rows, strict=True):
        assert not torch.equal(was[ADDED[0]], now[ADDED[0]])
        assert torch.equal(was[: ADDED[0]], now[: ADDED[0]]) == (peft is not None)
    method.eval()
    with torch.no_grad():
        wanted = method.log_probs(batch)
        method.export(tmp_path / "run" / "export")
        assert_close(method.log_probs(batch), wanted)
    made.tokenizer.save_pretrained(tmp_path / "run" / "export")
    again = load_language_model(str(tmp_path / "run"))
    assert not hasattr(again, "peft_config") and again.config.vocab_size == len(WORDS) + 2
    plain = SftMethod(lambda vocabulary: again, vocabulary=made.vocabulary).eval()
    with torch.no_grad():
        assert_close(plain.log_probs(batch), wanted, rtol=1e-4, atol=1e-5)
    assert load_tokenizer(str(tmp_path / "run"))("great_film")["input_ids"] == [ADDED[0]]


def test_the_reference_has_the_rows_as_they_began(base: str, tmp_path: Path) -> None:
    made = data(tmp_path, base, "preference")
    net = partial(pretrained, path=base)
    method = DpoMethod(net, vocabulary=made.vocabulary, peft=partial(add_lora, rank=2), cache_reference=False)
    batch = next(iter(made.train_dataloader()))
    before = method.reference_log_probs(batch, "train")
    trained(method, batch)
    assert_close(method.reference_log_probs(batch, "train"), before)
    with torch.no_grad(), reference(method.net):
        rows = method.net.get_input_embeddings()(torch.tensor(list(ADDED)))
    assert_close(rows, tables(pretrained(base, vocabulary=made.vocabulary))[0][list(ADDED)])
    assert not torch.equal(rows, tables(method.net)[0][list(ADDED)])
    train_only(method.net, None)
    assert not any(parameter.requires_grad for parameter in method.net.parameters())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([" "], "' ' is empty"), (["<a>", "<a>"], "'<a>' stands twice")],
)
def test_what_is_no_new_token(tokens: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_tokens(make_tokenizer(), tokens)


def test_known_tokens_and_quantised_bases(tmp_path: Path) -> None:
    assert add_tokens(make_tokenizer(), ["film", "<b>"]) == ((0,),), "film is known; <b> was unknown text"
    base = save_model(tmp_path / "base")
    vocabulary = data(tmp_path, base, "sft").vocabulary
    with pytest.raises(ValueError, match="quantization=int8: a base for new tokens must not be quantised"):
        pretrained(base, quantization="int8", vocabulary=vocabulary)
