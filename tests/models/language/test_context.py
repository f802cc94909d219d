"""A model's longest context is found in one place, and texts that exceed it are refused before the first step, in all stages."""

import json
import logging
from functools import partial

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.tokenizer import built_in_tokenizer
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.reward import RewardMethod
from alignlab.methods.sft import SftMethod
from alignlab.models.language.context import context_length
from alignlab.models.language.loading import pretrained, pretrained_encoder
from alignlab.optim.adamw import adamw
from alignlab.systems.choosing import system_of
from tiny_policy import count_letters, trainer

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MptConfig,
    OPTConfig,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
)  # fmt: skip

LONG = " ".join(["a"] * 40)
OPTIM = partial(adamw, lr=1e-3)
ROWS = {
    "sft": {"prompt": LONG, "completion": " yes"},
    "preference": {"prompt": LONG, "chosen": " yes", "rejected": " no"},
    "prompt": {"prompt": LONG},
}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (GPT2Config(n_positions=24), 24),
        (LlamaConfig(max_position_embeddings=48), 48),
        (OPTConfig(max_position_embeddings=24), 24),
        (RobertaConfig(max_position_embeddings=26, pad_token_id=1), 24),
        (XLMRobertaConfig(max_position_embeddings=26, pad_token_id=1), 24),
        (BertConfig(max_position_embeddings=24), 24),
        (MptConfig(max_seq_len=24), 24),
        (BloomConfig(), None),
        (FalconConfig(alibi=True), None),
        (MambaConfig(), None),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_longest_context_by_config(config, wanted):
    assert context_length(config) == wanted


def test_a_table_after_the_padding_holds_as_many_as_said():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = RobertaModel(RobertaConfig(vocab_size=9, max_position_embeddings=26, pad_token_id=1, **sizes)).eval()
    assert model(torch.full((1, context_length(model.config)), 3)).last_hidden_state.shape[1] == 24
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 25), 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of 24 positions: a table (gpt2, bert) or rotations (llama)."""
    place, tokenizer = tmp_path_factory.mktemp("models"), built_in_tokenizer(300)
    sizes = {
        "vocab_size": 300,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    models = {
        "gpt2": GPT2LMHeadModel(
            GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=2, n_positions=24, eos_token_id=2)
        ),
        "bert": BertModel(BertConfig(max_position_embeddings=24, **sizes)),
        "llama": LlamaForCausalLM(LlamaConfig(max_position_embeddings=24, **sizes)),
    }
    for name, model in models.items():
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def fit(folder, tmp_path, kind, make, model, max_length):
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(ROWS[kind]) + "\n") * 2)
    module = LanguageDataModule(
        OwnRows,
        path=str(file),
        val_path=str(file),
        kind=kind,
        tokenizer=str(folder / model),
        max_length=max_length,
        batch_size=1,
    )
    module.setup()
    build = partial(pretrained_encoder if model == "bert" else pretrained, path=str(folder / model))
    run = trainer(tmp_path, 1)
    run.fit(system_of(partial(make, build), vocabulary=module.vocabulary, optim=OPTIM), datamodule=module)
    return run.global_step


GRPO = partial(GrpoMethod, reward=count_letters, response_length=4, group_size=2)
STAGES = [
    ("sft", SftMethod, "gpt2"),
    ("preference", partial(RewardMethod, pool="mean"), "bert"),
    ("preference", DpoMethod, "gpt2"),
    ("prompt", GRPO, "gpt2"),
]


@pytest.mark.parametrize(("kind", "make", "model"), STAGES)
def test_too_long_texts_are_refused_before_the_first_step(folder, tmp_path, kind, make, model):
    fits = 20 if kind == "prompt" else 24
    with pytest.raises(ValueError, match=rf"tokens.*\(max_length=64\), the model 24 positions: set max_length={fits}"):
        fit(folder, tmp_path, kind, make, model, 64)
    if kind == "prompt":
        assert fit(folder, tmp_path, kind, make, model, fits) >= 1


def test_rotations_go_on_with_a_warning(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert fit(folder, tmp_path, "sft", SftMethod, "llama", 64) == 1
    assert caplog.text.count("the model 24 positions: set max_length=24; it goes on beyond") == 1
