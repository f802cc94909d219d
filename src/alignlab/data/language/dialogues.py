"""Prompts and responses brought to one form, however a file splits a dialogue: answers alone, or whole dialogues that
hold the prompt once more.
"""

import logging
from collections.abc import Sequence

from alignlab.data.language.rendering import Content, Messages

log = logging.getLogger(__name__)


def answers(prompt: Content, responses: dict[str, Content]) -> tuple[Content, list[Content]]:
    """A prompt and what follows it in each response (by column), all plain texts or all chats.

    Where one of them is a chat, a plain prompt is a turn of the user and a plain response one of the assistant. A
    response that is the whole dialogue (arXiv:2310.16944's data: prompt, and chosen = question and answer) loses the
    turns it shares with the prompt's end; a system turn that only the dialogues have goes to the prompt. Raises
    ValueError where a response begins with another question than the prompt's.
    """
    if isinstance(prompt, str) and all(isinstance(response, str) for response in responses.values()):
        return prompt, list(responses.values())
    before = _turns(prompt, "user")
    cut = {name: _after(before, _turns(response, "assistant"), name) for name, response in responses.items()}
    systems = [system for system, _ in cut.values()]
    if any(system != systems[0] for system in systems):
        raise ValueError(f"{' and '.join(cut)} begin with different system turns")
    return [*systems[0], *before], [rest for _, rest in cut.values()]


def _turns(value: Content, role: str) -> Messages:
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value or role == "assistant" else []
    return value


def _after(prompt: Messages, response: Messages, name: str) -> tuple[Messages, Messages]:
    """System turns that the prompt lacks, and the response without the turns that it shares with the prompt's end."""
    if not prompt or not response or response[0]["role"] == "assistant":
        return [], response
    lead = next((i for i, turn in enumerate(response) if turn["role"] != "system"), len(response))
    lead = 0 if prompt[0]["role"] == "system" else lead
    system, rest = response[:lead], response[lead:]
    for shared in range(min(len(prompt), len(rest)), 0, -1):
        if all(map(_same, prompt[-shared:], rest[:shared])):
            return system, rest[shared:]
    if prompt[-1]["role"] == "assistant" or response[0]["role"] not in ("user", "system"):
        return [], response  # goes on with a further turn
    begun = (rest or response)[0]["content"]
    raise ValueError(
        f"{name} is a whole dialogue, but of another prompt: it begins with {begun[:40]!r}, the prompt ends with "
        f"{prompt[-1]['content'][:40]!r}"
    )


def _same(first: dict[str, str], second: dict[str, str]) -> bool:
    return first["role"] == second["role"] and first["content"].strip() == second["content"].strip()


def without_prompts(rows: Sequence, columns: tuple[str, ...], where: str) -> list:
    """The same for plain texts, which only a whole file can tell: where *every* response begins with its prompt it is
    the whole text; said.
    """
    plain = [row for row in rows if isinstance(row.prompt, str) and row.prompt.strip()]
    if not plain or any(not getattr(row, name).startswith(row.prompt) for row in plain for name in columns):
        return list(rows)
    log.warning("%s: every %s begins with its prompt and is taken for the whole text", where, " and ".join(columns))
    return [
        row._replace(**{name: getattr(row, name)[len(row.prompt) :] for name in columns})
        if isinstance(row.prompt, str)
        else row
        for row in rows
    ]
