"""Runs of training on the pretend device, in this process: `train(folder, overrides)`."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import alignlab.runs.train as program
from alignlab.configs.command_line import arguments
from alignlab.distributed import collectives
from pretend_cuda import device
from pretend_cuda.log import COLLECTIVE, PHASE, note, phase
from small_data import shrink

import lightning.fabric.accelerators.cuda as fabric_cuda
import lightning.pytorch as pl
import lightning.pytorch.accelerators.cuda as pytorch_cuda
import torch
import torch.utils.data
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.accelerators import CUDAAccelerator
from omegaconf import open_dict

WARM = 3  # steps of a phase of their own: first uses, the states of an optimizer, the throughput's start


def prepare() -> None:
    """What Lightning asks of CUDA, and what isn't here: pinned memory, a compiler for GPUs; fewer reviews and zero-shot pictures. Once a process."""
    fabric_cuda.num_cuda_devices = lambda: 1
    fabric_cuda.is_cuda_available = lambda: True
    fabric_cuda._get_all_visible_cuda_devices = lambda: [0]
    fabric_cuda._clear_cuda_memory = pytorch_cuda._clear_cuda_memory = lambda: None
    CUDAAccelerator.is_available = staticmethod(lambda: True)
    CUDAAccelerator.auto_device_count = staticmethod(lambda: 1)
    CUDAAccelerator.get_parallel_devices = staticmethod(lambda devices: [device.CUDA])
    CUDAAccelerator.get_device_stats = lambda self, of: {}
    torch.compile = lambda f=None, **_: f if f is not None else (lambda g: g)
    made = torch.utils.data.DataLoader.__init__
    torch.utils.data.DataLoader.__init__ = lambda self, *a, **k: made(self, *a, **{**k, "pin_memory": False})
    for name in ("all_gather", "all_gather_with_grad", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min"):
        setattr(collectives, name, _guarded(getattr(collectives, name)))
    shrink()
    _phases()


def _guarded(function: Callable) -> Callable:
    """A collective that notes CPU tensors, which NCCL would refuse."""

    @functools.wraps(function)
    def call(x, *args, **kwargs):
        for tensor in x.values() if isinstance(x, dict) else [x]:
            if isinstance(tensor, torch.Tensor) and not device.on_cuda(tensor):
                note(COLLECTIVE, f"{function.__name__} {tuple(tensor.shape)}")
        return function(x, *args, **kwargs)

    return call


def _phases() -> None:
    """Tells apart in the log: steps, those that log, the first ones; validation, checkpoints, exports."""

    def within(owner: type, name: str, called: Callable[..., str]) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(self, *args, **kwargs):
            with phase(called(self)):
                return function(self, *args, **kwargs)

        setattr(owner, name, call)

    def step(loop: object) -> str:
        trainer = loop.trainer
        if loop.total_batch_idx + 1 < WARM * trainer.accumulate_grad_batches:  # -1 before the first batch
            return "warm step"
        step = trainer.global_step + 1
        logs = step % trainer.log_every_n_steps == 0 or step == trainer.max_steps
        return "logging step" if logs else "step"

    from alignlab.callbacks.keeping.export import Export

    within(type(pl.Trainer(logger=False, accelerator="cpu").fit_loop.epoch_loop), "advance", step)
    within(pl.loops._EvaluationLoop, "run", lambda _: "validation")
    within(pl.Trainer, "save_checkpoint", lambda _: "save")
    within(Export, "on_fit_end", lambda _: "export")


def train(folder: Path, overrides: Sequence[str], more: Sequence[pl.Callback] = ()) -> program.Result:
    """The result of a run of train.py in this process, on the pretend device, from the trainer's building on."""
    folder.mkdir(parents=True, exist_ok=True)
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        cfg = compose("train", overrides=arguments(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().cfg = cfg.copy()
        del cfg["hydra"]
    build_trainer, on = program.build_trainer, device.entered()

    def build(cfg, run_dir, callbacks=()):
        on.__enter__()
        return build_trainer(cfg, run_dir, [*callbacks, *more])

    program.build_trainer = build
    try:
        with phase("run"):
            return program.train(cfg)
    finally:
        program.build_trainer = build_trainer
        if device.MODE in torch.utils._python_dispatch._get_current_dispatch_mode_stack():
            on.__exit__(None, None, None)
        assert PHASE == ["start"]
