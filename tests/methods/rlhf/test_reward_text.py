"""A reward model reads of a rollout what its own training would have made of the same words: with a template's line break, in another vocabulary."""

import json
from functools import partial
from pathlib import Path

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rendering import Renderer
from alignlab.data.language.tokenizer import built_in_tokenizer
from alignlab.methods.language_models.export import export_model
from alignlab.methods.ppo import PpoMethod
from alignlab.methods.rlhf.reward import ModelReward
from alignlab.methods.rlhf.reward_text import RewardText, Scored
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.loading import pretrained
from alignlab.models.language.reward import RewardModel
from alignlab.systems.choosing import system_of
from tiny_policy import constant_rate, make_model, trainer

import pytest
import torch
from torch.testing import assert_close

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER = (
    "<bos>{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|stop|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
QUESTION = [{"role": "system", "content": "be short"}, {"role": "user", "content": "is it good?"}]


def chat_tokenizer(size: int, template: str | None, end: str):
    tokenizer = built_in_tokenizer(size)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", end]})
    tokenizer.chat_template = template
    return tokenizer


def saved(folder: Path, tokenizer, reward: bool) -> str:
    """A random model of the tokenizer's size, as the export of a run."""
    model = make_model(1, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=tokenizer.eos_token_id)
    if reward:
        torch.manual_seed(2)
        whole = RewardModel(model)
        export_model(model, folder / "export")
        whole.save_head(folder / "export")
    else:
        model.save_pretrained(folder / "export")
    tokenizer.save_pretrained(folder / "export")
    return str(folder)


@pytest.fixture(scope="module")
def mine():
    tokenizer = chat_tokenizer(400, CHATML, "<|im_end|>")
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, mine) -> str:
    return saved(tmp_path_factory.mktemp("models") / "policy", mine, reward=False)


@pytest.fixture(scope="module", params=["same vocabulary", "another vocabulary"])
def reward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mine, base: str) -> ModelReward:
    tokenizer = mine if request.param == "same vocabulary" else chat_tokenizer(500, OTHER, "<|stop|>")
    found = ModelReward(saved(tmp_path_factory.mktemp("models") / "reward", tokenizer, reward=True), normalised=False)
    found.bind(ActorCritic(pretrained(base, vocabulary=_vocabulary(mine))), mine)
    found.read_as_trained(Renderer(mine, 64), ())
    return found


def _vocabulary(tokenizer):
    from alignlab.data.language.tokenizer import vocabulary_of

    return vocabulary_of(tokenizer)


def rollout(mine, content, answer: str, ended: bool = True) -> Scored:
    """What the policy's side has: ids up to the token that stopped it, texts without control tokens."""
    prompt = Renderer(mine, 64).prompt(content)
    ids = mine.encode(answer, add_special_tokens=False) + [mine.eos_token_id] * ended
    texts = mine.batch_decode([prompt, ids], skip_special_tokens=True)
    return Scored(texts[:1], texts[1:], [prompt + ids], [ended], [content])


@pytest.mark.parametrize("content", [QUESTION, "is it good?"], ids=["chat", "plain"])
def test_rollouts_score_as_the_texts_of_training(reward: ModelReward, mine, content) -> None:
    own = Renderer(reward.tokenizer or mine, 64)
    for answer in (" yes, it is", " no"):
        said = answer if isinstance(content, str) else [{"role": "assistant", "content": answer}]
        trained = own.example(content, said).ids
        assert_close(reward(rollout(mine, content, answer)), reward.of_ids([trained]), rtol=1e-5, atol=1e-5)
        cut = reward.text.rows(rollout(mine, content, answer, ended=False))[0]
        assert trained[: len(cut)] == cut and len(cut) < len(trained), "a cut response has no end"


def test_control_tokens_reach_another_vocabulary(reward: ModelReward, mine) -> None:
    row = reward.text.rows(rollout(mine, QUESTION, " yes"))[0]
    if reward.tokenizer is None:
        assert row.count(mine.convert_tokens_to_ids("<|im_end|>")) >= 3
    else:
        assert row.count(reward.tokenizer.convert_tokens_to_ids("<|stop|>")) == 3
        assert "[system]" in reward.tokenizer.decode(row)


def test_strings_of_control_tokens_are_text_in_another_vocabulary() -> None:
    """Also where nobody knows what a prompt was rendered from: "<eos>" in a response ended the text."""
    own = chat_tokenizer(500, OTHER, "<|stop|>")
    said = Scored(["good <bos>"], [" <eos> day <|stop|>"], [[]], [False], None)
    (row,) = RewardText(None, own).rows(said)
    assert [id for id in row if id in own.all_special_ids] == [own.bos_token_id] == row[:1]
    assert own.decode(row[1:]).strip() == "good <bos> <eos> day <|stop|>"


class GoesOn(Renderer):
    """Training texts of chats go on behind the end of the last turn."""

    def example(self, prompt, response):
        found = super().example(prompt, response)
        line = [] if isinstance(prompt, str) else self.tokenizer.encode("\n", add_special_tokens=False)
        return found._replace(ids=[*found.ids, *line], response=[*found.response, *[True] * len(line)])


def test_what_training_has_behind_the_end_is_added(reward: ModelReward, mine) -> None:
    if reward.tokenizer is not None:
        return
    renderer = GoesOn(mine, 64)
    text = RewardText(renderer)
    row = text.rows(rollout(mine, QUESTION, " yes"))[0]
    assert row == renderer.example(QUESTION, [{"role": "assistant", "content": " yes"}]).ids
    assert mine.decode(row).endswith("\n") and row[-1] != mine.eos_token_id
    plain = text.rows(rollout(mine, "is it good?", " yes"))[0]
    assert plain[-1] == mine.eos_token_id
    stopped = rollout(mine, "is it good?", " yes,", ended=False)._replace(ended=[True])  # by a stop token that is text
    assert text.rows(stopped)[0] == [*stopped.sequences[0], mine.eos_token_id]


def test_a_reading_that_differs_from_training_is_refused(
    reward: ModelReward, mine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reward.tokenizer is not None:
        return
    before = reward.text
    monkeypatch.setattr(RewardText, "closed", lambda self, ids, content: ids)
    with pytest.raises(ValueError, match="reads rollouts otherwise than its training did") as caught:
        reward.read_as_trained(GoesOn(mine, 64), ())
    assert "\n" not in str(caught.value).replace("\\n", "")
    reward.text = before


class Kept(ModelReward):
    """Keeps what it was asked and what it answered."""

    def __call__(self, batch: Scored) -> torch.Tensor:
        if len(batch.ended) > 1:
            self.asked, self.answered = batch, super().__call__(batch)
            return self.answered
        return super().__call__(batch)


def test_ppo_hands_its_prompts_on(reward: ModelReward, mine, base: str, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": [{"role": "user", "content": f"is film {i} good?"}]}) for i in range(40)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    data = LanguageDataModule(
        OwnRows,
        path=str(tmp_path / "prompts.jsonl"),
        kind="prompt",
        batch_size=8,
        max_length=40,
        tokenizer=base,
        val_share=0.2,
    )
    data.setup()
    kept = Kept(reward.path, normalised=False)
    net = partial(pretrained, path=base)
    method = partial(PpoMethod, net, kept, response_length=6)
    system = system_of(method, vocabulary=data.vocabulary, optim=constant_rate(1e-3))
    trainer(tmp_path, 1).fit(system, datamodule=data)
    own = Renderer(kept.tokenizer or mine, 1000)
    assert all(content[0]["content"].startswith("is film") for content in kept.asked.contents)
    for content, response, ended, score in zip(
        kept.asked.contents, kept.asked.responses, kept.asked.ended, kept.answered, strict=True
    ):
        if kept.tokenizer is None and not ended:
            continue  # ids that a text would not give again
        trained = own.example(content, [{"role": "assistant", "content": response}]).ids
        row = trained if ended else trained[: -len(kept.text.closing(True))]
        assert_close(score, kept.of_ids([row])[0], rtol=1e-4, atol=1e-4)
