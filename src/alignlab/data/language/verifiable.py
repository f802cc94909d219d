"""Prompts with answers that a rule can check: `data=verifiable`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

from alignlab.data.language.batches import PromptRows, Split
from alignlab.data.language.named_films import named_films
from alignlab.data.language.preference_texts import prompts_of
from alignlab.data.language.rated_reviews import of_split
from alignlab.data.language.rendering import Content, Renderer
from alignlab.data.language.rows import Prompt, prompt, read_jsonl

Checker = Literal["exact", "number", "math", "regex", "json_schema", "code", "gym"]
CHECKERS = get_args(Checker)


class VerifiableRows:
    """Prompts, each with what is right and how that is checked, from a file, built in or made by reasoning-gym.

    Args:
        path: a .jsonl file of {prompt or question or messages, answer}; a row may have a `checker` of its own.
        tasks: instead of a file, `named_films`, which is built in, or names of reasoning-gym's tasks.
        size: prompts of each task.
        answer: the column that holds what is right.
        checker: of rows that name none.
        val_path: a second file; None holds out `val_share` of the prompts by a hash.
        solved: least and largest share that the start model solves, of rows that have a column `solved`
            (`infer.py task=solve` writes it); None takes all.
        instruction: what every prompt ends with: how the answer is to be given.
        chat: whether a prompt that is a text becomes a user's turn; None: where the tokenizer has a chat template.
        split_seed: salts the hash, and is the seed of the tasks.
        val_share: see `val_path`.

    Raises:
        ValueError: neither file nor tasks, or both.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        tasks: Sequence[str] = (),
        size: int = 1000,
        answer: str = "answer",
        checker: Checker = "exact",
        val_path: str | None = None,
        solved: tuple[float, float] | None = None,
        instruction: str = "",
        chat: bool | None = None,
        split_seed: int,
        val_share: float,
    ) -> None:
        if (path is None) == (not tasks):
            raise ValueError(
                "path is not set: name a .jsonl file, or tasks of reasoning-gym with tasks=[...]; not both"
            )
        self._path, self._tasks, self._size, self._val_path = path, list(tasks), size, val_path
        self._answer, self._checker, self._solved = answer, checker, solved
        self._instruction, self._chat = instruction, chat
        self._split_seed, self._val_share = split_seed, val_share
        self._read: dict[str | None, list[Prompt]] = {}

    def rows(self, split: Split, renderer: Renderer, seed: int) -> PromptRows:
        """Raises ValueError where a split has no row, or a row can't be read."""
        rows = self._of_split(split)
        if not rows:
            raise ValueError(f"path={self._path}: no rows for {split}; set val_path, another val_share or wider solved")
        chat = self._chat if self._chat is not None else bool(getattr(renderer.tokenizer, "chat_template", None))
        asked = [row._replace(prompt=self._asked(row.prompt, chat)) for row in rows]
        return PromptRows(prompts_of(asked, renderer), seed, [r.prompt for r in asked], [r.columns for r in asked])

    def _of_split(self, split: Split) -> list[Prompt]:
        if self._val_path is not None:
            return self._rows(None if split == "train" else self._val_path)
        return of_split(self._rows(None), split, lambda row: str(row.prompt), self._split_seed, self._val_share)

    def _rows(self, val_path: str | None) -> list[Prompt]:
        if val_path not in self._read:
            if val_path is not None:
                raw: Iterable[tuple[str, dict[str, Any]]] = read_jsonl(val_path, "val_path")
            else:
                raw = read_jsonl(self._path) if self._path is not None else self._made()
            self._read[val_path] = list(checked(raw, self._answer, self._checker, self._solved))
        return self._read[val_path]

    def _made(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return made(self._tasks, self._size, self._split_seed)

    def _asked(self, content: Content, chat: bool) -> Content:
        if isinstance(content, str):
            text = content + self._instruction
            return [{"role": "user", "content": text}] if chat else text
        last = {**content[-1], "content": content[-1]["content"] + self._instruction}
        return [*content[:-1], last]


def checked(
    raw: Iterable[tuple[str, dict[str, Any]]], answer: str, checker: str, solved: Sequence[float] | None = None
) -> Iterator[Prompt]:
    """Prompts with the columns `answer` and `checker`; those solved more or less often than `solved` says are left out.

    Raises:
        ValueError: with its place, a row without a prompt or an answer, or with an unknown checker.
    """
    for place, row in raw:
        share = row.get("solved")
        if solved is not None and isinstance(share, int | float) and not solved[0] <= share <= solved[1]:
            continue
        if row.get(answer) is None:
            raise ValueError(f"{place}: no column {answer}, which holds what is right; there are {', '.join(row)}")
        named = row.get("checker") or checker
        if (problem := unfit_checker(named, checker)) is not None:
            raise ValueError(f"{place}: {problem}")
        if row.get("prompt") is None and row.get("question") is not None:
            row = {"prompt": row["question"], **{k: v for k, v in row.items() if k not in ("prompt", "question")}}
        try:
            asked = prompt(row)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        yield asked._replace(columns={**asked.columns, "answer": row[answer], "checker": named}, place=place)


def unfit_checker(named: object, chosen: str) -> str | None:
    """Why a row's checker can't be taken. Rows may be anybody's: they don't choose that their tests are run."""
    if named not in CHECKERS:
        return f"checker is {named!r}; it is one of {', '.join(CHECKERS)}"
    if named == "code" and chosen != "code":
        return f"its checker code runs the tests in the row, and checker={chosen} was chosen; choose checker=code"
    return None


def made(tasks: Sequence[str], size: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and row of `size` prompts of each task: `named_films`, or one of reasoning-gym's.

    Raises:
        ValueError: reasoning-gym is missing, or has no such task.
    """
    for task in tasks:
        if task == named_films.__name__:
            yield from named_films(size, seed)
            continue
        try:
            import reasoning_gym
        except ImportError as error:
            raise ValueError(f"tasks: {task} needs reasoning-gym: pip install 'alignlab[verifiable]'") from error
        try:
            entries = reasoning_gym.create_dataset(task, size=size, seed=seed)
        except ValueError as error:
            raise ValueError(f"tasks: reasoning-gym has no {task} ({str(error).splitlines()[0]})") from error
        for number, entry in enumerate(entries):
            whole = json.loads(json.dumps(entry, default=str))
            yield f"{task}[{number}]", {"prompt": whole["question"], "answer": whole, "checker": "gym", "task": task}
