"""A linear probe on the vision tower's features at the end of training."""

from typing import Literal

import lightning
import torch
from torch import Tensor

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, read_by, transfer
from alignlab.evaluation.linear_probe import linear_probe, split_by_class
from alignlab.evaluation.zero_shot import encode_labelled


class LinearProbe(Evaluator):
    """Accuracy of logistic regression that learns from one set of `datamodule.zero_shot_sets()` and is tested on
    another.

    Ranks: as `Evaluator`; features are gathered.

    Args:
        train, test: names of the sets; with `test=None` a fifth of every class of `train` is held out as test.
        features: "joint": the normalised embedding; "tower": the CLS token before the projection, where the model
            gives tokens.
        shots: learn from so many pictures of each class only.
        every: "end" or "validation".
        seed: of the split and the shots.
    """

    def __init__(
        self,
        train: str,
        test: str | None = None,
        features: Literal["joint", "tower"] = "joint",
        shots: int | None = None,
        every: Every = "end",
        seed: int = 0,
    ) -> None:
        super().__init__(every)
        if features not in ("joint", "tower"):
            raise ValueError(f'features is {features!r}; it must be "joint" or "tower"')
        self.train, self.test, self.features, self.shots, self.seed = train, test, features, shots, seed

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        available = read_by(trainer, "linear_probe", "zero_shot_sets").zero_shot_sets()
        for key, name in (("train", self.train), ("test", self.test)):
            if name is not None and name not in available:
                raise ValueError(f"{key} is {name!r}; the sets are {sorted(available)}")

        def encode(name: str) -> tuple[Tensor, Tensor]:
            return encode_labelled(
                lambda image: self._features(module, image),
                available[name].batches,
                transfer=transfer(trainer, module),
            )

        train = encode(self.train)
        if self.test is None:
            part, held_out = split_by_class(train[1], 0.2, seed=self.seed)
            train, test = [x[part] for x in train], [x[held_out] for x in train]
        else:
            test = encode(self.test)
        with torch.autocast(module.device.type, enabled=False):
            result = linear_probe(*train, *test, shots=self.shots, seed=self.seed)
        return {"linear_probe_accuracy": result.accuracy}

    def _features(self, module: lightning.LightningModule, image: Tensor) -> object:
        encoding = module.encode_image(image)
        if self.features == "joint":
            return encoding
        if encoding.tokens is None:
            raise ValueError('features="tower" needs a model that gives tokens: use "joint"')
        return encoding._replace(features=encoding.tokens[:, 0])
