"""Rewards for TRL (`reward`), verl (`compute_score`) and OpenRLHF (`reward_func`), as `rewards.json` beside this file
describes them. `alignlab hand-over` copies it; it imports nothing of alignlab.

Legend: B responses.
"""

import asyncio
import functools
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def score(prompts: list, responses: list[str], columns: dict[str, list]) -> list[float]:
    """Weighted sums of all rewards, B. prompts: texts, or chats as messages; columns: B values each."""
    totals = [0.0] * len(responses)
    for part in _parts():
        given = _of_model if "model" in part else _of_function
        for index, value in enumerate(given(part, prompts, responses, columns)):
            totals[index] += part["weight"] * float(value)
    return totals


def reward(prompts: list, completions: list, **columns: Any) -> list[float]:
    """For TRL."""
    answers = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return score(prompts, answers, {k: v for k, v in columns.items() if isinstance(v, list) and len(v) == len(answers)})


def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: dict | None = None) -> float:
    """For verl; `extra_info` is a row as JSON, with its prompt."""
    row = json.loads((extra_info or {}).get("row", "{}"))
    prompt = row.pop("prompt", "")
    return score([prompt], [solution_str], {name: [value] for name, value in row.items()})[0]


def reward_func(queries: list[str], prompts: list[str], labels: list[str], **_: Any) -> dict[str, Any]:
    """For OpenRLHF; a label is a row as JSON, with its prompt."""
    import torch

    rows = [json.loads(label) for label in labels]
    asked = [row.pop("prompt", "") for row in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    answers = [query[len(prompt) :] for query, prompt in zip(queries, prompts, strict=True)]
    scores = torch.tensor(score(asked, answers, {name: [row.get(name) for row in rows] for name in names}))
    return {"rewards": scores, "scores": scores, "extra_logs": {}}


def text_of(prompt: str | list[dict[str, str]]) -> str:
    """A prompt as one text."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


@functools.cache
def _parts() -> list[dict[str, Any]]:
    return json.loads((HERE / "rewards.json").read_text(encoding="utf-8"))


@functools.cache
def _function(file: str, name: str) -> Any:
    if file.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(file).stem, HERE / file)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(module.__name__, module)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(file)
    return getattr(module, name)


def _of_function(part: dict, prompts: list, responses: list[str], columns: dict[str, list]) -> list[float]:
    function, kind = _function(part["file"], part["function"]), part["kind"]
    texts = [text_of(prompt) for prompt in prompts]
    truth = next((columns[name] for name in part["truth"] if name in columns), [None] * len(responses))
    given, places = dict(columns), ()
    if kind == "trl":
        chats = not isinstance(prompts[0], str)
        said = [[{"role": "assistant", "content": text}] for text in responses] if chats else responses
        given |= {"prompts": prompts, "completions": said, "trainer_state": None}
    elif kind == "openrlhf":
        given |= {"prompts": texts, "queries": [p + r for p, r in zip(texts, responses, strict=True)], "labels": truth}
    elif kind == "verl":
        rows = [{name: values[i] for name, values in columns.items()} for i in range(len(responses))]
        given = {"data_source": ["unknown"] * len(responses), "extra_info": rows} | given
        given |= {"solution_str": responses, "ground_truth": truth}
    else:
        places = (texts, responses)
    given = {name: values for name, values in given.items() if part["accepts"] is None or name in part["accepts"]}
    if kind == "verl":
        returned = [_waited(function(**{k: v[i] for k, v in given.items()})) for i in range(len(responses))]
        return [one["score"] if isinstance(one, dict) else one for one in returned]
    returned = _waited(function(*places, **given))
    return returned["rewards"] if isinstance(returned, dict) else returned


def _waited(value: Any) -> Any:
    async def whole() -> Any:
        return await value

    return asyncio.run(whole()) if inspect.isawaitable(value) else value


@functools.cache
def _model(folder: str, head: str) -> tuple[Any, Any, dict[str, Any]]:
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    trunk = AutoModel.from_pretrained(HERE / folder, trust_remote_code=False).float().eval()
    return trunk, AutoTokenizer.from_pretrained(HERE / folder, trust_remote_code=False), load_file(HERE / folder / head)


def _of_model(part: dict, prompts: list, responses: list[str], columns: dict[str, list]) -> list[float]:
    import torch

    model, tokenizer, head = _model(part["model"], part["head"])
    scores = []
    for prompt, response in zip(prompts, responses, strict=True):
        if isinstance(prompt, str):
            words = tokenizer(prompt + response, add_special_tokens=False)["input_ids"]
        else:
            turns = [*prompt, {"role": "assistant", "content": response}]
            words = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
        around = part["text"] if isinstance(prompt, str) else part["chat"]
        ids = torch.tensor([[*around["start"], *words, *around["end"]]])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state[0]
            state = states[-1] if part["pool"] == "last" else states.mean(0)
            value = (state @ head["weight"].flatten() + head["bias"].flatten()).item()
        scores.append((value - part["mean"]) / part["std"])
    return scores
