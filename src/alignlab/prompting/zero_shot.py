"""The question alone, with an instruction before it if there is one."""

from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue


class ZeroShot:
    """Asks once. `instruction` stands before the question, `system` in a message of its own."""

    needs_sampling = False

    def __init__(self, instruction: str = "", system: str = "", answer: AnswerForm = "text") -> None:
        self.instruction, self.system, self.answer = instruction, system, answer

    def solve(self, question: Question) -> Solving:
        text = f"{self.instruction}\n\n{question.text}" if self.instruction else question.text
        (reply,) = yield [Prompt(dialogue(self.system, text))]
        return Answer(reply.text, extract(reply.text, self.answer))
