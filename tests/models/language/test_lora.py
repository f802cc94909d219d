"""Adapters: what is trained, switching leaves gradients and weights alone, the reference, export and return."""

from pathlib import Path

from alignlab.methods.language_models.export import build_net, export_model
from alignlab.models.language.loading import load_language_model, pretrained
from alignlab.models.language.lora import add_lora, as_reference, has_adapters, reference, use
from alignlab.models.language.paths import note_origin, resolve_model
from alignlab.models.language.trunk import hidden_states
from tiny_language import NET, WORDS, texts

import pytest
import torch

pytest.importorskip("peft")


def adapted(**settings):
    torch.manual_seed(0)
    model = add_lora(NET(vocabulary=WORDS).eval(), rank=4, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def checksum(model) -> float:
    return float(sum(p.double().abs().sum() for n, p in model.named_parameters() if "lora_" not in n))


def test_only_the_adapter_is_trained_and_every_part_of_it_gets_a_gradient():
    model, (ids, _) = adapted(), texts([7, 5])
    hidden_states(model, ids).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == ("lora_" in name), name


def test_switching_leaves_gradients_and_the_base_alone():
    model, (ids, _) = adapted(), texts([7, 5])
    base = NET(vocabulary=WORDS)
    flags, before = [p.requires_grad for p in model.parameters()], checksum(model)
    policy = hidden_states(model, ids)
    with use(model, None):
        off = hidden_states(model, ids)
        assert [p.requires_grad for p in model.parameters()] == flags
        with use(model, "policy"):
            assert torch.equal(hidden_states(model, ids), policy)
        assert torch.equal(hidden_states(model, ids), off)
    assert torch.equal(hidden_states(model, ids), policy) and not torch.allclose(off, policy)
    with reference(model):
        assert torch.equal(hidden_states(model, ids), off)
    model.disable_adapter_layers()
    assert torch.equal(hidden_states(model, ids), off)
    assert [p.requires_grad for p in model.parameters()] != flags  # what peft's own switch does
    assert checksum(model) == before and has_adapters(model) and not has_adapters(base)
    with use(base, "policy"):
        hidden_states(base, ids)
    with pytest.raises(ValueError, match="there is no adapter nobody"), use(model, "nobody"):
        pass


def test_an_exception_inside_switches_back():
    model, (ids, _) = adapted(), texts([4])
    before = hidden_states(model, ids)
    with pytest.raises(RuntimeError), use(model, None):
        raise RuntimeError
    assert torch.equal(hidden_states(model, ids), before)


def saved_base(folder: Path):
    torch.manual_seed(1)
    base = NET(vocabulary=WORDS)
    base.save_pretrained(folder)
    return base


def test_an_adapter_is_exported_alone_where_its_base_can_be_named(tmp_path):
    from functools import partial

    from alignlab.models.language.loading import pretrained

    saved_base(tmp_path / "base")
    net = build_net(partial(pretrained, path=str(tmp_path / "base")), partial(add_lora, rank=4), WORDS)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    export_model(net, tmp_path / "run" / "export")
    assert resolve_model(str(tmp_path / "run")) == (str(tmp_path / "base"), str(tmp_path / "run" / "export"))
    assert not (tmp_path / "run" / "export" / "policy").exists()
    ids, _ = texts([6, 3])
    again = load_language_model(str(tmp_path / "run"))
    torch.testing.assert_close(hidden_states(again, ids), hidden_states(net.eval(), ids), rtol=1e-5, atol=1e-6)
    merged = pretrained(str(tmp_path / "run"), vocabulary=WORDS)
    torch.testing.assert_close(hidden_states(merged, ids), hidden_states(net, ids), rtol=1e-4, atol=1e-5)
    # An adapter trained on top of a merged one has no base on disk: the whole model is written, and training goes on.
    second = build_net(partial(pretrained, path=str(tmp_path / "run")), partial(add_lora, rank=2), WORDS).eval()
    before = hidden_states(second, ids)
    export_model(second, tmp_path / "second" / "export")
    assert resolve_model(str(tmp_path / "second"))[1] is None
    torch.testing.assert_close(
        hidden_states(load_language_model(str(tmp_path / "second")), ids), before, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(hidden_states(second, ids), before, rtol=1e-4, atol=1e-5)


def test_a_frozen_reference_adapter_where_sft_was_an_adapter_itself(tmp_path):
    from functools import partial

    from alignlab.models.language.loading import pretrained

    saved_base(tmp_path / "base")
    sft = build_net(partial(pretrained, path=str(tmp_path / "base")), partial(add_lora, rank=4), WORDS)
    with torch.no_grad():
        for name, parameter in sft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    export_model(sft, tmp_path / "sft")
    model = add_lora(as_reference(load_language_model(str(tmp_path / "sft")), str(tmp_path / "sft")))
    ids, _ = texts([6, 3])
    wanted = hidden_states(sft.eval(), ids)
    torch.testing.assert_close(hidden_states(model, ids), wanted, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (".policy." in name)
            if parameter.requires_grad:
                parameter.add_(0.1)
    assert not torch.allclose(hidden_states(model, ids), wanted, atol=1e-3)
    with reference(model):
        torch.testing.assert_close(hidden_states(model, ids), wanted, rtol=1e-5, atol=1e-6)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"targets=\['nothing'\]"):
        add_lora(NET(vocabulary=WORDS), targets=["nothing"])
    with pytest.raises(ValueError, match=r"rank is 0"):
        add_lora(NET(vocabulary=WORDS), rank=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_merged_adapter_is_the_live_model_tied_or_not(targets: list[str], tied: bool, tmp_path: Path):
    torch.manual_seed(0)
    net = NET(vocabulary=WORDS, tie_embeddings=tied).eval()
    net.save_pretrained(tmp_path / "base")
    model, (ids, _) = add_lora(net, rank=4, targets=targets), texts([7, 5])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
        live = model(ids).logits
    export_model(model, tmp_path / "whole", adapter="policy")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, live) or torch.allclose(model(ids).logits, live, atol=1e-4)
        weights = [
            m.get_base_layer() if hasattr(m, "get_base_layer") else m
            for m in (model.get_input_embeddings(), model.get_output_embeddings())
        ]
        assert (weights[0].weight is weights[1].weight) == tied, "the live model is as it was"
        exported = load_language_model(str(tmp_path / "whole"))(ids).logits
        torch.testing.assert_close(exported, live, atol=1e-4, rtol=1e-4)
        note_origin(model, str(tmp_path / "base"), None)
        export_model(model, tmp_path / "adapter", adapter="policy")
        torch.testing.assert_close(
            load_language_model(str(tmp_path / "adapter"))(ids).logits, live, atol=1e-4, rtol=1e-4
        )
        next_stage = pretrained(str(tmp_path / "adapter"), vocabulary=WORDS)(ids).logits
        torch.testing.assert_close(next_stage, live, atol=1e-4, rtol=1e-4)
