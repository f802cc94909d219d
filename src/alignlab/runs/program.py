"""What train.py and infer.py are: a command line becomes a run, its errors become messages, its end an exit code."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from alignlab.configs import plugins
from alignlab.configs.check import ConfigError
from alignlab.configs.command_line import as_typed
from alignlab.configs.explain import explain
from alignlab.configs.roots import InferenceRoot
from alignlab.files.result import Result
from alignlab.launch import disk, environment, streams
from alignlab.launch.admission import Taken
from alignlab.launch.disk import DiskFull
from alignlab.launch.rank_watch import RankDied
from alignlab.launch.run_lock import Busy
from alignlab.launch.signals import Interrupted
from alignlab.runs import kinds
from alignlab.runs.chain import StageFailed
from alignlab.runs.errors import WorkerDied


def main(program: str, configs: Path) -> None:
    """Runs Hydra; what it can't compose is explained, all of it at once.

    Args:
        program: train or infer.
        configs: the folder conf/.
    """
    streams.speak_utf8()
    streams.make_lasting()
    try:
        plugins.activate(sys.argv[1:], configs)
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
    kind, sys.argv[1:] = kinds.typed(program, sys.argv[1:])
    # What is fetched is fetched by `alignlab fetch`, whole and checked: a run with missing weights ends at once.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting, whatever the environment says
    stop = _stopping(kind)
    launch = environment.launch()
    if launch.external and launch.world_size > 1:
        of_one = {kinds.CHAIN: ("chain=", "chain"), kinds.INFER: ("infer.py", "job")}
        what, each = ("-m", "sweep") if {"-m", "--multirun"} & set(sys.argv) else of_one.get(kind, (None, ""))
        if what is not None:
            stop(
                f"{what} under torchrun or srun would run the {each} {launch.world_size} times; start it without",
                code=2,
            )
        if launch.rank > 0:  # these files are rank zero's
            sys.argv += ["hydra.output_subdir=null", f"hydra.job.name={kind.name}_rank_{launch.rank}"]
    try:
        if not _shown(kind, configs):
            _hydra_job(kind, configs, stop)()
    except ConfigError as error:  # of a sweep's jobs
        stop("\n  ".join(error.problems), code=2)
    except (HydraException, ValueError) as error:
        overrides = get_args_parser().parse_args().overrides
        stop("\n  ".join(explain(error, overrides, kind.name, kind.root)), code=2)
    except OSError as error:  # before there is a run
        place = HydraConfig.get().run.dir if HydraConfig.initialized() else "."
        if (told := disk.explained(error, Path(place))) is error:
            raise
        stop(str(told), code=1)
    except KeyboardInterrupt:
        stop("interrupted", code=130)
    except Interrupted as signalled:
        stop(f"interrupted by {signalled.name}", code=signalled.exit_code)


def _stopping(kind: kinds.Kind) -> Callable[..., NoReturn]:
    def stop(message: str, code: int) -> NoReturn:
        """Ends with a message instead of a traceback."""
        print("error:", as_typed(message) if kind.root is InferenceRoot else message, file=sys.stderr)
        sys.exit(code)

    return stop


def _hydra_job(kind: kinds.Kind, configs: Path, stop: Callable[..., NoReturn]) -> Callable[[], None]:
    def run(cfg: DictConfig) -> float | None:
        """One job: the objective is what a sweep sees."""
        job = HydraConfig.get()
        run_dir = Path(job.runtime.output_dir)
        try:
            cfg = kind.checked(cfg, job.overrides.task, run_dir)
            if kind is kinds.TRAIN and environment.launch().rank == 0:  # seconds pass before anything else is said
                print(f"run directory {run_dir}; loading torch", flush=True)
            kind.imported(cfg)
        except ConfigError as error:
            if not (run_dir / "result.json").exists():  # of the run that was to be resumed
                Result(reason=str(error)).write(run_dir)
            stop(f"{error}\nFix these and run again; add `--cfg job` to see the whole config.", code=2)
        cfg = _completed(kind, cfg, run_dir, stop)
        try:
            result = kind.run(cfg)
        except (Busy, Taken) as error:
            stop(str(error), code=2)
        except (DiskFull, RankDied, WorkerDied) as error:
            stop(str(error), code=1)
        except StageFailed as error:
            stop(str(error), code=error.exit_code)
        except ValueError as error:
            stop(f"{error}\nThe traceback is in {run_dir}/{kind.log}", code=2)
        if result.status == "diverged" and job.mode == RunMode.RUN:
            stop(f"the run diverged: {result.reason}", code=1)
        return result.objective

    return hydra.main(version_base="1.3", config_path=str(configs), config_name=kind.name)(run)


def _completed(kind: kinds.Kind, cfg: DictConfig, run_dir: Path, stop: Callable[..., NoReturn]) -> DictConfig:
    """The config with what earlier runs give; where there is nothing to begin from, result.json says so to further
    ranks too.
    """
    try:
        return kind.completed(cfg, run_dir)
    except (ValueError, StageFailed) as error:
        if environment.launch().rank == 0:
            Result(reason=str(error)).write(run_dir)
        stop(str(error), code=getattr(error, "exit_code", 2))


def _shown(kind: kinds.Kind, configs: Path) -> bool:
    """Prints what `--cfg job` asks for, every default written out; whether it was asked for."""
    options = get_args_parser().parse_args()
    if options.cfg != "job" or options.help or options.hydra_help or options.config_dir or options.config_name:
        return False
    with initialize_config_dir(str(configs), job_name=kind.name, version_base="1.3"):
        cfg = compose(kind.name, overrides=options.overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        cfg = kind.shown(cfg)
    shown = cfg if options.package in (None, "_global_") else OmegaConf.select(cfg, options.package)
    if options.resolve and OmegaConf.is_config(shown):
        OmegaConf.resolve(shown)
    print(OmegaConf.to_yaml(shown).rstrip("\n") if OmegaConf.is_config(shown) else shown)
    return True
