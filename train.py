"""Trains what a config composes: `python train.py model=albef trainer=ddp`. `--help` lists the groups.

Exit codes: 0 done; 2 bad input or config; 130 stopped by Ctrl-C, 143 by SIGTERM, 138 by SIGUSR1 (128 + the signal's number);
1 anything else (also a run whose loss is not finite, a full disk, a rank that died).
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alignlab.configs import check as config
from alignlab.files.result import Result
from alignlab.launch import environment
from alignlab.launch.disk import DiskFull
from alignlab.launch.rank_watch import RankDied
from alignlab.launch.run_lock import Busy
from alignlab.launch.signals import Interrupted
from alignlab.runs import resuming

CONFIG_DIR = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def train(cfg: DictConfig) -> float | None:
    """One job: the objective is what a sweep sees."""
    job = HydraConfig.get()
    try:
        cfg = resuming.resumed(cfg, job.overrides.task, Path(job.runtime.output_dir))
        config.check(cfg)
    except config.ConfigError as error:
        Result(reason=str(error)).write(Path(job.runtime.output_dir))
        stop(f"{error}\nFix these and run again; add `--cfg job` to see the whole config.", code=2)
    try:
        if cfg.get("stages"):
            from alignlab.runs.chain import run_stages

            stages, folder = OmegaConf.to_container(cfg.stages), Path(job.runtime.output_dir)
            result = run_stages(
                stages, folder, job.overrides.task, Path(__file__), seed=cfg.seed, objective=cfg.objective
            )
        else:
            from alignlab.runs import train as run  # torch and lightning: after --help and after the check

            result = run.train(cfg)
    except Busy as error:
        stop(str(error), code=2)
    except (DiskFull, RankDied) as error:
        stop(str(error), code=1)
    except ValueError as error:
        stop(f"{error}\nThe traceback is in {job.runtime.output_dir}/train.log", code=2)
    if result.status == "diverged" and job.mode == RunMode.RUN:
        stop(f"the run diverged: {result.reason}", code=1)
    return result.objective


def stop(message: str, code: int) -> NoReturn:
    """Ends with a message instead of a traceback."""
    print("error:", message, file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Runs Hydra; what it can't compose is explained, all of it at once."""
    sys.argv[1:] = resuming.arguments(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting, whatever the environment says
    launch = environment.launch()
    if launch.external and launch.world_size > 1 and {"-m", "--multirun"} & set(sys.argv):
        stop(f"-m under torchrun or srun would run the sweep {launch.world_size} times; start it without", code=2)
    if launch.external and launch.rank > 0:  # these files are rank zero's
        sys.argv += ["hydra.output_subdir=null", f"hydra.job.name=train_rank_{launch.rank}"]
    try:
        train()
    except config.ConfigError as error:  # of a sweep's jobs
        stop("\n  ".join(error.problems), code=2)
    except (HydraException, ValueError) as error:
        overrides = get_args_parser().parse_args().overrides
        stop("\n  ".join(config.explain(error, overrides, CONFIG_DIR)), code=2)
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except Interrupted as signalled:
        stop(f"interrupted by {signalled.name}", code=signalled.exit_code)


if __name__ == "__main__":
    main()
