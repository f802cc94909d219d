"""samples/best_of_n.jsonl: what picking the best of n samples of the untrained policy gives."""

import json
import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.evaluators.evaluator import read_by, untouched
from alignlab.evaluation.best_of_n import best_of_n
from alignlab.files.text import json_lines
from alignlab.files.writing import write_text

FILE = "best_of_n.jsonl"


class BestOfN(Callback):
    """Samples several responses to held-out prompts before the first update and picks by the reward; a resumed run
    keeps what it has.

    Ranks: all of them gather a policy that is cut up; rank zero alone samples.

    Args:
        num_samples: responses to each prompt; n goes up to it in powers of two.
        num_batches: of the validation prompts.
    """

    def __init__(self, num_samples: int = 16, num_batches: int = 1) -> None:
        if num_samples < 1 or num_batches < 1:
            raise ValueError(f"num_samples={num_samples} and num_batches={num_batches} must be positive")
        self.num_samples, self.num_batches = num_samples, num_batches

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step > 0:
            return
        with pl_module.speaking(answers=True):
            if trainer.is_global_zero:
                self._sample(trainer, pl_module)

    def _sample(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        file = Path(trainer.default_root_dir) / "samples" / FILE
        answers = []
        loader = read_by(trainer, "best_of_n", "val_dataloader").val_dataloader()
        with untouched(pl_module):
            for number, batch in zip(range(self.num_batches), loader, strict=False):
                answers += pl_module.answers(trainer.strategy.batch_to_device(batch), number, self.num_samples)
        least = min((a.score for a in answers if math.isfinite(a.score)), default=0.0)  # what has no score isn't picked
        table = lambda values: torch.tensor(values).nan_to_num(least).view(-1, self.num_samples)  # noqa: E731
        judge = None if answers[0].judge is None else table([a.judge for a in answers])
        sizes = tuple(2**i for i in range(self.num_samples.bit_length()))
        results = best_of_n(table([a.score for a in answers]), judge, sizes)
        write_text(file, "".join(json.dumps(row._asdict()) + "\n" for row in results))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the largest n's numbers among the run's metrics."""
        file = Path(trainer.default_root_dir) / "samples" / FILE
        if trainer.is_global_zero and file.exists():
            *_, (_, _, last) = json_lines(file)
            names = ("kl", "score", "judge")
            values = {f"best_of_{last['n']}/{name}": last[name] for name in names if last[name] is not None}
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
