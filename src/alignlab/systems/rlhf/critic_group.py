"""A parameter group of its own for the critic."""

from collections.abc import Iterable

from torch import nn


def with_critic_group(built: dict, critic: Iterable[nn.Parameter], ratio: float) -> dict:
    """Move the critic's parameters into groups at `ratio` times their learning rate; the schedule is that of the rest.

    `built` is what the `optim` group gives to Lightning: an optimizer and a `LambdaLR`. Returns it. Raises ValueError
    for a ratio that is not positive.
    """
    if ratio <= 0:
        raise ValueError(f"critic_lr_ratio={ratio} must be positive")
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    own = {id(p) for p in critic}
    for index, group in enumerate(list(optimizer.param_groups)):
        moved = [p for p in group["params"] if id(p) in own]
        if not moved:
            continue
        kept = [p for p in group["params"] if id(p) not in own]
        settings = {key: value for key, value in group.items() if key != "params"}
        settings |= {"lr": group["lr"] * ratio, "initial_lr": group["initial_lr"] * ratio}
        if not kept:
            group.update(settings)
            scheduler.base_lrs[index] *= ratio
            continue
        group["params"] = kept
        optimizer.add_param_group({"params": moved, **settings})
        scheduler.base_lrs.append(settings["initial_lr"])
        scheduler.lr_lambdas.append(scheduler.lr_lambdas[index])
    return built
