"""What each of two processes does in `test_ppo.py`."""

import os
from functools import partial
from pathlib import Path

from alignlab.methods.ppo import PpoMethod
from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.objective import Objective
from alignlab.methods.rlhf.update import Update
from alignlab.models.language.loading import pretrained
from alignlab.systems.choosing import system_of
from recorder import Recorder
from tiny_policy import VOCABULARY, Prompts, count_good, save_model, sgd, trainer

import torch


def train(folder: Path, ranks: int) -> dict:
    """Two updates with a joint batch of 8, unequal numbers of tokens on the ranks; weights, metrics and state afterwards."""
    method = partial(
        PpoMethod,
        partial(pretrained, path=str(folder / "model")),
        count_good,
        kl=KlController(0.1, target=0.01, horizon=100),
        objective=Objective(entropy_coefficient=0.01),
        score_scale="running",
        whiten_rewards=True,
        response_length=8,
        update=Update(epochs=2, micro_batch_size=3, max_grad_norm=0.5),
    )
    system = system_of(method, vocabulary=VOCABULARY, optim=lambda module, total_steps: sgd(module))
    recorder = Recorder()
    settings = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    one = trainer(folder / "run", 2, callbacks=[recorder], **settings)
    one.fit(system, datamodule=Prompts(8 // ranks))
    state = {"kl": system.kl.coefficient, **system.scale.state_dict()}
    return {"weights": system.state_dict(), "metrics": recorder.rows, "state": state}


def main() -> None:
    """Entry point of both processes: Lightning starts the second one by itself."""
    torch.set_num_threads(1)
    folder = Path(os.environ["PPO_FOLDER"])
    found = train(folder, 2)
    torch.save(found, folder / f"{os.environ.get('LOCAL_RANK', '0')}.pt")


if __name__ == "__main__":
    main()

__all__ = ["save_model", "train"]
