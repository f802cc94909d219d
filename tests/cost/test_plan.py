"""`alignlab plan`: exact counts, the formula's parts, activations against what autograd keeps, the command."""

from dataclasses import replace

from alignlab.cli import main
from alignlab.cost.model_sizes import _counted, sizes
from alignlab.cost.plan import WEIGHT_BYTES, Training, activations, plan
from alignlab.models.language.lora import add_lora
from alignlab.models.language.trunk import checkpoint_activations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def test_counts_are_exact():
    neox = sizes("gpt-neox-20b")
    assert neox.total == 20_554_567_680 and neox.linear / 1e9 == pytest.approx(19.931, abs=1e-3)
    assert neox.lora(16, ["query_key_value"]) == 44 * 16 * (6144 + 3 * 6144)
    assert neox.lora(16, "all-linear") / 1e6 == pytest.approx(69.2, abs=0.05)
    bloom = sizes("bloom-7b1")
    assert bloom.total == 7_069_016_064 and bloom.linear / 1e9 == pytest.approx(6.040, abs=1e-3)
    assert sizes("llama-2-7b").total == 6_738_415_616 and sizes("smollm2-135m").total == 134_515_008


def test_a_20b_policy_in_int8_fits_24_gb_with_short_texts_only():
    neox, settings = (
        sizes("gpt-neox-20b"),
        {"quantization": "int8", "lora_targets": ["query_key_value"], "gradient_checkpointing": True},
    )
    short = plan(neox, Training(batch_size=1, prompt=8, response=16, rollout_batch=16, **settings))
    assert short.phases["update"]["weights"] / 1e9 == pytest.approx(21.18, abs=0.02)
    assert short.peak[1] < 24e9 and short.dominant[0] == "weights"
    long = plan(neox, Training(batch_size=1, prompt=256, response=256, rollout_batch=16, **settings))
    assert long.phases["generate"]["kv cache"] / 1e9 == pytest.approx(8.86, abs=0.05)
    assert long.peak[0] == "generate" and long.peak[1] > 24e9
    full = plan(neox, Training(batch_size=1, lora_rank=None, shared_trunk=False))
    assert full.peak[1] > 287e9
    with pytest.raises(ValueError, match="--lora-rank"):
        plan(neox, Training(quantization="int8", lora_rank=None))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(checkpointing, lora, dtype):
    if lora is not None:
        pytest.importorskip("peft")
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    net = LlamaForCausalLM(config).to(getattr(torch, dtype))
    found = _counted("x", net)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    if checkpointing:
        checkpoint_activations(net)
    model = net.model if lora is None else add_lora(net, rank=lora).base_model.model.model
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(torch.zeros(3, 40, dtype=torch.long), use_cache=False)
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    job, width = Training(lora_rank=lora, dtype=dtype, gradient_checkpointing=checkpointing), WEIGHT_BYTES[dtype]
    predicted = activations(found, job, 3 * 40, width)
    if checkpointing:  # without the one layer that is recomputed at a time, in the backward pass
        whole = activations(found, replace(job, gradient_checkpointing=False), 3 * 40, width)
        ends = 3 * 40 * 64 * width * 2
        predicted -= (whole - ends) / 4
    assert 0.8 < predicted / measured < 1.2, (predicted, measured)


def test_the_command(capsys):
    arguments = [
        "plan",
        "gpt-neox-20b",
        "--stage",
        "ppo",
        "--quantization",
        "int8",
        "--memory",
        "24",
        "--prompt",
        "8",
        "--response",
        "16",
    ]
    assert (
        main([*arguments, "--lora-targets", "query_key_value", "--gradient-checkpointing", "--rollout-batch", "16"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "20.555e9 parameters" in shown and "weights dominates" in shown and "fits in 24 GB" in shown
    assert main(["plan", "no-such-model"]) == 2 and "is neither a folder nor one of" in capsys.readouterr().err
