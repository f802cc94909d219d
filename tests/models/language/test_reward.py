"""Reward models: padding, what is saved comes back, bad folders."""

from functools import partial

from alignlab.methods.language_models.export import build_net, export_model
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.models.language.new import encoder
from alignlab.models.language.reward import RewardModel, load_reward_model, save_classifier
from tiny_language import NET, WORDS, texts

import pytest
import torch
from transformers import AutoModelForSequenceClassification

ENCODER = partial(encoder, width=16, depth=1, heads=2, mlp_width=16)


@pytest.mark.parametrize(("build", "pool"), [(NET, "last"), (NET, "mean"), (ENCODER, "mean")])
def test_padding_on_either_side_changes_nothing(build, pool):
    torch.manual_seed(0)
    model, (ids, mask) = RewardModel(build(vocabulary=WORDS), pool).eval(), texts([8, 5])
    left = torch.stack([ids[0], ids[1].roll(3)]), torch.stack([mask[0], mask[1].roll(3)])
    alone = torch.cat([model(ids[:1], mask[:1]), model(ids[1:, :5], mask[1:, :5])])
    torch.testing.assert_close(model(ids, mask), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(*left), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("build", "pool"), [(NET, "last"), (ENCODER, "mean")])
def test_what_is_saved_comes_back(build, pool, tmp_path):
    model, (ids, mask) = RewardModel(build(vocabulary=WORDS), pool).eval(), texts([8, 5])
    model.mean.fill_(0.5), model.std.fill_(2.0), model.scale.fill_(0.7)
    export_model(model.model, tmp_path / "export")
    model.save_head(tmp_path / "export")
    again = load_reward_model(tmp_path)
    assert torch.equal(again(ids, mask), model(ids, mask)) and not any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(again.normalised(ids, mask), (model(ids, mask) - 0.5) / 2)
    torch.testing.assert_close(again.preference(torch.ones(1), torch.zeros(1)), torch.tensor([0.7]).sigmoid())


def test_an_adapter_with_its_head_comes_back(tmp_path):
    pytest.importorskip("peft")
    NET(vocabulary=WORDS).save_pretrained(tmp_path / "base")
    net = build_net(partial(pretrained, path=str(tmp_path / "base")), partial(add_lora, rank=4), WORDS)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model, (ids, mask) = RewardModel(net).eval(), texts([8, 5])
    export_model(net, tmp_path / "run" / "export")
    model.save_head(tmp_path / "run" / "export")
    assert not (tmp_path / "run" / "export" / "model.safetensors").exists()
    torch.testing.assert_close(load_reward_model(tmp_path / "run")(ids, mask), model(ids, mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [0, WORDS.eos_id])
def test_plain_transformers_gives_the_same_scores(padding, tmp_path):
    vocabulary = WORDS._replace(pad_id=padding)
    model, (ids, mask) = RewardModel(NET(vocabulary=vocabulary)).eval(), texts([8, 5])
    with torch.no_grad():
        model.head.bias.fill_(0.7)  # which comparisons don't see, and transformers' head lacks
        last = mask.sum(1) - 1
        ended = ids.clone()
        ended[torch.arange(2), last] = WORDS.eos_id
        wanted = model(ended, mask) - 0.7
        assert save_classifier(model, tmp_path)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        each = torch.cat([plain(input_ids=row[None, : n + 1]).logits[:, 0] for row, n in zip(ended, last, strict=True)])
        torch.testing.assert_close(each, wanted, rtol=1e-5, atol=1e-6)
        padded = {"input_ids": ended.where(mask, padding), "attention_mask": mask.long()}
        if padding == WORDS.eos_id:
            with pytest.raises(ValueError, match="padding"):  # rather than the state of another token
                plain(**padded)
        else:
            torch.testing.assert_close(plain(**padded).logits[:, 0], wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(load_reward_model(tmp_path)(ended, mask), wanted, rtol=1e-5, atol=1e-6)
    assert not save_classifier(RewardModel(NET(vocabulary=vocabulary), "mean"), tmp_path / "mean")


def test_folders_without_a_reward_model_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no reward model"):
        load_reward_model(tmp_path)
