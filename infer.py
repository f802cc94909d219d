"""Runs a trained model: `python infer.py task=generate model=DIR prompt_text='...'`. `--help` lists the groups.

Exit codes: 0 done, 2 bad input or config, 130 stopped by Ctrl-C, 143 by SIGTERM (what is finished is kept), 1 anything else.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from alignlab.configs import check as config
from alignlab.files.result import Result
from alignlab.launch.signals import Interrupted
from alignlab.runs import resuming

CONFIG_DIR = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="infer")
def infer(cfg: DictConfig) -> float | None:
    """One run: the objective is the task's main number, for sweeps over backends or prompts."""
    job = HydraConfig.get()
    try:
        cfg = resuming.resumed(cfg, job.overrides.task, root=config.InferenceRoot)
        config.check(cfg, root=config.InferenceRoot)
    except config.ConfigError as error:
        Result(reason=str(error)).write(Path(job.runtime.output_dir))
        stop(f"{error}\nFix these and run again; add `--cfg job` to see the whole config.", code=2)
    from alignlab.runs import infer as serve  # torch and transformers: after --help and after the check

    try:
        return serve.infer(cfg).objective
    except ValueError as error:
        stop(f"{error}\nThe traceback is in {job.runtime.output_dir}/infer.log", code=2)


def stop(message: str, code: int) -> NoReturn:
    """Ends with a message instead of a traceback."""
    print("error:", message, file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Runs Hydra; what it can't compose is explained, all of it at once."""
    sys.argv[1:] = resuming.arguments(config.inference_arguments(sys.argv[1:]))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting, whatever the environment says
    try:
        infer()
    except (HydraException, ValueError) as error:
        overrides = get_args_parser().parse_args().overrides
        found = config.explain(error, overrides, CONFIG_DIR, program="infer", root=config.InferenceRoot)
        stop("\n  ".join(found), code=2)
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except Interrupted as signalled:
        stop(f"interrupted by {signalled.name}", code=signalled.exit_code)


if __name__ == "__main__":
    main()
