"""`<run directory>/export/`: the trained language model in Hugging Face's format, for infer.py, for the next stage,
for everybody else.
"""

import logging
import shutil
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.keeping.checkpoint_folder import damage
from alignlab.files.checksums import write_sums
from alignlab.models.language.ends import described, ends_of, write_ends
from alignlab.strategies.replica import whole

log = logging.getLogger(__name__)


class Export(Callback):
    """Calls the system's `export(folder)` when training has ended, and saves the tokenizer beside it.

    Ranks: sharded parameters are gathered by all of them; rank zero alone writes.

    Args:
        best: with the weights of checkpoints/best.ckpt where there is one, as `load_system` takes them; else with the
            last ones.
    """

    def __init__(self, best: bool = True) -> None:
        self.best = best

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Says which tokens end a text, where language is learned."""
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)
        if tokenizer is not None and trainer.is_global_zero:
            log.info("a text ends with %s", described(self._ends(trainer, pl_module), tokenizer))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not hasattr(pl_module, "export"):
            raise ValueError(f"{type(pl_module).__name__} has nothing to export: export=null drops the callback")
        if (reason := getattr(pl_module, "cannot_export", None)) is not None:
            log.warning("no export/: %s; init_from= goes on from its checkpoints", reason)
            return
        module = whole(pl_module, on="rank zero")
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "export"
        temporary = folder.with_name(".export")
        shutil.rmtree(temporary, ignore_errors=True)
        self._restore_best(trainer, module)
        module.export(temporary)
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)
        places = [place for place in (temporary, temporary / "merged") if place.is_dir()]
        if tokenizer is not None:
            ends = self._ends(trainer, module)
            for place in places:
                tokenizer.save_pretrained(place)
                write_ends(place, ends)
        for place in places:
            write_sums(place)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)

    @staticmethod
    def _ends(trainer: lightning.Trainer, module: lightning.LightningModule) -> dict[int, list[str]]:
        """What ends a text for the net (or the model in it), the tokenizer and the rollouts of a run."""
        net = getattr(module, "net", None)
        model = net if hasattr(net, "config") else getattr(net, "model", None)
        settings = (getattr(model, name, None) for name in ("config", "generation_config"))
        stops = getattr(getattr(module, "sampling", None), "stop_ids", ())
        return ends_of(*settings, trainer.datamodule.tokenizer, stops)

    def _restore_best(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        file = Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt"
        if not self.best or not file.exists() or trainer.state.status != "finished":
            return
        if file.is_dir():
            log.warning(
                "export/ holds the last weights: checkpoints/best.ckpt is a folder of shards (`alignlab convert whole`)"
            )
            return
        if (what := damage(file)) is not None:
            log.warning("export/ holds the last weights: %s %s", file, what)
            return
        module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["state_dict"])
