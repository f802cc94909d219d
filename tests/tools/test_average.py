"""`alignlab average`: the mean says what the mean of the weights says, adapters are merged first, and nets that don't fit are refused."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.files.checksums import check_sums
from alignlab.models.language.new import llama
from alignlab.models.language.paths import write_base

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

TOKENIZER = built_in_tokenizer(300)


def write(folder: Path, seed: int, width: int = 16, tokenizer: PreTrainedTokenizerBase = TOKENIZER) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    net = llama(width=width, depth=1, heads=2, context_length=32, vocabulary=vocabulary_of(tokenizer))
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return net.eval()


def test_the_mean(tmp_path: Path) -> None:
    nets = [write(tmp_path / str(seed), seed) for seed in range(3)]
    places = [str(tmp_path / str(seed)) for seed in range(3)]
    assert main(["average", str(tmp_path / "mean"), *places, "--shares", "0.5", "0.75", "-0.25"]) == 0
    check_sums(tmp_path / "mean", "mean")
    mean = AutoModelForCausalLM.from_pretrained(tmp_path / "mean")
    for name, value in mean.state_dict().items():
        wanted = sum(share * net.state_dict()[name] for share, net in zip((0.5, 0.75, -0.25), nets, strict=True))
        torch.testing.assert_close(value, wanted)
    assert mean.get_input_embeddings().weight is mean.get_output_embeddings().weight
    assert AutoTokenizer.from_pretrained(tmp_path / "mean")("a film") == TOKENIZER("a film")
    note = json.loads((tmp_path / "mean" / "averaged.json").read_text())
    assert [row["share"] for row in note] == [0.5, 0.75, -0.25] and len({row["fingerprint"] for row in note}) == 3


def test_adapters_are_merged_first(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    start = write(tmp_path / "base", 0)
    start.name_or_path = str(tmp_path / "base")
    tuned = peft.get_peft_model(start, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    torch.nn.init.normal_(next(value for name, value in tuned.named_parameters() if "lora_B" in name))
    tuned.save_pretrained(tmp_path / "adapter")
    write_base(tmp_path / "adapter", str(tmp_path / "base"))
    assert main(["average", str(tmp_path / "mean"), str(tmp_path / "base"), str(tmp_path / "adapter")]) == 0
    name = "model.layers.0.self_attn.q_proj.weight"
    before, mean = (AutoModelForCausalLM.from_pretrained(tmp_path / f).state_dict()[name] for f in ("base", "mean"))
    after = tuned.merge_and_unload().state_dict()[name]
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(mean, (before + after) / 2)


def test_what_does_not_fit_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "wide", 0, width=32)
    write(tmp_path / "words", 0, tokenizer=built_in_tokenizer(310))
    for others, more, words in (
        (["wide"], [], "another net than"),
        (["words"], [], "another tokenizer than"),
        ([], [], "two models or more"),
        (["a"], ["--shares", "0.5", "0.6"], "add to 1"),
        (["a"], ["--shares", "1"], "one for each of 2"),
    ):
        places = [str(tmp_path / name) for name in ("a", *others)]
        assert main(["average", str(tmp_path / "mean"), *places, *more]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "mean").exists()
