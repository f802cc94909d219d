"""Where a text ends is one set: what config, tokenizer and template say together, in training, rollouts, exports and inference."""

import json
import logging
from functools import partial
from types import SimpleNamespace

from alignlab.callbacks.keeping.export import Export
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.tokenizer import built_in_tokenizer
from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.source import open_source
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.sft import SftMethod
from alignlab.models.language.ends import described, ends_of
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.optim.adamw import adamw
from alignlab.systems.choosing import system_of
from recorder import Recorder
from tiny_policy import VOCABULARY, WORDS, Prompts, constant_rate, count_good, make_tokenizer, trainer

import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoConfig, GenerationConfig, GPT2Config, GPT2LMHeadModel

TEMPLATE = (
    "{% for m in messages %}{{ '<bot>' if m['role'] == 'assistant' else '<user>' }}{{ m['content'] }}<turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


def always(token: int, vocabulary: int, **ends) -> GPT2LMHeadModel:
    """A model that says one token whatever came before."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=8, n_layer=1, n_head=2, n_positions=64, **ends))
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()[0] = 1.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[token, 0] = 30.0
    return model


@pytest.fixture
def base(tmp_path):
    """Its config ends texts with <bos> (1), its tokenizer with <eos> (2), its template with <turn> (600)."""
    tokenizer = built_in_tokenizer(600)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = TEMPLATE
    assert tokenizer.convert_tokens_to_ids("<turn>") == 600
    folder = tmp_path / "base"
    always(600, len(tokenizer), eos_token_id=1, bos_token_id=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_one_set_with_its_sources(base):
    tokenizer = built_in_tokenizer(600)
    config, generation = SimpleNamespace(eos_token_id=[2, 7]), GenerationConfig(eos_token_id=8)
    found = ends_of(config, generation, tokenizer, stop_ids=(9,))
    assert found == {2: ["tokenizer", "config"], 8: ["generation_config"], 7: ["config"], 9: ["stop_ids"]}
    assert described({2: found[2]}, tokenizer) == "2 '<eos>' (tokenizer, config)"
    assert ends_of(SimpleNamespace(eos_token_id=None), None, None) == {}
    tokenizer.chat_template = TEMPLATE.replace("<turn>", "")
    assert ends_of(None, None, tokenizer) == {2: ["tokenizer"]}, "a template without an end of turns adds none"


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=2)], ids=["whole", "adapter"])
@pytest.mark.parametrize("backend", [CompiledBackend, TransformersBackend])
def test_what_sft_exports_stops_where_it_learned_to(base, tmp_path, peft, backend, caplog):
    rows = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]
    (tmp_path / "rows.jsonl").write_text((json.dumps({"messages": rows}) + "\n") * 2)
    file = str(tmp_path / "rows.jsonl")
    module = LanguageDataModule(OwnRows, path=file, val_path=file, tokenizer=base, batch_size=1, max_length=32)
    module.setup()
    method = partial(SftMethod, partial(pretrained, path=base), peft=peft)
    system = system_of(method, vocabulary=module.vocabulary, optim=partial(adamw, lr=1e-9))
    run = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Export()], default_root_dir=tmp_path / "run", limit_val_batches=0,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        run.fit(system, datamodule=module)
    assert "a text ends with 2 '<eos>' (tokenizer); 600 '<turn>' (chat template); 1 '<bos>'" in caplog.text
    export = tmp_path / "run" / "export"
    assert GenerationConfig.from_pretrained(export).eos_token_id == [2, 600, 1]
    if peft is None:
        assert AutoConfig.from_pretrained(export).eos_token_id == [2, 600, 1]
    assert open_source(ModelSource(str(tmp_path / "run"))).eos == {1, 2, 600}
    served = backend()
    served.load(ModelSource(str(tmp_path / "run")))
    prompt = module.renderer.prompt(rows[:1])
    (done,) = served.generate([Request(prompt, 0, Sampling(max_new_tokens=5))])
    assert (done.ids, done.finish) == ([600], "eos")


def test_rollouts_end_where_the_tokenizer_ends(tmp_path):
    always(VOCABULARY.eos_id, len(WORDS), eos_token_id=0, bos_token_id=2).save_pretrained(tmp_path / "policy")
    make_tokenizer().save_pretrained(tmp_path / "policy")
    net = partial(pretrained, path=str(tmp_path / "policy"))
    method = partial(GrpoMethod, net, count_good, response_length=4, group_size=2)
    system = system_of(method, vocabulary=VOCABULARY, optim=constant_rate(1e-9))
    recorder = Recorder()
    trainer(tmp_path, 1, callbacks=[recorder]).fit(system, datamodule=Prompts(2))
    assert recorder.rows[0]["objective/ended"] == 1.0 and recorder.rows[0]["objective/response_length"] == 1.0
