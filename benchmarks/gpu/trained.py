"""Every model trains as typed; float32 losses on the GPU are the CPU's from the same weights; what is resumed goes on. A part of `make gpu`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import Command, Done, at_once, run
from rows import Rows, options

LIMIT = 100.0  # seconds of one run


def commands(folder: Path, trainer: str, full: bool) -> tuple[list[Command], list[Command]]:
    """Two waves: the second needs models of the first."""
    steps = ("trainer.max_steps=12", "trainer.val_check_interval=6")
    few = ("trainer.max_steps=4", "trainer.val_check_interval=4", "++trainer.limit_val_batches=1", "data.batch_size=16")
    if not full:
        steps = few = (
            "trainer.max_steps=2",
            "trainer.val_check_interval=2",
            "++trainer.limit_val_batches=1",
            "data.batch_size=4",
        )
    train = f"trainer={trainer}"
    first = [
        Command(name, (f"model={name}", train, *steps), LIMIT) for name in ("clip", "siglip", "albef", "sft", "reward")
    ]
    sft, reward = f"model.net.path={folder / 'sft'}", f"model.reward={folder / 'reward'}"
    second = [Command("dpo", ("model=dpo", sft, train, *steps), LIMIT)]
    second += [Command(name, (f"model={name}", sft, reward, train, *few), LIMIT) for name in ("ppo", "grpo")]
    second += (
        [Command("ppo_fp32", ("model=ppo", sft, reward, train, "trainer.precision=32-true", *few), LIMIT)]
        if full
        else []
    )
    if not full:  # minutes on two cores: enough to try the code
        return [c for c in first if c.name in ("clip", "sft")], []
    return first, second


def resumed(rows: Rows, first: dict[str, Done], folder: Path, full: bool) -> None:
    """CLIP goes on for four steps as an undisturbed run of as many would have ended."""
    steps = 16 if full else 4
    before = first["clip"].losses() if not first["clip"].error else []
    done = run(Command("clip", (f"resume={folder / 'clip'}", f"trainer.max_steps={steps}"), LIMIT), folder)
    if done.error:
        rows.add("resume", error=done.error)
        return
    result = done.result
    rows.add("resume, steps in all", result.steps, "steps", kept=done.losses()[: len(before)] == before)
    if result.steps != steps or done.losses()[: len(before)] != before:
        rows.add("resume", error=f"{result.steps} steps instead of {steps}, or other losses before")


def equal(rows: Rows, name: str, more: tuple[str, ...], trainer: str, folder: Path) -> float | None:
    """Largest difference of losses over four steps, relative to the loss, on the CPU and on the device from a checkpoint after two."""
    same = (
        f"model={name}",
        *more,
        "trainer.val_check_interval=100",
        "trainer.log_every_n_steps=1",
        "callbacks.curves=null",
    )
    same = (*same, "trainer.precision=32-true", "++trainer.limit_val_batches=1")
    start = run(Command(f"{name}_start", (*same, "trainer=cpu", "trainer.max_steps=2"), LIMIT), folder)
    if start.error:
        rows.add(f"{name}, losses of the CPU", error=start.error)
        return None
    checkpoint = f"ckpt_path={start.folder / 'checkpoints' / 'last.ckpt'}"
    found = [
        run(Command(f"{name}_on_{kind}", (*same, f"trainer={kind}", "trainer.max_steps=6", checkpoint), LIMIT), folder)
        for kind in dict.fromkeys(("cpu", trainer))
    ]
    for done in found:
        if done.error:
            rows.add(f"{name}, losses of the CPU", error=done.error)
            return None
    ours, theirs = found[-1].losses(), found[0].losses()
    if not ours or len(ours) != len(theirs):
        rows.add(f"{name}, losses of the CPU", error=f"{len(ours)} losses against {len(theirs)}")
        return None
    difference = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True))
    rows.add(f"{name}, losses of the CPU, largest relative difference", difference, losses=ours)
    return difference


def main() -> None:
    chosen = options(__doc__)
    rows, folder, trainer = Rows(chosen.folder), chosen.folder, "gpu" if chosen.full else "cpu"
    small = ("data.batch_size=16",) if chosen.full else ("data.batch_size=4",)
    # Draws (masked words, negatives) and rounding of Muon's bfloat16 are each device's own; pytest -m gpu compares fusion with equal draws.
    towers = (*small, "model.fuse_from_step=100", "optim=adamw")
    cases = {"clip": small, "albef": towers, "sft": (*small, "model/net=llama_tiny", "model.net.dropout=0.0")}
    cases = cases if chosen.full else {"clip": small}
    first, second = commands(folder, trainer, chosen.full)

    def done(command: Command) -> Done:
        found = run(command, folder)
        said(rows, command.name, found)  # at once: what comes later may be cut off
        return found

    with ThreadPoolExecutor(at_once()) as pool:
        wave = {c.name: pool.submit(done, c) for c in first}
        pairs = [pool.submit(equal, rows, name, more, trainer, folder) for name, more in cases.items()]
        before = {name: future.result() for name, future in wave.items()}
        later = [pool.submit(done, c) for c in second]
        again = pool.submit(resumed, rows, before, folder, chosen.full)
        for future in later:
            future.result()
        with rows.attempt("resume"):
            again.result()
        differences: list[float | None] = []
        for pair in pairs:
            with rows.attempt("losses of the CPU"):
                differences.append(pair.result())
    known = [d for d in differences if d is not None]
    if len(known) == len(cases):
        rows.add("losses on the GPU against the CPU, largest difference", max(known))
    raise SystemExit(rows.failed)


def said(rows: Rows, name: str, found: Done) -> None:
    """A row of one run."""
    if found.error:
        rows.add(f"{name} as typed", error=found.error)
    else:
        rows.add(f"{name} as typed", found.result.status, seconds=found.seconds, steps=found.result.steps)


if __name__ == "__main__":
    main()
