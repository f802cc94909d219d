"""Every backend that can run here gives the yardstick's tokens (transformers on the CPU, float32). A part of `make gpu`."""

from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.deepspeed import DeepSpeedBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.backends.offload import OffloadBackend
from alignlab.inference.backends.transformers import TransformersBackend

import torch
from rows import Rows, options
from transformers import LlamaConfig, LlamaForCausalLM

NEW = 24
EXACT: dict[str, Callable[[], Backend]] = {
    "transformers": TransformersBackend,
    "compiled": CompiledBackend,
    "offload": lambda: OffloadBackend(0.5),
    "deepspeed": lambda: DeepSpeedBackend(processes=1),
}


def saved(folder: Path) -> LlamaForCausalLM:
    """A small Llama with weights that make its choices clear, in `folder` too."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return model


def expected(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """The yardstick's greedy tokens, a prompt at a time."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0}
        found.append(model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist())
    return found


def main() -> None:
    chosen = options(__doc__)
    rows, path = Rows(chosen.folder), chosen.folder / "model"
    model = saved(path)
    prompts = [torch.randint(3, 512, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 9, 16)]
    wanted = expected(model, prompts)
    requests = [Request(prompt, sampling=Sampling(max_new_tokens=NEW, ignore_eos=True)) for prompt in prompts]
    sides = EXACT if chosen.full else {name: EXACT[name] for name in ("transformers", "compiled")}
    for name, make in (sides | {"int8": Int8Backend}).items():
        with rows.attempt(f"backend={name}, the yardstick's tokens"):
            backend = make()
            able = backend.available()
            if not able.ok:
                rows.add(f"backend={name}, the yardstick's tokens", f"not run: {able.reason}")
                continue
            backend.load(ModelSource(str(path), dtype="float32"))
            found = [list(completion.ids) for completion in backend.generate(requests)]
            backend.close()
            same = sum(a == b for x, y in zip(found, wanted, strict=True) for a, b in zip(x, y, strict=True))
            rows.add(f"backend={name}, the yardstick's tokens", f"{same} of {NEW * len(prompts)}")
            if name != "int8" and found != wanted:  # int8 rounds: its agreement is noted, no more
                rows.add(f"backend={name}", error="other tokens than transformers on the CPU in float32")
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
