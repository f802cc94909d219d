"""Errors in the words of the command line: the user's own inside what Hydra and Lightning wrap around it, with the
config's path.
"""

import re
import traceback

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from alignlab.files.leaves import leaves

_EXTRAS = ("tensorboard", "wandb", "mlflow", "trackio")  # of the loggers of that name


# What torch says of a data worker that has gone.
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w[\w ]*)|exited)")


class WorkerDied(Exception):
    """A process that makes batches has gone, and the run with it."""


def cause(failure: BaseException, cfg: DictConfig | None = None) -> BaseException:
    """What went wrong. A part speaks of its own parameter (`batch_size is 0`); here it becomes `data.batch_size is 0`.

    Args:
        failure: whatever a run has ended with.
        cfg: the run's config, to place an error that wasn't raised while Hydra built a node.
    """
    if isinstance(failure, InstantiationException) and failure.__cause__ is not None:
        inner = cause(failure.__cause__)
        if isinstance(inner, ImportError):  # of a package that only this part needs
            return ValueError(_below(str(failure), _missing(str(failure), inner), cfg))
        return ValueError(_below(str(failure), str(inner), cfg)) if type(inner) is ValueError else inner
    if isinstance(failure, SystemExit):
        frames = traceback.extract_tb(failure.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "something"
        return ValueError(
            f"{where} ended the program amid the run (SystemExit: {failure.code}); raise an error instead"
        )
    if type(failure).__name__ == "MisconfigurationException":  # Lightning's, which infer.py doesn't import
        return ValueError(str(failure))
    if isinstance(failure, RuntimeError) and (gone := _WORKER.search(str(failure))):
        how = f"was killed ({gone[2].strip()}; out of memory?)" if gone[2] else "has ended without a word"
        return WorkerDied(f"data worker {gone[1]} {how}; resume=... goes on, data.num_workers=0 takes none")
    if type(failure) is ValueError and cfg is not None:
        return ValueError(_placed(str(failure), cfg))
    return failure


def _missing(wrapped: str, error: ImportError) -> str:
    """What a part lacks in one line, with the extra that has it."""
    reason = next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
    extra = wrapped.rpartition("full_key: ")[2].strip().rpartition(".")[2]
    return f"{reason}; pip install 'alignlab[{extra}]'" if extra in _EXTRAS else reason


def _below(wrapped: str, message: str, cfg: DictConfig | None) -> str:
    """A constructor's message with the path of its node, which Hydra tells; a dot stands between if it begins with a
    key of the node.
    """
    where = wrapped.rpartition("full_key: ")[2].strip() if "full_key: " in wrapped else ""
    if not where or message.startswith(f"{where.partition('.')[0]}."):  # a part that knows its path
        return message
    first, node = re.match(r"\w+\b(?!:)", message), None if cfg is None else OmegaConf.select(cfg, where)
    own = first is not None and isinstance(node, DictConfig) and first[0] in node
    return f"{where}.{message}" if own else f"{where}: {message}"


def _placed(message: str, cfg: DictConfig) -> str:
    """A message that begins with `name=value` or `name is value`, with the path of the one key that has that name and
    value.
    """
    said = re.match(r"(\w+)(?:=| is )('[^']*'|[^\s;,:]+)", message)
    if said is None or said[1] in cfg:
        return message
    places = [
        path
        for path, value in leaves(OmegaConf.to_container(cfg, resolve=True))
        if path.endswith(f".{said[1]}") and said[2] in (str(value), repr(value))
    ]
    return message if len(places) != 1 else places[0].removesuffix(said[1]) + message
