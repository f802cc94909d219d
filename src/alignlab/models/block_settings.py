"""Settings of all blocks of a net at once: activations computed again in the backward pass, translation by
`torch.compile`.
"""

import shutil
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn


def set_blocks(net: nn.Module, *, gradient_checkpointing: bool, compile: bool | dict[str, Any]) -> None:
    """What systems do with a net that was just built, for their keys of the same names."""
    if gradient_checkpointing:
        checkpoint_blocks(net)
    if compile:
        compile_blocks(net, compile)


def checkpoint_blocks(net: nn.Module) -> None:
    """Switch gradient checkpointing on in every tower: of a block's activations only its input is kept
    (arXiv:1604.06174).

    Raises ValueError where there is nothing to switch.
    """
    towers = [module for module in net.modules() if hasattr(module, "gradient_checkpointing")]
    if not towers:
        raise ValueError(f"gradient_checkpointing=true: {type(net).__name__} has no blocks to run again")
    for tower in towers:
        tower.gradient_checkpointing = True


def compile_blocks(module: nn.Module, options: bool | dict[str, Any] = True) -> None:
    """Let `torch.compile` translate every block in place; names and values of parameters stay as they are.

    A block is a module with `entry_points`. One of a class is translated and serves for the whole depth, so that the
    first step waits for a handful of small graphs instead of the net's. Copies made later (a teacher) are compiled
    too. options: True, or arguments of `torch.compile` such as {"mode": "max-autotune"}. Raises ValueError for options
    that torch doesn't take, for a net with towers that can't be compiled, and where there is no compiler.
    """
    blocks = [part for part in module.modules() if hasattr(part, "entry_points")]
    for name, part in module.named_modules():
        if hasattr(part, "gradient_checkpointing") and not any(hasattr(p, "entry_points") for p in part.modules()):
            raise ValueError(f"compile: {name} has no blocks that can be compiled; use compile=false")
    if not blocks:
        raise ValueError(f"compile: {type(module).__name__} has no blocks to compile; use compile=false")
    _check_compiler()
    # a method is seen by pictures and texts, with and without gradient, in training and not, with one batch size and
    # with several
    torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)
    for block in blocks:
        for name in block.entry_points:
            # A method bound to this block, not a function that remembers it: a deep copy then calls itself.
            setattr(block, name, MethodType(_compiled(getattr(type(block), name), options), block))


_TRANSLATIONS: dict[tuple[Callable, str], Callable] = {}  # blocks of a class share theirs


def _compiled(function: Callable, options: bool | dict[str, Any]) -> Callable:
    key = (function, repr(options))
    if key not in _TRANSLATIONS:
        try:
            _TRANSLATIONS[key] = torch.compile(function, **({} if options is True else options))
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"compile={options}: torch.compile refuses it ({error})") from error
    return _TRANSLATIONS[key]


def _check_compiler() -> None:
    if torch.cuda.is_available():
        missing = torch.utils._triton.has_triton() is False and "Triton"
    else:
        from torch._inductor import config

        missing = not any(shutil.which(name) for name in config.cpp.cxx if name) and "a C++ compiler (g++ or clang++)"
    if missing:
        raise ValueError(f"compile needs {missing} on this machine; use compile=false")
