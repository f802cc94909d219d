"""A run directory is data, whoever has filled it: its config names parts, or is refused before anything is built."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile
from alignlab.configs import parts
from alignlab.configs.check import ConfigError
from alignlab.configs.command_line import arguments
from alignlab.configs.filling import filled
from alignlab.configs.roots import ChainRoot, InferenceRoot
from alignlab.runs import chain, resuming
from alignlab.runs.building import load_system
from tiny_run import REPOSITORY, TINY

import pytest
from omegaconf import DictConfig, OmegaConf

Compose = Callable[..., DictConfig]


class Place:
    """A folder of evil things, and the mark that each would leave."""

    def __init__(self, path: Path) -> None:
        self.mark, self.evil, self.run = path / "MARK", hostile.folder(path / "evil", path / "MARK"), path / "run"

    def check(self, error: BaseException) -> None:
        """Nothing was run, and one line says what is wrong."""
        assert not self.mark.exists()
        problems = getattr(error, "problems", [str(error)])
        assert len(problems) <= 2 and all("\n" not in problem for problem in problems)
        assert "Error" not in problems[0], problems


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found = Place(tmp_path)
    monkeypatch.chdir(found.evil)  # where an own function of the user's would lie
    monkeypatch.syspath_prepend(str(found.evil))
    yield found
    sys.modules.pop("evil_module", None)


@pytest.fixture(scope="module")
def whole() -> dict[str, DictConfig]:
    """Configs of each kind of run, composed once."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return {
            "train": filled(compose("train", overrides=arguments(TINY))),
            "infer": filled(compose("infer", overrides=["model_path=x", "prompt_text=x"]), InferenceRoot),
            "chain": filled(compose("chain", overrides=["+stages.first=['model=clip']"]), ChainRoot),
            "resume=": compose("train", overrides=[]),
        }


def plain(cfg: DictConfig) -> dict:
    return OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True)))


def test_what_conf_names_and_nothing_beside_it_is_a_part() -> None:
    for name in (
        "lightning.Trainer alignlab.methods.clip.ClipMethod alignlab.optim.adamw.adamw alignlab.data.emoji.pictures.EmojiPairs "
        "alignlab.methods.rlhf.reward.AdapterReward alignlab.models.vision.ConvStem"
    ).split():
        assert parts.is_part(name), name
    for name in (
        "torch.hub.load torch.load os.system alignlab alignlab.x alignlab.launch.processes.run_in_turn lightning.Trainer.fit "
        "alignlab.configs.hydra_events.HydraEvents alignlab.tasks.predictions.Predictions alignlab.methods.rlhf.reward.torch.load "
        "hydra_plugins.alignlab_launcher.processes.ProcessLauncher alignlab.methods.rlhf.reward.FunctionReward"
    ).split():
        assert not parts.is_part(name), name


@pytest.mark.parametrize("name", hostile.TRAINING)
def test_a_training(name: str, place: Place, whole: dict[str, DictConfig]) -> None:
    hostile.write(place.run, plain(whole["train"]), hostile.TRAINING[name], place.mark, place.evil)
    (place.run / "checkpoints").mkdir()
    (place.run / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ConfigError) as refused:
        resuming.resumed(OmegaConf.merge(whole["resume="], {"resume": str(place.run)}), [f"resume={place.run}"])
    place.check(refused.value)
    with pytest.raises(ValueError, match=str(place.run)) as refused:
        load_system(place.run)
    place.check(refused.value)


@pytest.mark.parametrize("name", hostile.INFERENCE)
def test_an_inference(name: str, place: Place, whole: dict[str, DictConfig], composed: Compose) -> None:
    hostile.write(place.run, plain(whole["infer"]), hostile.INFERENCE[name], place.mark, place.evil)
    words = [f"resume={place.run}"]
    with pytest.raises(ConfigError) as refused:
        resuming.resumed(composed(*words, "model_path=x", program="infer"), words, root=InferenceRoot)
    place.check(refused.value)


@pytest.mark.parametrize("name", hostile.CHAIN)
def test_a_chain(name: str, place: Place, whole: dict[str, DictConfig], composed: Compose) -> None:
    hostile.write(place.run, plain(whole["chain"]), hostile.CHAIN[name], place.mark, place.evil)
    with pytest.raises(ConfigError) as refused:
        chain.checked(composed(f"resume={place.run}", program="chain"), place.run)
    place.check(refused.value)


@pytest.mark.parametrize("name", hostile.TEXTS)
def test_what_is_no_config(name: str, place: Place) -> None:
    place.run.mkdir()
    (place.run / "config.yaml").write_bytes(hostile.TEXTS[name].replace(b"MARK", str(place.mark).encode()))
    with pytest.raises(ValueError, match=str(place.run / "config.yaml")) as refused:
        resuming.saved_config(place.run)
    place.check(refused.value)


def test_what_the_user_of_this_command_names_is_trusted(
    place: Place, whole: dict[str, DictConfig], composed: Compose
) -> None:
    own = hostile.at("model.net.text.own", {"_target_": "torch.nn.GELU"})
    hostile.write(place.run, plain(whole["train"]), own, place.mark, place.evil)
    with pytest.raises(
        ValueError, match=r"model\.net\.text\.own\._target_ names torch\.nn\.GELU.*plugins=\[torch\.nn\.GELU\]"
    ):
        resuming.saved_config(place.run)
    for words in (
        [f"resume={place.run}", "plugins=[torch.nn.GELU]"],
        [f"resume={place.run}", "model.net.text.own._target_=torch.nn.GELU"],
    ):
        found = resuming.resumed(composed(*words), arguments(words))
        assert found.model.net.text.own._target_ == "torch.nn.GELU"
    assert resuming.saved_config(place.run, ["torch.nn.GELU"]).seed == 0
    # what the directory says of whom it trusts isn't asked
    hostile.write(
        place.run,
        plain(whole["train"]) | {"plugins": ["os.system"]},
        hostile.TRAINING["os.system"],
        place.mark,
        place.evil,
    )
    with pytest.raises(ConfigError, match=r"os\.system"):
        resuming.resumed(composed(f"resume={place.run}"), [f"resume={place.run}"])


# Whoever turns a name or a file into code, and why that is no stranger's: a new one belongs in this list or is none.
TURNS_INTO_CODE = {
    "configs/plugins.py": "modules that the user of this command names",
    "configs/live_signatures.py": "names that the check has allowed",
    "data/image_text/modules.py": "`source`, among the names that are looked at (configs/parts.py)",
    "data/language/modules.py": "`rows`, likewise",
    "methods/rlhf/reward.py": "`reward` and `judge`, likewise",
    "files/shards.py": "an unpickler that makes nothing but what an index has",
    "files/plain_pickle.py": "an unpickler that makes nothing but plain values",
    "files/torchscript.py": "an unpickler that makes tensors and hollow objects",
    "runs/earlier/needs.py": "the task and backend of a config that has been checked",
    "runs/kinds.py": "names of this package's own",
    "corpus/steps/clip_score.py": "`alignlab.load`, and no other name",
    "runs/building.py": "Hydra on a config that has been looked at",
    "runs/inference/opening.py": "likewise",
    "runs/plans/pictures.py": "likewise: what `alignlab plan` was told, checked as a training's",
    "runs/fitting.py": "likewise",
    "tools/hand_over/reward.py": "what it was handed over with; there it belongs to who runs it",
}
_CODE = re.compile(
    r"import_module\(|resolve_name\(|(?<!_)instantiate\(|pickle\.(?:load|Unpickler)|(?<![.\w])(?:eval|exec)\("
    r"|allow_pickle=True|trust_remote_code=(?!False)|weights_only=(?!True)|torch\.hub|(?<!\.)yaml\.(?:load|unsafe)"
)


def test_who_turns_names_into_code() -> None:
    found = set()
    for file in sorted((REPOSITORY / "src" / "alignlab").rglob("*.py")):
        code = ast.unparse(_without_texts(ast.parse(file.read_text(encoding="utf-8"))))
        name = str(file.relative_to(REPOSITORY / "src" / "alignlab"))
        found |= {name} if _CODE.search(code) else set()
        for call in re.findall(r"Auto\w+\.from_pretrained\(.*", code):
            assert "trust_remote_code=False" in call, f"{name}: asks the terminal whether to run a model's own code"
    assert found == set(TURNS_INTO_CODE) | {"configs/folders.py"}


def _without_texts(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return tree
