"""Log-probabilities, values and masks of a rollout against plain forward passes of single rows."""

from alignlab.inference.backend import ModelSource, Sampling
from alignlab.methods.rlhf.parts import micro_batches
from alignlab.methods.rlhf.rollout import (
    Responses,
    evaluate,
    generate,
    prompts_of,
    request_seeds,
)
from alignlab.methods.rlhf.sampler import verify_head
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.lora import add_lora
from tiny_policy import END, PAD, PlainBackend, Prompts, make_model

import pytest
import torch
from torch.testing import assert_close

# End and padding tokens inside prompts and responses are tokens like any other: rows are told apart by lengths alone.
PROMPTS = [[3, 5], [END, 4, PAD, 7], [6]]
ANSWERS = [[8, PAD, END], [9], [10, 11, 12, 13, 14]]
RESPONSES = Responses(PROMPTS, ANSWERS, [True, False, False], [[0.0] * len(a) for a in ANSWERS])


def net(critic: str = "shared", peft: bool = False) -> ActorCritic:
    model = make_model(0)
    model = add_lora(model, rank=4, alpha=8) if peft else model
    found = ActorCritic(model, critic)
    for name, parameter in found.named_parameters():
        if "value_head" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return found


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_against_single_rows(micro_batch: int, temperature: float) -> None:
    found = net()
    t = evaluate(found, RESPONSES, temperature=temperature, micro_batch=micro_batch)
    assert t.mask.sum(1).tolist() == [3, 1, 5] and t.ended.tolist() == [True, False, False]
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        with torch.no_grad():
            whole = torch.tensor([prompt + answer])
            output = found.model(input_ids=whole, output_hidden_states=True)
            log_p = (output.logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(1)
            value = found.value_head(output.hidden_states[-1][0, len(prompt) - 1 : -1])
        n = len(answer)
        assert_close(t.logprob[row, :n], log_p[torch.arange(n), answer], rtol=1e-5, atol=1e-5)
        assert_close(t.entropy[row, :n], -(log_p.exp() * log_p).sum(1), rtol=1e-5, atol=1e-5)
        assert_close(t.value[row, :n], value, rtol=1e-5, atol=1e-5)
        assert not t.logprob[row, n:].any() and not t.value[row, n:].any()
    assert_close(t.reference, t.logprob, rtol=1e-5, atol=1e-6)


def test_values_reach_one_place_further_with_the_score_after_the_last_token() -> None:
    found = net()
    t = evaluate(found, RESPONSES, temperature=1.0, micro_batch=2, position="after_last")
    plain = evaluate(found, RESPONSES, temperature=1.0, micro_batch=2)
    with torch.no_grad():
        states = found.hidden(torch.tensor([PROMPTS[0] + ANSWERS[0]]))[0, -1]
        assert_close(t.value[0, 3], found.value(states), rtol=1e-5, atol=1e-5)
    assert torch.equal(t.value[t.mask], plain.value[plain.mask]) and not t.value[0, 4:].any()


def test_adapters_off_are_the_reference_and_another_adapter_is_the_critic() -> None:
    found = net("separate", peft=True)
    t = evaluate(found, RESPONSES, temperature=1.0, micro_batch=2)
    base = evaluate(net(), RESPONSES, temperature=1.0, micro_batch=2)
    assert_close(t.reference, base.logprob, rtol=1e-5, atol=1e-5)
    assert (t.logprob - t.reference).abs().max() > 0.1
    ids = torch.tensor([PROMPTS[1] + ANSWERS[1]])
    states = found.hidden(ids)
    assert not torch.equal(found.critic_hidden(ids, states), states)
    assert torch.equal(found.hidden(ids), states), "the policy's adapter is active again"
    with found.as_reference() as model:
        assert_close(model(input_ids=ids).logits, make_model(0)(input_ids=ids).logits, rtol=1e-5, atol=1e-5)


def test_prompts_lose_their_padding_and_nothing_else() -> None:
    batch = Prompts(4).batch(0)
    batch.ids[0, -1] = PAD  # a padding token that belongs to the prompt
    prompts = prompts_of(batch, 2)
    assert [len(p) for p in prompts[::2]] == batch.mask.sum(1).tolist() and prompts[0] == prompts[1]
    assert prompts[0][-1] == PAD


def test_an_empty_prompt_and_one_that_is_too_long() -> None:
    backend = PlainBackend()
    backend.load(ModelSource("", model=make_model(0)))
    sampling = Sampling(4, 1.0)
    with pytest.raises(ValueError, match="prompt 1 of a batch is empty"):
        generate(backend, [[3], []], [0, 1], sampling)
    with pytest.raises(ValueError, match=r"a prompt of 3 tokens and response_length=4 exceed the model's context of 6"):
        generate(backend, [[3, 4, 5]], [0], sampling, context=6)
    found = generate(backend, [[3], [4, 5]], [0, 1], sampling, context=6)
    assert [len(a) for a in found.responses] == [len(p) for p in found.logprobs]


def test_seeds_belong_to_places_in_the_joint_batch() -> None:
    whole = request_seeds(1, 5, 0, 8)
    assert request_seeds(1, 5, 0, 4) + request_seeds(1, 5, 4, 4) == whole
    assert not set(whole) & {*request_seeds(1, 6, 0, 8), *request_seeds(2, 5, 0, 8)}


def test_rows_of_like_length_go_together() -> None:
    assert micro_batches([0, 1, 2, 3], [5, 1, 4, 2], 2) == [[1, 3], [2, 0]]


def test_a_model_that_does_more_than_its_output_layer_is_refused() -> None:
    found = net()
    verify_head(found, torch.tensor([[3, 4, 5]]), 1e-4)
    plain = found.model.forward

    def capped(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = torch.tanh(output.logits)
        return output

    found.model.forward = capped
    with pytest.raises(
        ValueError, match="LlamaForCausalLM is not supported: its logits are more than its output layer"
    ):
        verify_head(found, torch.tensor([[3, 4, 5]]), 1e-4)


def test_no_dropout_anywhere() -> None:
    model = add_lora(make_model(0), rank=4, alpha=8, dropout=0.5)
    found = ActorCritic(model)
    assert all(part.p == 0.0 for part in found.modules() if isinstance(part, torch.nn.Dropout))
    assert not any(part.training for part in found.modules())
    checkpointed = make_model(0)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    assert ActorCritic(checkpointed).model.model.layers[0].training, (
        "gradient checkpointing works in training mode only"
    )
