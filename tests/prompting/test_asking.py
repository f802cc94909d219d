"""Many questions at once: nothing depends on company, a failure stays alone, an answer is handed on at once."""

from collections.abc import Callable, Sequence

from alignlab.inference.backend import Completion, Request, Sampling
from alignlab.inference.backends.scripted import ScriptedBackend, byte_tokenizer
from alignlab.prompting.asking import Asker, Outcome, seed_of, solve_all
from alignlab.prompting.self_consistency import SelfConsistency
from alignlab.prompting.technique import Question
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.prompting.zero_shot_cot import ZeroShotCot

import pytest

ANSWERS = {f"question {n}": f"answer {n}" for n in range(40)}
QUESTIONS = [Question(str(n), f"question {n}" + "!" * (n * 7 % 11)) for n in range(40)]


class Recording(ScriptedBackend):
    """Keeps the batches, and gives `fails` an error."""

    def __init__(self, fails: str = "no such text") -> None:
        super().__init__(ANSWERS)
        self.batches: list[Sequence[Request]] = []
        self.fails = fails

    def generate(self, requests: Sequence[Request], **told: Callable) -> list[Completion]:
        self.batches.append(requests)
        return super().generate(requests, **told)

    def _answer(self, prompt: str) -> str | None:
        return None if self.fails in prompt else super()._answer(prompt)


def run(technique, backend: Recording, questions=QUESTIONS, batch_size: int = 4, seed: int = 0) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}

    def once(question: Question, outcome: Outcome) -> None:
        assert question.id not in outcomes, "a question ends once"
        outcomes[question.id] = outcome

    asker = Asker(backend, byte_tokenizer(), Sampling(temperature=1.0), batch_size=batch_size, seed=seed)
    solve_all(questions, technique, asker, on_outcome=once)
    return outcomes


def seeds(backend: Recording) -> dict[tuple[int, ...], list[int]]:
    found: dict[tuple[int, ...], list[int]] = {}
    for request in (request for batch in backend.batches for request in batch):
        found.setdefault(tuple(request.ids), []).append(request.seed)
    return found


@pytest.mark.parametrize("technique", [ZeroShot(), ZeroShotCot(answer="line"), SelfConsistency(ZeroShot(), samples=3)])
def test_every_question_gets_its_own_answer(technique) -> None:
    outcomes = run(technique, Recording())
    assert len(outcomes) == 40
    for question in QUESTIONS:
        assert outcomes[question.id].answer.answer == f"answer {question.id}"


def test_batches_are_full_and_of_similar_length() -> None:
    backend = Recording()
    run(ZeroShotCot(answer="line"), backend)
    assert [len(batch) for batch in backend.batches] == [4] * 20
    spread = [max(len(r.ids) for r in batch) - min(len(r.ids) for r in batch) for batch in backend.batches]
    assert sum(spread) / len(spread) < 6, "in the order of the input it would be 8 and more"


def test_seeds_do_not_depend_on_company() -> None:
    technique = SelfConsistency(ZeroShot(), samples=3)
    together, alone, other = Recording(), Recording(), Recording()
    run(technique, together)
    run(technique, alone, QUESTIONS[5:6], batch_size=1)
    run(technique, other, QUESTIONS[5:6], seed=1)
    for ids, found in seeds(alone).items():
        assert len(set(found)) == 3 and sorted(seeds(together)[ids]) == sorted(found)
        assert not set(seeds(other)[ids]) & set(found)
    assert 0 <= seed_of(0, "x", 0) < 2**31


def test_no_two_requests_share_a_seed() -> None:
    """Neither the rounds of a question nor two questions of the same text."""
    backend = Recording()
    run(SelfConsistency(ZeroShotCot(answer="line"), samples=3), backend, [Question(id, "question 1") for id in "ab"])
    drawn = [request.seed for batch in backend.batches for request in batch]
    assert len(drawn) == len(set(drawn)) == 2 * 3 * 2


def test_a_failure_stays_alone() -> None:
    # 6: the three draws of a question are in one batch, so two of them fail when it is over already.
    outcomes = run(SelfConsistency(ZeroShotCot(answer="line"), samples=3), Recording(fails="question 7"), batch_size=6)
    assert outcomes["7"].answer is None and "no answer" in outcomes["7"].error
    assert len(outcomes) == 40 and all(outcome.error is None for id, outcome in outcomes.items() if id != "7")


def test_an_empty_prompt_is_a_failure_of_its_own() -> None:
    outcomes = run(ZeroShot(), Recording(), [Question("a", ""), QUESTIONS[0]])
    assert "empty prompt" in outcomes["a"].error and outcomes["0"].error is None


def test_what_is_finished_is_handed_on_before_an_interruption() -> None:
    class Interrupted(Recording):
        def _answer(self, prompt: str) -> str | None:
            if len(self.prompts) == 11:
                raise KeyboardInterrupt
            return super()._answer(prompt)

    outcomes: list[str] = []
    asker = Asker(Interrupted(), byte_tokenizer(), Sampling(), batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        solve_all(QUESTIONS, ZeroShot(), asker, on_outcome=lambda question, _: outcomes.append(question.id))
    assert len(outcomes) == 10, "also those of the batch that was interrupted"


def test_stop_strings_are_cut_off() -> None:
    asker = Asker(ScriptedBackend(), byte_tokenizer(), Sampling(stop=("END", ".")))
    request = Request([1], 0, asker.sampling)
    ids = byte_tokenizer()("It is so.END", add_special_tokens=False)["input_ids"]
    reply = asker.reply(request, Completion(ids, [-0.5] * len(ids), "stop"))
    assert (reply.text, reply.num_tokens, reply.logprob) == ("It is so", len(ids), -0.5 * len(ids))
