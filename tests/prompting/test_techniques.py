"""Every technique asks exactly these prompts and reads exactly these answers."""

from collections.abc import Sequence

from alignlab.inference.backend import Sampling
from alignlab.inference.backends.scripted import ScriptedBackend, byte_tokenizer
from alignlab.prompting.asking import Asker, Outcome, solve_all
from alignlab.prompting.chain_of_thought import ChainOfThought
from alignlab.prompting.few_shot import FewShot
from alignlab.prompting.generated_knowledge import GeneratedKnowledge
from alignlab.prompting.least_to_most import LeastToMost
from alignlab.prompting.role import Role
from alignlab.prompting.self_consistency import SelfConsistency
from alignlab.prompting.technique import Question, Reply, Technique
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.prompting.zero_shot_cot import ZeroShotCot

import pytest

QUESTION = Question("q", "What is 2 + 3?")
SUM = {"question": "What is 1 + 1?", "answer": "2", "reasoning": "One and one make two."}
DOG = {"question": "Does a dog bark?", "answer": "yes", "reasoning": "Dogs do."}


def solved(technique: Technique, answers: Sequence[str], question: Question = QUESTION) -> tuple[Outcome, list[str]]:
    """The outcome and the prompts as the model gets them, of a technique whose model gives these answers in turn."""
    backend, outcomes = ScriptedBackend(answers), []
    asker = Asker(backend, byte_tokenizer(), Sampling(max_new_tokens=200, temperature=0.7))
    solve_all([question], technique, asker, on_outcome=lambda _, outcome: outcomes.append(outcome))
    (outcome,) = outcomes
    assert len(backend.prompts) == len(answers), "every answer was asked for"
    return outcome, backend.prompts


def test_zero_shot() -> None:
    outcome, prompts = solved(ZeroShot(), ["5"])
    assert prompts == ["What is 2 + 3?"] and outcome.answer.answer == "5"
    outcome, prompts = solved(ZeroShot("Calculate.", "Be brief.", answer="number"), [" It is 5, of course"])
    assert prompts == ["Be brief.\n\nQuestion: Calculate.\n\nWhat is 2 + 3?\nAnswer:"] and outcome.answer.answer == "5"


def test_few_shot() -> None:
    outcome, prompts = solved(FewShot([SUM, DOG]), [" 5\nQuestion: What is 7?"])
    shots = "Question: What is 1 + 1?\nAnswer: 2\n\nQuestion: Does a dog bark?\nAnswer: yes\n\n"
    assert prompts == [f"{shots}Question: What is 2 + 3?\nAnswer:"]
    assert (outcome.answer.text, outcome.answer.answer) == (" 5", "5"), "the next turn is not the model's to write"


def test_demonstrations_are_chosen() -> None:
    pool = [SUM, DOG, {"question": "What is 2 + 3?", "answer": "leak"}]
    nearest = solved(FewShot(pool, number=1, selection="nearest"), ["5"])[1][0]
    assert "1 + 1" in nearest and "leak" not in nearest, "the question itself is never shown"
    drawn = {solved(FewShot(pool, number=1, selection="random"), ["5"], Question(str(n), "?"))[1][0] for n in range(9)}
    again = solved(FewShot(pool, number=1, selection="random"), ["5"], Question("0", "?"))[1][0]
    assert len(drawn) == 3 and again in drawn
    with pytest.raises(ValueError, match=r"number=4 must lie in 1..3"):
        FewShot(pool, number=4)
    with pytest.raises(ValueError, match="a demonstration lacks answer"):
        FewShot([{"question": "?"}])
    with pytest.raises(ValueError, match="there are no demonstrations"):
        FewShot()


def test_demonstrations_from_a_file(tmp_path) -> None:
    (tmp_path / "shots.jsonl").write_text('{"question": "q1", "answer": 7}\n\n{"question": "q2", "anser": 8}\n')
    with pytest.raises(ValueError, match=r"shots.jsonl, line 3: a demonstration lacks answer"):
        FewShot(demonstrations_file=str(tmp_path / "shots.jsonl"))
    (tmp_path / "shots.jsonl").write_text('{"question": "q1", "answer": 7}\n')
    assert "q1\nAnswer: 7\n\n" in solved(FewShot(demonstrations_file=str(tmp_path / "shots.jsonl")), ["5"])[1][0]


def test_chain_of_thought() -> None:
    outcome, prompts = solved(ChainOfThought([SUM], answer="number"), [" 2 and 3 make 5. The answer is 5."])
    shot = "Question: What is 1 + 1?\nAnswer: One and one make two. The answer is 2.\n\n"
    assert prompts == [f"{shot}Question: What is 2 + 3?\nAnswer:"] and outcome.answer.answer == "5"


def test_zero_shot_cot() -> None:
    outcome, prompts = solved(ZeroShotCot(), [" 2 and 3 make 5.", " 5.\n6"])
    start = "Question: What is 2 + 3?\nAnswer: Let's think step by step."
    assert prompts == [start, f"{start} 2 and 3 make 5.\nTherefore, the answer (arabic numerals) is"]
    assert outcome.answer.answer == "5"
    assert outcome.answer.text.endswith("Therefore, the answer (arabic numerals) is 5.\n6")


def test_self_consistency_votes() -> None:
    replies = ["The answer is 6.", "The answer is 5.", "no idea", "so 5.0"]
    outcome, prompts = solved(SelfConsistency(ChainOfThought([SUM], answer="number"), samples=4), replies)
    assert len(set(prompts)) == 1
    assert outcome.answer.answer == "5" and outcome.answer.votes == {"5": 2.0, "6": 1.0}
    tie = solved(SelfConsistency(ZeroShot(answer="number"), samples=2), ["7", "8"])[0]
    assert tie.answer.answer == "7", "the first of equals"
    none = solved(SelfConsistency(ZeroShot(answer="number"), samples=2), ["x", "y"])[0]
    assert none.answer.answer is None and none.error is None


def test_self_consistency_goes_through_the_rounds_of_its_inner_technique() -> None:
    outcome, prompts = solved(SelfConsistency(ZeroShotCot(), samples=2), [" a.", " b.", " 5", " 5"])
    assert [prompt.count("Therefore") for prompt in prompts] == [0, 0, 1, 1]
    assert {" a.\n" in prompts[2], " b.\n" in prompts[3]} == {True}
    assert outcome.answer.votes == {"5": 2.0}


def test_self_consistency_weighs_by_probability() -> None:
    technique = SelfConsistency(ZeroShot(answer="number"), samples=3, weighting="probability")
    solving = technique.solve(QUESTION)
    next(solving)
    with pytest.raises(StopIteration) as end:
        solving.send([Reply("7", "eos", 2, -0.2), Reply("8", "eos", 2, -8.0), Reply("8", "eos", 2, -8.0)])
    assert end.value.value.answer == "7", "exp(-0.1) is more than 2 exp(-4)"


def test_generated_knowledge() -> None:
    technique = GeneratedKnowledge(statements=3, instruction="Say a fact.")
    facts = ["Two is even.", "Two  is even.", "Sums grow."]
    outcome, prompts = solved(technique, [*facts, " 5", " 6"])
    assert prompts[:3] == ["Say a fact.\n\nWhat is 2 + 3?"] * 3
    assert prompts[3:] == ["Two is even.\n\nWhat is 2 + 3?", "Sums grow.\n\nWhat is 2 + 3?"], "facts count once"
    assert outcome.answer.answer == "5"
    solving = technique.solve(QUESTION)
    next(solving)
    solving.send([Reply("a"), Reply("b"), Reply("c")])
    with pytest.raises(StopIteration) as end:
        solving.send([Reply("5", "eos", 1, -3.0), Reply("6", "eos", 1, -0.1), Reply("", "eos", 1, 0.0)])
    assert end.value.value.answer == "6", "the surest that gives an answer"


def test_least_to_most() -> None:
    technique = LeastToMost(instruction="Which first?")
    plan = "1. What is 2 + 1?\n2) What is 3 + 2?\nWell."
    outcome, prompts = solved(technique, [plan, " 3", " 5", " It is 5."])
    asked = "Question: What is 2 + 3?\n\nWhat is 2 + 1?\nAnswer:"
    assert prompts[:2] == ["What is 2 + 3?\n\nWhich first?", "What is 2 + 3?\n\nWhat is 2 + 1?"]
    assert prompts[2] == f"{asked} 3\n\nQuestion: What is 3 + 2?\nAnswer:"
    assert prompts[3].endswith("What is 3 + 2?\nAnswer: 5\n\nQuestion: What is 2 + 3?\nAnswer:")
    assert outcome.answer.answer == "5"
    assert technique.parts("nothing", "q") == ["q"]
    assert technique.parts("\n".join(f"- p{n}" for n in range(9)), "q") == ["p0", "p1", "p2", "p3", "p4", "q"]
    assert technique.parts("What is a?\nand\nWhat is b?", "q") == ["What is a?", "What is b?", "q"]


def test_role() -> None:
    outcome, prompts = solved(Role("You are a bee.", ZeroShotCot()), [" bzz.", " 5"])
    assert all(prompt.startswith("You are a bee.\n\nQuestion: What is 2 + 3?\nAnswer: Let's") for prompt in prompts)
    assert outcome.answer.answer == "5"
    _, prompts = solved(Role("You are a bee.", ZeroShot(system="Be brief.")), ["5"])
    assert prompts[0].startswith("You are a bee.\n\nBe brief.\n\nQuestion:")
    assert Role("You are a bee.", SelfConsistency(ZeroShot(answer="number"))).needs_sampling
    with pytest.raises(ValueError, match=r"persona is empty"):
        Role(" ", ZeroShot())
