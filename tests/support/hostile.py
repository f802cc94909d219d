"""Configs as a stranger would leave them in a run directory: what each would run, read or write is a mark on the disk.

`MARK` in a value is the path of that mark, `FOLDER` a folder with modules and pickles that leave it.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Config = dict[str, Any]


class Touch:
    """Leaves the mark when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.mark),)


def folder(place: Path, mark: Path) -> Path:
    """Modules, pickles and configs that leave the mark."""
    place.mkdir(parents=True)
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    for name in ("hubconf.py", "evil_module.py", "configuration_evil.py"):
        (place / name).write_text(code + "def f(*args, **kwargs):\n    " + code.replace("\n", "\n    "))
    (place / "evil.pkl").write_bytes(pickle.dumps(Touch(str(mark))))
    (place / "evil.yaml").write_text("_target_: os.system\ncommand: touch MARK\n".replace("MARK", str(mark)))
    return place


def at(path: str, value: Any) -> Callable[[Config], None]:
    """Puts a value at a dotted path, making what isn't there."""

    def put(config: Config) -> None:
        *way, last = path.split(".")
        for name in way:
            config = config[int(name)] if name.isdigit() else config.setdefault(name, {})
            if config is None:
                raise TypeError(path)
        config[last] = value

    return put


def callback(target: str, **settings: Any) -> Callable[[Config], None]:
    return at("callbacks.evil", {"_target_": target, **settings})


RUN = {"_target_": "subprocess.run", "args": ["touch", "MARK"]}
SYSTEM = {"_target_": "os.system", "command": "touch MARK"}
# Of a training of CLIP.
TRAINING: dict[str, Callable[[Config], None]] = {
    "subprocess": at("callbacks.evil", RUN),
    "os.system": at("callbacks.evil", SYSTEM),
    "posix.system": callback("posix.system", _args_=["touch MARK"]),
    "exec": callback("builtins.exec", _args_=["open('MARK', 'w')"]),
    "open": callback("builtins.open", file="MARK", mode="w"),
    "a stage of a chain": callback("alignlab.launch.processes.run_in_turn", command=["touch", "MARK"], inbox=None),
    "a module's import": callback("alignlab.runs.record.subprocess.run", args=["touch", "MARK"]),
    "a function for rewards": callback("alignlab.methods.rlhf.reward._imported", path="evil_module.f", key="x"),
    "an import of a module": callback("alignlab.methods.rlhf.reward.importlib.import_module", name="evil_module"),
    "a hub's code": callback("torch.hub.load", repo_or_dir="FOLDER", model="f", source="local"),
    "a pickle": callback("torch.load", f="FOLDER/evil.pkl", weights_only=False),
    "a pickle of pickle's": callback("pickle.loads", _args_=["x"]),
    "torch's compiler": callback("torch.utils.cpp_extension.load_inline", name="x", cpp_sources="int x;"),
    "timm's models of others": callback("timm.create_model", model_name="hf-hub:evil/evil", pretrained=True),
    "a model's own code": callback(
        "transformers.AutoConfig.from_pretrained", _args_=["FOLDER"], trust_remote_code=True
    ),
    "Hydra again": callback("hydra.utils.instantiate", config=SYSTEM),
    "a partial": callback("functools.partial", _args_=[RUN]),
    "calls at each step": callback(
        "lightning.pytorch.callbacks.LambdaCallback", on_fit_start=RUN | {"_partial_": True}
    ),
    "files somewhere else": callback("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="MARK"),
    "the predictions of another run": callback("alignlab.tasks.predictions.Predictions", run_dir="MARK", resumed=False),
    "another model's files": callback("alignlab.models.language.ends.write_ends", folder="FOLDER", ends={}),
    "a method of a class": callback("pathlib.Path.touch", _args_=[{"_target_": "pathlib.Path", "_args_": ["MARK"]}]),
    "within a list": at("trainer.plugins", [[SYSTEM]]),
    "within a net": at("model.net.vision.evil", SYSTEM),
    "the strategy": at("trainer.strategy", SYSTEM),
    "a logger": at("logger.evil", SYSTEM),
    "the optimizer": at("optim", SYSTEM),
    "the data": at("data", SYSTEM),
    "the model": at("model", SYSTEM),
    "the data's source": at("data.source", "os.system"),
    "a source's module": at("data.source", "evil_module.f"),
    "a reward's function": at("model.reward", "evil_module.f"),
    "one of several rewards": at("model.reward", {"good": "evil_module.f"}),
    "rewards within rewards": at("model.judge", {"good": {"better": "evil_module.f"}}),
    "a judge": at("model.judge", "evil_module.f"),
    "a target to be made": at("callbacks.evil", {"_target_": "${run_name}", "command": "touch MARK"}),
    "a target that is a list": at("callbacks.evil", {"_target_": ["os.system"], "command": "touch MARK"}),
    "the environment": at("run_name", "${oc.env:HOME}"),
    "the user's files for others to see": at(
        "logger.wandb", {"_target_": "lightning.pytorch.loggers.WandbLogger", "settings": {"code_dir": "/"}}
    ),
    "another version": at("layout", "evil"),
}
# Of a chain.
CHAIN: dict[str, Callable[[Config], None]] = {
    "a stage's target": at("stages.first", ["++callbacks.evil._target_=os.system", "++callbacks.evil.command='touch MARK'"]),
    "a stage's node": at("stages.first", ["++callbacks.evil={_target_:os.system,command:'touch MARK'}"]),
    "a word for all stages": at("overrides", ["++optim._target_=torch.hub.load"]),
    "Hydra's own keys": at("stages.first", ["hydra.callbacks.evil._target_=os.system"]),
    "Hydra's options": at("stages.first", ["--config-dir=FOLDER"]),
    "a file of others": at("stages.first", ["model=../../../../../../../../../../..FOLDER/evil"]),
    "the environment": at("stages.first", ["run_name=${oc.env:HOME}"]),
    "a folder of others": at("stages", {"../../victim": ["model=clip"]}),
    "a reward's function": at("stages.first", ["model=ppo", "model.reward=evil_module.f"]),
    "one of several rewards": at("stages.first", ["model=ppo", "model.reward={good: evil_module.f}"]),
}  # fmt: skip
# Of an inference run.
INFERENCE: dict[str, Callable[[Config], None]] = {
    "the task": at("task", SYSTEM),
    "the backend": at("backend", SYSTEM),
    "the prompt": at("prompt", RUN),
    "a benchmark's words": at(
        "task", {"_target_": "alignlab.tasks.benchmark.Benchmark", "backends": ["int8 backend._target_=os.system"]}
    ),
}
# Not even a config.
TEXTS: dict[str, bytes] = {
    "a tag": b"!!python/object/apply:os.system ['touch MARK']",
    "a tag within": b"callbacks: !!python/object/new:os.system [touch MARK]",
    "a bomb": b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)),
    "too deep": b"[" * 5000 + b"]" * 5000,
    "too large": b"a: '" + b"x" * 5_000_000 + b"'",
    "empty": b"",
    "a list": b"- 1",
    "a picture": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "zeros": bytes(4096),
}


def filled_in(value: Any, mark: Path, place: Path) -> Any:
    """A value with the paths in it."""
    if isinstance(value, dict):
        return {filled_in(key, mark, place): filled_in(entry, mark, place) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled_in(entry, mark, place) for entry in value]
    return value.replace("MARK", str(mark)).replace("FOLDER", str(place)) if isinstance(value, str) else value


def write(run_dir: Path, config: Config, change: Callable[[Config], None], mark: Path, place: Path) -> Path:
    """A run directory with the changed config."""
    run_dir.mkdir(parents=True, exist_ok=True)
    change(config)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(filled_in(config, mark, place)))
    return run_dir
