"""`alignlab convert merge`: the merged model says what base and adapter say, notes both, and refuses what it should."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.files.checksums import check_sums
from alignlab.models.language.new import llama
from alignlab.models.language.paths import write_base
from alignlab.models.language.reward import RewardModel, load_reward_model

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

peft = pytest.importorskip("peft")
TOKENIZER = built_in_tokenizer(300)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter with random matrices beside a base in bfloat16 with tied embeddings."""
    torch.manual_seed(0)
    net = llama(width=32, depth=2, heads=4, context_length=64, vocabulary=vocabulary_of(TOKENIZER)).bfloat16()
    net.save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    net.name_or_path = str(tmp_path / "base")
    tuned = peft.get_peft_model(net.float(), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    write_base(tmp_path / "adapter", str(tmp_path / "base"))
    return tmp_path / "adapter"


def test_one_model_of_two(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target, base = tmp_path / "whole", tmp_path / "base"
    assert main(["convert", "merge", str(adapter), str(target)]) == 0
    check_sums(target, "whole")
    whole = AutoModelForCausalLM.from_pretrained(target)
    assert whole.dtype == torch.bfloat16 and not hasattr(whole, "peft_config")
    ids = torch.tensor([[1, 7, 9, 20, 33, 4]])
    start = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        before = start(ids).logits
        wanted = peft.PeftModel.from_pretrained(start, adapter)(ids).logits
        rounded = whole.float()(ids).logits  # stored as the base is, in bfloat16
    assert (before - wanted).abs().max() > 10 * (rounded - wanted).abs().max()
    assert AutoTokenizer.from_pretrained(target)("a film") == TOKENIZER("a film")
    note = json.loads((target / "merged.json").read_text())
    assert note["base"] == str(base) and len(note["base_fingerprint"]) == len(note["adapter_fingerprint"]) == 32

    capsys.readouterr()
    for source, words in ((adapter, "whole is there already"), (base, "has no adapter")):
        assert main(["convert", "merge", str(source), str(target if source is adapter else tmp_path / "new")]) == 2
        assert words in capsys.readouterr().err
    weights = next(base.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["convert", "merge", str(adapter), str(tmp_path / "other")]) == 2
    assert "has changed since it was trained" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_reward_adapter_becomes_a_classifier(adapter: Path, tmp_path: Path) -> None:
    head = RewardModel(AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32))
    head.mean.fill_(0.5)
    head.save_head(adapter)
    ids = torch.tensor([[1, 7, 9, 20, 33, 4]])
    before = load_reward_model(adapter)(ids, ids > 0)
    assert main(["convert", "merge", str(adapter), str(tmp_path / "whole")]) == 0
    after = load_reward_model(tmp_path / "whole")
    torch.testing.assert_close(after(ids, ids > 0), before, rtol=0.05, atol=0.05)  # stored in bfloat16
    assert after.mean.item() == 0.5
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits[0], after(ids, ids > 0), rtol=1e-2, atol=1e-2)
