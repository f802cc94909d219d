"""`alignlab plan model=albef_vqa data.batch_size=8 ...`: what a command line of train.py on pictures would need."""

import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, get_type_hints

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from alignlab.configs.check import ConfigError, check
from alignlab.configs.command_line import arguments
from alignlab.configs.explain import composed
from alignlab.configs.filling import filled
from alignlab.cost.memory import ADAMW_STATES
from alignlab.cost.picture_plan import PictureJob, picture_parts, picture_report
from alignlab.methods.step import Step
from alignlab.models.released.source import read_released
from alignlab.runs.fitting import check_net
from alignlab.runs.own_source import without_weights
from alignlab.types.language import TokenBatch
from alignlab.types.pairs import Vocabulary

WORDS, ANSWERS = 30522, 3128  # of BERT's tokenizer; of VQA v2's list
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


class Planned(NamedTuple):
    """What a command line would train, and how."""

    build: Callable[[], nn.Module]  # the method, with random weights
    words: Vocabulary
    job: PictureJob
    title: str


def plan_pictures(words: Sequence[str], memory_gb: float | None = None, answers: int = 4, gpu: bool = True) -> str:
    """The plan of a command line as text; see `planned`."""
    build, vocabulary, job, title = planned(words, answers, gpu)
    return picture_report(title, *picture_parts(build, vocabulary, job, Step), memory_gb)


def planned(words: Sequence[str], answers: int = 4, gpu: bool = True) -> Planned:
    """Reads a command line.

    Args:
        words: of train.py. What data would be read for isn't: texts have `data.context_length` tokens of a vocabulary
            of BERT's size, or of the released net's.
        answers: of a question, where there are questions.
        gpu: whether what CUDA's libraries take counts.

    Raises:
        ValueError: for what train.py refuses, and for methods that learn from other things than pictures.
    """
    cfg = composed(arguments(list(words)))
    _check(cfg)
    check_net(cfg.model)
    method = pkgutil.resolve_name(cfg.model._target_)
    kind = get_type_hints(method.forward).get("batch")
    if kind is None or kind.__module__ == TokenBatch.__module__:
        raise ValueError(
            f"{method.__name__} learns from texts: such plans go by the model's name "
            "(alignlab plan smollm2-135m --stage sft)"
        )
    precision = str(cfg.trainer.get("precision") or "32-true")
    if precision not in PRECISIONS:
        raise ValueError(f"trainer.precision={precision} has no plan; {', '.join(PRECISIONS)} have")
    if (part := cfg.model.get("micro_batch_size")) is not None:
        raise ValueError(
            f"model.micro_batch_size={part} has no plan; with data.batch_size={part} alone it is about that of a part"
        )
    released = read_released(cfg.data.like, "like") if cfg.data.get("like") else None
    size = cfg.data.get("image_size") or (released.sizes.image_size if released else 224)
    tokens = cfg.data.get("context_length") or (released.sizes.context_length if released else 32)
    vocabulary = Vocabulary(released.sizes.vocab_size if released else WORDS, 0, 1, 2, 3, ANSWERS)
    job = PictureJob(
        rows=cfg.data.get("batch_size") or 128,
        image_size=size,
        tokens=tokens,
        precision=precision,
        answers=answers,
        optimizer_states=1 if "muon" in str(cfg.optim.get("_target_")) else ADAMW_STATES,
        gpu=gpu,
    )
    node = without_weights(OmegaConf.to_container(cfg.model, resolve=True))
    build = partial(instantiate, DictConfig(node), vocabulary=vocabulary, _convert_="all")
    title = f"{method.__name__}, {job.rows} rows of {size} px and {tokens} tokens, {precision}"
    return Planned(build, vocabulary, job, title)


def _check(cfg: DictConfig) -> None:
    """Refuses what train.py would, but for data that aren't named."""
    try:
        check(filled(cfg))
    except ConfigError as error:
        wrong = [said for said in error.problems if not (said.startswith("data.") and "has no value yet" in said)]
        if wrong:
            raise ConfigError(wrong) from error
