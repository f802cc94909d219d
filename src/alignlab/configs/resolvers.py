"""What `${...:...}` means in the files of conf/; importing this module tells Hydra."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf

from alignlab.configs.folders import choices
from alignlab.configs.starting import picture_size, start_lr
from alignlab.launch.environment import agreed_name


def _run_dir(resume: str | None, run_name: str, output: str | None = None) -> str:
    """Where a run writes: the directory it resumes, the one it is told, else a new one."""
    if study := _choice("study", None):  # the same command goes on
        return f"outputs/studies/{study}"
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    return resume or output or f"outputs/{run_name}/{agreed_name(words=words)}"


def _choice(group: str, otherwise: str | None = "run") -> str | None:
    """What was chosen for a group on this command line."""
    return HydraConfig.get().runtime.choices.get(group, otherwise) if HydraConfig.initialized() else otherwise


def _choices(group: str) -> str:
    """What there is to choose from for a group, for --help."""
    return ", ".join(choices(group))


def _unless(key: str, _parent_: DictConfig) -> None:
    """Null where the key beside it has a value; a value that must be set (`???`) otherwise."""
    if _parent_.get(key) is None:
        raise MissingMandatoryValue(f"or {key} beside it")


OmegaConf.register_new_resolver("run_dir", _run_dir, use_cache=True, replace=True)  # cached: one time stamp a process
OmegaConf.register_new_resolver("choice", _choice, replace=True)
OmegaConf.register_new_resolver("choices", _choices, replace=True)
OmegaConf.register_new_resolver("start_lr", start_lr, replace=True)
OmegaConf.register_new_resolver("picture_size", picture_size, replace=True)
OmegaConf.register_new_resolver("unless", _unless, replace=True)
