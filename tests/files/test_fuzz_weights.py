"""Mutated checkpoints and adapters from a seed: each is read as it was meant, or refused in one line; nothing hangs, nothing is lost silently."""

import io
import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.files.weights import load_into, read_file, weights_of

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

pytestmark = pytest.mark.slow
CHECKPOINTS, ADAPTERS, SECONDS = 120, 60, 60


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@contextmanager
def in_time(what: str) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"{what} took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(what: str, read: Callable[[], object]) -> object | None:
    """What was read, or None for one clear line."""
    with in_time(what):
        try:
            return read()
        except ValueError as error:
            text = str(error)
            assert text and "\n" not in text and len(text) < 700, f"{what}: {text}"
            return None


def packed(kind: str, content: dict) -> bytes:
    if kind == "safetensors":
        return save({name: value for name, value in content.items() if isinstance(value, torch.Tensor)})
    buffer = io.BytesIO()
    torch.save({"state_dict": content, "epoch": 1}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def mutated(rng: random.Random, state: dict) -> tuple[str, dict]:
    """A change of names, shapes or number of tensors."""
    name = rng.choice(list(state))
    other = dict(state)
    kind = rng.choice(["renamed", "shape", "missing", "extra", "prefix", "type", "none"])
    if kind == "renamed":
        other[name + "x"] = other.pop(name)
    elif kind == "shape":
        other[name] = torch.zeros(*state[name].shape, 2)
    elif kind == "missing":
        del other[name]
    elif kind == "extra":
        other["more.weight"] = torch.ones(2)
    elif kind == "prefix":
        other = {f"module.{key}": value for key, value in other.items()}
    elif kind == "type":
        other[name] = torch.zeros(0)
    return kind, other


def broken(rng: random.Random, content: bytes, head: int) -> tuple[str, bytes]:
    """Bits turned over in the first `head` bytes, or an end that is missing, or bytes that are too many."""
    kind = rng.choice(["bits", "cut", "more", "zeros"])
    if kind == "cut":
        return kind, content[: rng.randrange(len(content))]
    if kind == "more":
        return kind, content + bytes(rng.randrange(1, 64))
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(head)
        changed[place] = 0 if kind == "zeros" else changed[place] ^ (1 << rng.randrange(8))
    return kind, bytes(changed)


def test_checkpoints(tmp_path: Path) -> None:
    rng = random.Random(7)
    torch.manual_seed(1)
    state = Tiny().state_dict()
    read_well = 0
    for number in range(CHECKPOINTS):
        form = rng.choice(["zip", "legacy", "safetensors"])
        kind, changed = mutated(rng, state) if number % 2 else ("none", state)
        content = packed(form, changed)
        harm = "none"
        if number % 2 == 0:
            whole = {"zip": len(content), "legacy": 300, "safetensors": 8 + int.from_bytes(content[:8], "little")}
            harm, content = broken(rng, content, whole[form])
        file, what = tmp_path / "file.ckpt", f"{number}: {form}, {kind}, {harm}"
        file.write_bytes(content)

        def read(file: Path = file) -> dict:
            system = Tiny()
            load_into(system, weights_of(read_file(file, "ckpt_path"), file, "ckpt_path"), file, "ckpt_path")
            return system.state_dict()

        found = outcome(what, read)
        if found is not None:
            read_well += 1
            assert kind in ("none", "prefix"), f"{what} was taken"
            if form != "legacy":  # which has no check sums
                assert all(torch.equal(found[name], state[name]) for name in state), what
        else:
            assert harm != "none" or kind not in ("none", "prefix"), f"{what} was refused"
    assert read_well > 5


def test_adapters(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from alignlab.inference.native.adapters import read_adapter
    from alignlab.inference.native.families import describe
    from alignlab.models.language.lora import put_on
    from tiny_language import NET, WORDS

    rng = random.Random(8)
    torch.manual_seed(0)
    net = peft.get_peft_model(NET(vocabulary=WORDS), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    net.save_pretrained(tmp_path / "good")
    architecture, base = describe(net.config), {k: v.clone() for k, v in NET(vocabulary=WORDS).state_dict().items()}
    config = json.loads((tmp_path / "good" / "adapter_config.json").read_text())
    weights = (tmp_path / "good" / "adapter_model.safetensors").read_bytes()
    values = load(weights)
    folder = tmp_path / "changed"
    folder.mkdir()
    for number in range(ADAPTERS):
        text, content, what = json.dumps(config), weights, "none"
        kind = number % 4
        if kind == 0:
            what, changed = mutated(rng, values)
            content = save(changed)
        elif kind == 1:
            what, content = broken(rng, weights, 8 + int.from_bytes(weights[:8], "little"))
        elif kind == 2:
            key = rng.choice(
                [
                    "r",
                    "lora_alpha",
                    "target_modules",
                    "peft_type",
                    "bias",
                    "use_dora",
                    "modules_to_save",
                    "alpha_pattern",
                    "task_type",
                ]
            )
            value = rng.choice([None, -1, 0, "x", [], ["v_proj"], {}, True, "IA3"])
            what, text = f"{key}={value}", json.dumps(config | {key: value})
        else:
            what, raw = broken(rng, text.encode(), len(text))
            text = raw.decode("latin-1")
        (folder / "adapter_config.json").write_text(text)
        (folder / "adapter_model.safetensors").write_bytes(content)
        name = f"{number}: {what}"
        ours = outcome(f"ours, {name}", lambda: read_adapter(folder, architecture))
        if ours is not None:
            assert len(ours.updates) == 4, name
        model = NET(vocabulary=WORDS)
        model.load_state_dict(base)
        theirs = outcome(f"peft, {name}", lambda model=model: put_on(model, str(folder)))
        if theirs is not None and kind != 2:
            assert sum("lora_A" in key for key, _ in theirs.named_parameters()) == 4, name
