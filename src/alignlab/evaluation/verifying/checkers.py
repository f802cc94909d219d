"""Checkers: (response, what is right) -> 1.0, 0.0 or between.

A response's answer is what stands in its last LaTeX box, else after the last `####`, else after "the answer is", else
all of it.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from alignlab.data.language.verifiable import CHECKERS
from alignlab.evaluation.verifying.sandbox import run_python
from alignlab.prompting.answers import correct, extract

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_EXTRA = "pip install 'alignlab[verifiable]'"


def check(response: str, answer: Any, checker: str = "exact") -> float:
    """How right a response is.

    Raises:
        ValueError: there is no such checker, its package is missing, or `answer` is nothing that it can read.
    """
    if checker not in _CHECKERS:
        raise ValueError(f"checker={checker} is none of {', '.join(_CHECKERS)}")
    return _CHECKERS[checker](response, answer)


def final(response: str) -> str:
    """The answer that a response comes to, as a text."""
    if (boxed := extract(response, "boxed")) is not None:
        return boxed
    if "####" in response:
        return response.rpartition("####")[2].strip()
    line = extract(response, "line") if re.search(r"answer\s*(?:is|:|=)", response, re.IGNORECASE) else None
    return (line.rstrip(".") if line is not None else response).strip()


def exact(response: str, answer: Any) -> float:
    """The same text, spaces at its ends apart; `answer` may be a list of such."""
    return float(final(response) in [str(one).strip() for one in _several(answer)])


def number(response: str, answer: Any) -> float:
    """The same number: 1,000.0 is 1000. Of a response without a mark its last number counts."""
    marked = "####" in response or extract(response, "boxed") is not None
    said = extract(final(response) if marked else response, "number")
    return float(correct(said, [str(one) for one in _several(answer)], "number"))


def math(response: str, answer: Any) -> float:
    """The same mathematical expression, by the package math-verify."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ValueError(f"checker=math needs the package math-verify: {_EXTRA}") from error
    limit = 5 if threading.current_thread() is threading.main_thread() else None  # its alarm works there only
    golds = [str(one) for one in _several(answer)]
    golds = [one if "$" in one or "\\boxed" in one else f"${one}$" for one in golds]
    said = parse(response, parsing_timeout=limit) or parse(f"${final(response)}$", parsing_timeout=limit)
    return float(any(verify(parse(gold, parsing_timeout=limit), said, timeout_seconds=limit) for gold in golds))


def regex(response: str, answer: Any) -> float:
    """A pattern that is somewhere in the response."""
    try:
        return float(re.search(str(answer), response) is not None)
    except re.error as error:
        raise ValueError(f"answer={answer!r} is no regular expression: {error}") from error


def json_schema(response: str, answer: Any) -> float:
    """JSON, in a fence or by itself, that keeps a schema (an object or its text), by the package jsonschema."""
    try:
        import jsonschema
        from referencing import Registry
    except ImportError as error:
        raise ValueError(f"checker=json_schema needs the package jsonschema: {_EXTRA}") from error
    try:
        schema = json.loads(answer) if isinstance(answer, str) else answer
        kind = jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
        validator = kind(schema, registry=Registry())  # which fetches nothing
    except (ValueError, jsonschema.SchemaError) as error:
        raise ValueError(f"answer is no JSON schema: {str(error).splitlines()[0]}") from error
    try:
        said = json.loads(block(response))
    except (ValueError, RecursionError):
        return 0.0
    try:
        return float(validator.is_valid(said))
    except Exception as error:  # a reference to what isn't there
        raise ValueError(f"answer is no JSON schema that can be used: {str(error).splitlines()[0]}") from error


def code(response: str, answer: Any) -> float:
    """Python code, in a fence or by itself, after which the tests in `answer` run to their end (`run_python`)."""
    return float(run_python(f"{block(response)}\n\n{answer}\n").ok)


def gym(response: str, answer: Any) -> float:
    """An entry of reasoning-gym, scored by its own task: 0 to 1."""
    try:
        from reasoning_gym import get_score_answer_fn
    except ImportError as error:
        raise ValueError(f"checker=gym needs the package reasoning-gym: {_EXTRA}") from error
    if not isinstance(answer, Mapping) or "source_dataset" not in answer.get("metadata", {}):
        raise ValueError("answer is no entry of reasoning-gym")
    return float(get_score_answer_fn(answer["metadata"]["source_dataset"])(answer=final(response), entry=answer))


def block(response: str) -> str:
    """The last fenced block, else everything."""
    blocks = _FENCED.findall(response)
    return blocks[-1] if blocks else response


def _several(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, list | tuple) else [answer]


_CHECKERS: dict[str, Callable[[str, Any], float]] = dict(
    zip(CHECKERS, (exact, number, math, regex, json_schema, code, gym), strict=True)
)
