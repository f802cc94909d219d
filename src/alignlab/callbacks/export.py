"""`<run directory>/export/`: the trained language model in Hugging Face's format, for infer.py, for the next stage, for everybody else."""

import shutil
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback


class Export(Callback):
    """Calls the system's `export(folder)` when training has ended, and saves the tokenizer beside it.

    Args:
        best: with the weights of checkpoints/best.ckpt where there is one, as `load_system` takes them; else with the last ones.
    """

    def __init__(self, best: bool = True) -> None:
        self.best = best

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        if not hasattr(pl_module, "export"):
            raise ValueError(f"callbacks.export: {type(pl_module).__name__} has nothing to export; drop it with null")
        folder = Path(trainer.default_root_dir) / "export"
        temporary = folder.with_name(".export")
        shutil.rmtree(temporary, ignore_errors=True)
        self._restore_best(trainer, pl_module)
        pl_module.export(temporary)
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)

    def _restore_best(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        import torch

        file = Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt"
        if self.best and file.exists() and trainer.state.status == "finished":
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
            pl_module.load_state_dict(state)
