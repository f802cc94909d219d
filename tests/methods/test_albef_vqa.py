"""VQA: gradients, state, teacher, accumulation; ranking against one answer after the other; free answers; where the decoder begins."""

import tiny_tasks
from alignlab.methods.albef_vqa import AlbefVqaMethod, equal_answers
from alignlab.types.picture_tasks import Answers, QuestionBatch
from tiny_questions import asked, cut
from tiny_training import WORDS

import pytest
import torch


def make(**settings) -> AlbefVqaMethod:
    return tiny_tasks.make(AlbefVqaMethod, **settings)


def test_what_learns_and_what_changes() -> None:
    tiny_tasks.check_gradients(make(), asked(), {"image_projection", "text_projection", "language_head"})
    tiny_tasks.check_state(make(), asked())
    tiny_tasks.check_accumulation(make(), asked(), cut)


def test_the_teacher() -> None:
    tiny_tasks.check_teacher(make, asked())


def test_it_learns_a_batch_and_says_so_by_kind() -> None:
    method, batch = make(distill=False), asked()
    answers = [batch.question.tolist().index(number) for number in range(8)]  # candidates are what is learnt
    batch = batch._replace(candidates=Answers(*(x[answers] for x in batch.answers)), credit=torch.eye(8))
    single = cut(batch._replace(weight=torch.ones(9)), slice(0, 8))
    first = [row not in (2,) for row in range(9)]
    single = single._replace(
        answers=Answers(*(x[first] for x in single.answers)), question=torch.arange(8), weight=torch.ones(8)
    )
    losses = tiny_tasks.trained(method, single, 50, lr=2e-2)
    assert losses[-1] < 0.1 * losses[0]
    found = method.eval().validate(batch)
    assert found["ranked_accuracy"] == 1 and found["free_accuracy"] == 1
    assert method.summarise() == {"ranked_a_accuracy": 1.0, "ranked_b_accuracy": 1.0} and method.summarise() == {}


@torch.no_grad()
def alone(method: AlbefVqaMethod, batch: QuestionBatch, row: int, ids: list[int]) -> list[float]:
    """log p of each word of one answer to one question, each from a pass over the words before it, without padding."""
    mask = batch.mask[row]
    states = method.net.ask(
        batch.image[row : row + 1], batch.ids[row : row + 1, : mask.sum()], mask[None, : mask.sum()]
    )
    logprobs = []
    for place in range(1, len(ids)):
        before = torch.tensor([ids[:place]])
        logits = method.net.decoder(before, torch.ones_like(before, dtype=torch.bool), states)
        logprobs.append(float(logits[0, -1].log_softmax(0)[ids[place]]))
    return logprobs


def test_ranking_is_the_likelihood_of_one_answer_after_the_other() -> None:
    method, batch = make().eval(), asked()
    with torch.no_grad():
        states = method.net.ask(batch.image, batch.ids, batch.mask)
        whole, short, twice = (
            method.net.rank(states, batch.candidates, *few, twice=double)
            for few, double in (((), False), ((4,), False), ((), True))
        )
    for row in range(8):
        words = [alone(method, batch, row, ids[mask].tolist()) for ids, mask in zip(*batch.candidates, strict=True)]
        wanted = torch.tensor([sum(each) for each in words])
        torch.testing.assert_close(whole[row], wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(twice[row], wanted + torch.tensor([each[0] for each in words]), atol=1e-5, rtol=0)
        listed = short[row].isfinite()
        first = torch.tensor([each[0] for each in words])
        assert listed.sum() == 4 and first[listed].min() >= first[~listed].max()
        assert torch.equal(short[row][listed], whole[row][listed]) or torch.allclose(
            short[row][listed], whole[row][listed], atol=1e-6
        )


def test_free_answers_are_the_likeliest_words_and_end() -> None:
    method, batch = make().eval(), asked()
    with torch.no_grad():
        method.net.decoder.language_head.bias[WORDS.sep_id] += 2  # some end early
        states = method.net.ask(batch.image, batch.ids, batch.mask)
        written = method.net.write(states, WORDS.cls_id, WORDS.sep_id, 4)
        for row, (ids, mask) in enumerate(zip(*written, strict=True)):
            said, one = [WORDS.cls_id], [state.of(torch.tensor([row])) for state in states]
            while len(said) < 5 and said[-1] != WORDS.sep_id:
                before = torch.tensor([said])
                said.append(
                    int(method.net.decoder(before, torch.ones_like(before, dtype=torch.bool), one)[0, -1].argmax())
                )
            assert ids[mask].tolist() == said
    same = equal_answers(batch.candidates, Answers(*(x[[3, 1]] for x in batch.candidates)))
    assert same[1, 1] and same[3, 0] and not same[2].any()


def test_padding_of_questions_and_answers_changes_nothing() -> None:
    method, batch = make(), asked()
    plain = method(batch).loss
    answers = batch.answers._replace(ids=torch.where(batch.answers.mask, batch.answers.ids, 7))
    torch.testing.assert_close(
        method(batch._replace(ids=torch.where(batch.mask, batch.ids, 9), answers=answers)).loss, plain
    )
    assert not torch.allclose(method(batch._replace(image=batch.image.flip(0))).loss, plain)


def test_the_decoder_begins_as_the_fusion_layers_unless_it_is_loaded() -> None:
    method = make()
    name = "feed_forward.inner.weight"
    with torch.no_grad():
        for net, value in ((method.net, 1.0), (method.twin.teacher, 2.0)):
            net.encoder.fusion[1].get_parameter(name).fill_(value)
            net.encoder.embeddings.word.weight.fill_(value)
    loaded = ["net.encoder.fusion.1." + name, "twin.teacher.encoder.fusion.1." + name]
    method.settle([*loaded, "net.decoder.layers.1." + name, "twin.teacher.decoder.layers.1." + name])
    assert not (method.net.decoder.layers[1].get_parameter(name) == 1).any()
    method.settle(loaded)
    for net, value in ((method.net, 1.0), (method.twin.teacher, 2.0)):
        assert (net.decoder.layers[1].get_parameter(name) == value).all()
        assert (net.decoder.embeddings.word.weight == value).all()


@pytest.mark.parametrize("wrong", [{"shortlist": 0}, {"answer_length": 0}])
def test_impossible_settings_name_their_key(wrong) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        make(**wrong)
