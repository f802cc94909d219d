"""Language models: padding and packing change nothing, dropout by hooks, paths, heads that scale."""

from alignlab.data.language.batches import TokenStore, token_batch
from alignlab.data.language.rendering import Rendered
from alignlab.models.language.loading import load_language_model, pretrained
from alignlab.models.language.new import add_dropout, encoder, llama
from alignlab.models.language.paths import load_tokenizer, resolve_model
from alignlab.models.language.trunk import head_of, hidden_states
from tiny_language import NET, WORDS, texts

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig

KINDS = {
    "llama": LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    ),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=64, bos_token_id=1, eos_token_id=2),
    "gpt_neox": GPTNeoXConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    ),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=50),
}


def make(kind: str, attention: str | None = None):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(KINDS[kind], attn_implementation=attention).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_right_padding_without_a_mask_changes_nothing(kind):
    model, (ids, mask) = make(kind), texts([9, 5, 7])
    padded = hidden_states(model, ids)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = hidden_states(model, ids[row : row + 1, :length])
        torch.testing.assert_close(padded[row : row + 1, :length], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "attention"), [("llama", "sdpa"), ("llama", "eager"), ("gpt2", "sdpa"), ("gpt_neox", "sdpa")]
)
def test_packed_texts_do_not_see_each_other(kind, attention):
    model, lengths = make(kind, attention), [6, 3, 5, 4]
    ids = [torch.randint(3, 50, (n,)).tolist() for n in lengths]
    store = TokenStore([Rendered(row, [True] * len(row)) for row in ids])
    batch = token_batch(store, [[0, 1], [2, 3]])
    packed = hidden_states(model, batch.ids, document=batch.document, position=batch.position)
    for index, (row, start) in enumerate([(0, 0), (0, 6), (1, 0), (1, 5)]):
        alone = hidden_states(model, torch.tensor([ids[index]]))[0]
        torch.testing.assert_close(packed[row, start : start + lengths[index]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_on_hidden_states_is_the_model(kind):
    model, (ids, _) = make(kind), texts([8, 8])
    torch.testing.assert_close(head_of(model)(hidden_states(model, ids)), model(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("gemma2", {"head_dim": 8}), ("cohere", {"logit_scale": 0.25}), ("granite", {"logits_scaling": 3.0})],
)
def test_heads_that_scale_or_cap(kind, settings):
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        kind, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, **settings,
    )  # fmt: skip
    model, (ids, _) = AutoModelForCausalLM.from_config(config).eval(), texts([5, 5])
    torch.testing.assert_close(head_of(model)(hidden_states(model, ids)), model(ids).logits, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone_and_leaves_weights_and_gradients():
    torch.manual_seed(0)
    model, (ids, _) = NET(vocabulary=WORDS), texts([8, 6])
    names, plain = set(model.state_dict()), hidden_states(model.eval(), ids)
    add_dropout(model, 0.3)
    assert set(model.state_dict()) == names and torch.equal(hidden_states(model, ids), plain)
    model.train()
    assert not torch.equal(hidden_states(model, ids), hidden_states(model, ids))
    head_of(model)(hidden_states(model, ids)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_encoder_looks_both_ways_and_trains_everything():
    net = encoder(width=16, depth=1, heads=2, mlp_width=16, token_dropout=0.5, vocabulary=WORDS)
    ids, mask = texts([6, 4])
    other = ids.clone()
    other[0, 5] = 9
    net.eval()
    assert not torch.allclose(hidden_states(net, ids, mask)[0, 0], hidden_states(net, other, mask)[0, 0])
    net.train()
    hidden_states(net, ids, mask)[mask].square().sum().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert [n for n in without if "key.bias" not in n] == []  # a key's bias shifts all scores of a query alike


def test_a_saved_model_comes_back_from_its_run_directory(tmp_path):
    from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of

    tokenizer = built_in_tokenizer(300)
    model = NET(vocabulary=vocabulary_of(tokenizer)).eval()
    model.save_pretrained(tmp_path / "export")
    tokenizer.save_pretrained(tmp_path / "export")
    assert resolve_model(str(tmp_path)) == (str(tmp_path / "export"), None)
    again, (ids, _) = load_language_model(str(tmp_path)), texts([5])
    assert torch.equal(hidden_states(again, ids), hidden_states(model, ids))
    assert load_tokenizer(str(tmp_path)).encode("the film") == tokenizer.encode("the film")
    assert pretrained(str(tmp_path), vocabulary=WORDS).training
    with pytest.raises(ValueError, match="has 301 ids"):
        pretrained(str(tmp_path), vocabulary=WORDS._replace(size=301))


@pytest.mark.parametrize("path", ["outputs/none", "/none", "a/b/c", "./x"])
def test_paths_that_are_nowhere_are_refused(path):
    with pytest.raises(ValueError, match="there is no such folder"):
        resolve_model(path)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"width=30"):
        llama(width=30, heads=4, vocabulary=WORDS)
    with pytest.raises(ValueError, match=r"width=30"):
        encoder(width=30, heads=4, vocabulary=WORDS)
