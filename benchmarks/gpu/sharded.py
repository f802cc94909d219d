"""`trainer=fsdp` and `trainer=deepspeed` on one GPU, against one plain device in float32. A part of `make gpu`."""

from commands import Command, run_all
from rows import Rows, options

KINDS = {"fsdp": (), "deepspeed": ("trainer.strategy.stage=2",)}
TOLERANCE = 1e-4  # relative, over twelve steps


def main() -> None:
    chosen = options(__doc__)
    rows = Rows(chosen.folder)
    plain = "trainer=gpu" if chosen.full else "trainer=cpu"
    steps = (
        ("trainer.max_steps=12", "data.batch_size=16") if chosen.full else ("trainer.max_steps=2", "data.batch_size=4")
    )
    same = (
        "model=clip",
        *steps,
        "trainer.val_check_interval=100",
        "trainer.log_every_n_steps=1",
        "++trainer.limit_val_batches=1",
    )
    same = (*same, "trainer.precision=32-true", "trainer.devices=1")
    kinds = KINDS if chosen.full else {"fsdp": ()}
    commands = [Command("plain", (plain, *same))]
    commands += [Command(kind, (f"trainer={kind}", *more, *same)) for kind, more in kinds.items()]
    done = run_all(commands, chosen.folder)
    for name, found in done.items():
        if found.error:
            rows.add(f"trainer={name}" if name != "plain" else plain, error=found.error)
            continue
        if name == "plain" or done["plain"].error:
            continue
        with rows.attempt(f"trainer={name}"):
            pairs = zip(found.losses(), done["plain"].losses(), strict=True)
            difference = max(abs(a - b) / abs(b) for a, b in pairs)
            rows.add(
                f"trainer={name}, losses of one plain device, largest relative difference",
                difference,
                seconds=found.seconds,
            )
            if difference > TOLERANCE:
                rows.add(f"trainer={name}", error=f"losses differ by {difference:.1e}")
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
