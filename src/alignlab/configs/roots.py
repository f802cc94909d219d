"""The keys of each kind of run, a promise to users, and what of a config the run itself fills in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# How a run directory's config is to be read; one higher whenever modules move or keys change their meaning.
LAYOUT = 2
# Packages whose classes and functions a config may name.
ALLOWED = ("alignlab", "torch", "torchvision", "lightning", "transformers", "torchmetrics", "timm", "peft")
# What alignlab.runs.building hands over when it builds these nodes; they are neither missing nor to be set.
PROVIDED: Mapping[str, frozenset[str]] = {
    "model": frozenset({"vocabulary", "optim"}),
    "trainer": frozenset({"callbacks", "logger", "default_root_dir"}),
    "logger.*": frozenset({"save_dir"}),
}


@dataclass
class Root:
    """The keys of a training run's config."""

    model: dict  # the system: net, loss, method
    data: dict
    optim: dict
    trainer: dict
    callbacks: dict | None = None  # name -> callback; null drops one
    logger: dict | None = None  # name -> logger; null drops one
    seed: int = 0
    run_name: str | int = "run"
    resume: str | None = None  # a run directory to go on with
    ckpt_path: str | None = None  # a checkpoint to start from, with its optimizer
    init_from: str | None = None  # a run directory or a file whose weights to start from, as far as they fit
    objective: str | None = None  # the metric that a sweep optimises
    plugins: list[str] | str | None = None  # code beside this package that configs may name
    layout: Literal[2] = LAYOUT  # written by the run


@dataclass
class InferenceRoot:
    """The keys of an inference run's config."""

    task: dict
    backend: dict | None = None  # how a language model is run
    prompt: dict | None = None  # how a question is asked
    sampling: dict | None = None  # how tokens are chosen
    model_path: str | None = None  # hub id, folder or run directory; `model=` on the command line
    adapter: str | None = None  # folder of a PEFT adapter
    dtype: Literal["float32", "bfloat16"] = "float32"
    template: Literal["auto", "chat", "plain"] = (
        "auto"  # the model's own chat template: where it has one, always, never
    )
    prompt_text: str | int | float | None = None  # one prompt
    input: str | None = None  # a file of prompts
    output: str | None = None  # where the run directory shall be
    batch_size: int = 8  # prompts in the backend at a time
    seed: int = 0
    run_name: str | int = "infer"
    resume: str | None = None  # a run directory: what it has answered is not asked again
    plugins: list[str] | str | None = None  # code beside this package that configs may name
    layout: Literal[2] = LAYOUT  # written by the run


@dataclass
class ChainRoot:
    """The keys of a chain's config: several trainings in a row."""

    stages: dict  # name -> overrides of train.py, `{run}` in them is the chain's directory; null leaves one out
    overrides: list[str]  # what the command line changes, `stages.<name>.` before what is for one stage
    run_name: str | int = "chain"
    resume: str | None = None  # a chain's directory to go on with
    objective: str | None = None  # <stage>/<metric>
    plugins: list[str] | str | None = None  # code beside this package that configs may name
    layout: Literal[2] = LAYOUT  # written by the run
