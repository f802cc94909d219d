"""New pieces for a script: what they save is what was counted, other text and a model's logits on it stay."""

import json
import random
from pathlib import Path

from alignlab.cli import main
from alignlab.tokenizers.continued_merges import Learner, implies, of_script, pure
from alignlab.tokenizers.extension import Extension, check_old_texts, extend_model, learn
from alignlab.tokenizers.kinds.hugging_face import Fast
from alignlab.tokenizers.opening import open_tokenizer
from tiny_tokenizers import CHINESE, ENGLISH, byte_bpe, sentencepiece_model

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

WORDS = ["磁盘", "软件包", "服务器", "地址", "名称", "防火墙", "版本", "安装"]
OLD = ["Les été, naïve; ① 〇 → ÿ…", *ENGLISH, "привет こんにちは 한국 🙂", "\u4dc0 hexagram, \u3007 and 、。"]


def _texts(count: int) -> list[str]:
    draw = random.Random(1)
    ends = ["，", "。", " apt ", "12.4", ""]
    return [*CHINESE, *("".join(draw.choice(WORDS) + draw.choice(ends) for _ in range(8)) for _ in range(count))]


def _falling_back(folder: Path) -> Fast:
    special = [("<unk>", 0, 2), ("<s>", 0, 3), *((f"<0x{n:02X}>", 0, 6) for n in range(256))]
    letters = [(char, -10.0 - n, 1) for n, char in enumerate("▁abcdeinst软件")]
    return open_tokenizer(
        str(sentencepiece_model(folder / "m.model", [*special, ("▁a", -1.0, 1), *letters])), package=False
    )[0]


@pytest.fixture(params=["bytes", "characters with bytes to fall back on"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Fast:
    if request.param == "bytes":
        return open_tokenizer(str(byte_bpe(tmp_path / "tokenizer.json", texts=ENGLISH)))[0]
    return _falling_back(tmp_path)


def test_what_is_saved_is_what_was_counted(base: Fast) -> None:
    texts = _texts(40)
    extension = learn(base, texts, 60, "han")
    assert 20 < len(extension.ids) <= 60
    extended = extension.tokenizer()
    before, after = (sum(map(len, tokenizer.encode(texts))) for tokenizer in (base, extended))
    assert before - after == sum(merge.saved for merge in extension.merges), "no token more, no token less"
    assert after < 0.5 * before
    assert extended.decode(extended.encode(texts)) == base.decode(base.encode(texts)) == texts
    assert extended.tokenizer.token_to_id("<s>") == base.tokenizer.token_to_id("<s>"), "added tokens keep their ids"
    half = extension.first(len(extension.ids) // 2)
    assert after < sum(map(len, half.tokenizer().encode(texts))) < before
    saved = [merge.saved for merge in extension.merges]
    assert saved[0] == max(saved)
    for index, parts in extension.parts().items():
        old = base.decode([parts])[0].lstrip() if base.style == "sentencepiece" else base.decode([parts])[0]
        assert old == extended.decode([[index]])[0].strip() or "\ufffd" in old


def test_other_text_is_cut_as_before(base: Fast) -> None:
    extension = learn(base, [*_texts(40), *OLD], 80, "han")
    assert check_old_texts(extension, OLD) == len(OLD)
    if base.style == "bytes":
        merged = learn(base, ["диск диск диск"], 9, "cyrillic")
        with pytest.raises(ValueError, match="cut otherwise"):
            check_old_texts(merged, ["диск"])
    taken = Extension(base, [], {"disk": base.tokenizer.get_vocab()["<s>"], "<s>": 9999})
    with pytest.raises(ValueError, match="'<s>' was"):
        check_old_texts(taken, [])


def test_first_merge_is_the_most_frequent_pair() -> None:
    words = [(list("磁盘磁盘"), 3), (list("盘磁x"), 5), (list("盘盘盘"), 1)]
    merges = Learner(words, {}, lambda a, b: "x" not in a + b).learn(2)
    assert merges[0] == ("盘", "磁", 8), "3 in the first, 5 in the second"
    assert merges[1][:2] in (("磁", "盘盘"), ("盘磁", "盘"), ("磁", "盘磁")), merges
    missing = Learner([(list("磁盘"), 2)], {"磁": 3}, lambda a, b: True).learn(5)
    assert missing == [("磁", "", 4), ("磁", "盘", 2)], "a character first gets a piece, then a neighbour"


def test_bytes_that_only_a_script_has() -> None:
    han = of_script("han")
    assert implies("磁".encode(), han) and implies(b" \xe5", han) and implies("盘".encode()[1:] + "a磁".encode(), han)
    assert not implies(b"\xe4", han), "may become a hexagram, U+4DC0"
    assert implies(b"\xe4\xb8", han) and not implies(b"\xb8\xad", han) and not implies("é, 、".encode(), han)
    assert pure(" 磁盘".encode(), han) and not pure("磁，".encode(), han) and not pure(b"a\xe5", han)


def test_a_models_logits_on_old_text_stay(tmp_path: Path) -> None:
    byte_bpe(tmp_path / "old" / "tokenizer.json", texts=ENGLISH)
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    torch.manual_seed(0)
    size = Tokenizer.from_file(str(tmp_path / "old" / "tokenizer.json")).get_vocab_size()
    config = GPTNeoXConfig(
        vocab_size=size + 3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "old")
    (tmp_path / "zh.txt").write_text("\n".join([*_texts(30), *ENGLISH]))
    words = ["tokenizers", "extend", str(tmp_path / "old"), "--corpus", str(tmp_path / "zh.txt"), "--pieces", "20"]
    assert main([*words, "--model", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 0
    old, new = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("old", "new"))
    before, after = (open_tokenizer(str(tmp_path / name))[0] for name in ("old", "new"))
    assert after.size == before.size + 20 and (tmp_path / "new" / "tokenizer_config.json").is_file()
    for text in OLD:
        ids = torch.tensor(after.encode([text]))
        assert ids.tolist() == before.encode([text])
        with torch.no_grad():
            theirs, ours = old(ids).logits[..., :size], new(ids).logits[..., :size]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    extension = learn(before, _texts(30), 20, "han")
    index, parts = next(iter(extension.parts().items()))
    change = extend_model(old, extension)
    assert change < 1e-6 and len(parts) > 1
    table = old.get_input_embeddings().weight
    torch.testing.assert_close(table[index], table[parts].mean(0))
    torch.testing.assert_close(
        old.get_output_embeddings().weight[index], old.get_output_embeddings().weight[parts].mean(0)
    )


def test_what_cannot_be_extended(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    (tmp_path / "t.txt").write_text("磁盘\n")
    for place, line in ((str(tmp_path), "WordPiece tokenizer can't be extended"), ("bytes", "can't be extended")):
        assert main(["tokenizers", "extend", place, "--corpus", str(tmp_path / "t.txt")]) == 2
        assert line in capsys.readouterr().err
