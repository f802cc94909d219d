"""Adapters from folders: whatever a reader doesn't use is an error in one line, and what it takes gives peft's own numbers."""

import json
from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.adapters import live_adapters, read_adapter
from alignlab.inference.native.families import describe
from alignlab.models.language.lora import put_on
from alignlab.models.language.new import llama
from alignlab.types.language import LanguageVocabulary

import pytest
import torch
from safetensors.torch import load_file, save_file

peft = pytest.importorskip("peft")
WORDS = LanguageVocabulary(size=50, pad_id=2, bos_id=1, eos_id=2)


def model(depth: int = 2, width: int = 32):
    torch.manual_seed(0)
    return llama(width=width, depth=depth, heads=4, context_length=64, vocabulary=WORDS).eval()


def adapter(folder: Path, depth: int = 2, width: int = 32, targets: list[str] | None = None, **settings) -> Path:
    """An adapter with random matrices, saved by peft."""
    config = peft.LoraConfig(r=4, target_modules=targets or ["q_proj", "down_proj"], **settings)
    net = peft.get_peft_model(model(depth, width), config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    net.save_pretrained(folder)
    return folder


def scores(backend: object, folder: Path, base: Path) -> torch.Tensor:
    backend.load(ModelSource(str(base)))
    backend.set_adapter(str(folder))
    return torch.tensor(backend.score([[1, 7, 9, 20, 33, 4]]))


@pytest.mark.parametrize(
    "settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"down_proj": 3}, "rank_pattern": {"q_proj": 2}}]
)
def test_what_is_read_gives_pefts_numbers(settings: dict, tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", **settings)
    ours, theirs = (scores(kind(), folder, tmp_path / "base") for kind in (CompiledBackend, TransformersBackend))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def edited(folder: Path, change: Callable[[dict], None]) -> Path:
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return folder


def without(folder: Path, part: str) -> Path:
    file = folder / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if part not in name}, file)
    return folder


UNREAD = {
    "trained tokens": (lambda f: adapter(f, trainable_token_indices=[5, 6]), "trained tokens .*5, 6.* are not built into"),
    "an embedding": (lambda f: adapter(f, targets=["q_proj", "embed_tokens"]), "embed_tokens"),
    "the head": (lambda f: adapter(f, targets=["q_proj", "lm_head"]), "lm_head is no linear of this model's blocks"),
    "biases of matrices": (lambda f: adapter(f, lora_bias=True), "LoRA with biases .lora_bias. is not built into"),
    "DoRA": (lambda f: adapter(f, use_dora=True), "DoRA is not built into"),
    "modules": (lambda f: adapter(f, modules_to_save=["lm_head"]), "whole modules .*lm_head.* are not"),
    "one layer of two": (lambda f: adapter(f, depth=1), "no matrices for layers.1.self_attn.q_proj and 1 more.*of 2 layers"),
    "three layers of two": (lambda f: adapter(f, depth=3), "layers.2.* is no linear"),
    "another width": (lambda f: adapter(f, width=48), "takes 96 numbers to 32 in this model, its matrices are .4, 128. and .48, 4."),
    "a half": (lambda f: without(adapter(f), "layers.0.self_attn.q_proj.lora_B"), "layers.0.self_attn.q_proj.lora_A.weight can't be used"),
    "an unknown alpha": (lambda f: edited(adapter(f), lambda c: c.update(lora_alpha="x")), "lora_alpha=x; it must be a number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREAD)
def test_our_own_decoder_refuses_what_it_would_leave_out(kind: str, tmp_path: Path) -> None:
    make, message = UNREAD[kind]
    with pytest.raises(ValueError, match=message) as found:
        read_adapter(make(tmp_path / "a"), describe(model().config))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "kind", ["one layer of two", "three layers of two", "another width", "a half", "an unknown alpha"]
)
def test_peft_does_too(kind: str, tmp_path: Path) -> None:
    folder = UNREAD[kind][0](tmp_path / "a")
    with pytest.raises(ValueError, match=f"adapter={folder}: ") as found:
        put_on(model(), str(folder))
    assert "\n" not in str(found.value) and len(str(found.value)) < 500
    if kind == "another width":
        assert "of other sizes" in str(found.value) and "4, 48" in str(found.value) and "4, 32" in str(found.value)


@pytest.mark.parametrize(
    "kind", ["trained tokens", "an embedding", "the head", "biases of matrices", "DoRA", "modules"]
)
def test_peft_takes_what_ours_does_not(kind: str, tmp_path: Path) -> None:
    folder = UNREAD[kind][0](tmp_path / "a")
    ids = torch.tensor([[1, 7, 9, 20]])
    with torch.no_grad():
        assert not torch.allclose(put_on(model(), str(folder))(ids).logits, model()(ids).logits, atol=1e-3)


@pytest.mark.parametrize(
    "settings", [{"targets": ["q_proj", "embed_tokens"]}, {"lora_bias": True}, {"trainable_token_indices": [5]}]
)
def test_a_live_model_with_more_than_lora_on_its_blocks_is_refused(settings: dict) -> None:
    targets = settings.pop("targets", ["q_proj"])
    live = peft.get_peft_model(model(), peft.LoraConfig(r=4, target_modules=targets, **settings), adapter_name="policy")
    with pytest.raises(ValueError, match="use backend=transformers"):
        live_adapters(live, describe(live.config))
