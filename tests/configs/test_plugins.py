"""Plugins: parts of one's own, checked as ours are; what is wrong with one is a line; what a run directory may name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import own_parts
from alignlab.configs import check as config
from alignlab.configs import folders, plugins, signatures
from alignlab.configs.filling import filled
from alignlab.configs.roots import InferenceRoot, Root
from tiny_run import REPOSITORY

import pytest
from omegaconf import DictConfig, OmegaConf

CONF = REPOSITORY / "conf"
Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def _as_in_a_program_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(plugins.VARIABLE, "")
    for module, name in ((plugins, "_active"), (folders, "_first"), (folders, "_main")):
        monkeypatch.setattr(module, name, getattr(module, name))
    signatures.forget()
    yield
    signatures.forget()
    folders.targets.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("my_", "broken"))]:
        del sys.modules[name]


def problems(cfg: DictConfig, root: type = Root) -> list[str]:
    try:
        config.check(cfg, root=root)
    except config.ConfigError as error:
        return error.problems
    return []


# Words of a command line that name a part of each kind -> a wrong one, and what is said of it.
PARTS = {
    "loss": (["model.loss._target_=my_parts.Soft", "model.loss.share=0.5"], "model.loss.shar=1", "did you mean share"),
    "loss of its conf": (["model/loss=soft"], "model.loss.share=much", "expects float, got 'much'"),
    "what its base takes": (["model/loss=soft", "model.loss.local_loss=false"], "model.loss.local_loss=3", "expects bool"),
    "net": (["model.net._target_=my_parts.Net", "model.net.twist=true"], "model.net.twist=3", "expects bool"),
    "method": (["model._target_=my_parts.Method", "model.flavour=sweet"], "model.flavour=sour", "one of plain, sweet"),
    "data": (["data=squares", "data.shades=4"], "data.shade=4", "did you mean shades"),
    "callback": (["callbacks=[default,note]", "callbacks.note.name=x"], "callbacks.note.nam=x", "did you mean name"),
    "optimiser": (["optim=own", "optim.lr=1.0"], "optim.rate=1.0", "unknown key"),
    "a library's, by its conf": (["optim=sgd", "optim.lr=1.0"], "optim.lrr=1.0", "did you mean lr"),
}  # fmt: skip
INFERENCE = {
    "backend": (["backend=own", "backend.mood=bad"], "backend.mood=sad", "one of good, bad"),
    "task": (["task=count", "task.least=2"], "task.leas=2", "did you mean least"),
}


@pytest.mark.parametrize("kind", [*PARTS, *INFERENCE])
def test_parts_of_every_kind_are_checked_as_ours_are(kind: str, tmp_path: Path, composed: Compose) -> None:
    own_parts.write(tmp_path / "apart")
    plugins.activate(["plugins=apart/my_parts.py"], CONF)
    root, program = (Root, "train") if kind in PARTS else (InferenceRoot, "infer")
    words, wrong, said = PARTS.get(kind) or INFERENCE[kind]
    base = ["model=clip"] if root is Root else ["model_path=x"]
    cfg = composed(*base, *words, "plugins=apart/my_parts.py", program=program)
    assert problems(cfg, root) == []
    (problem,) = problems(composed(*base, *words, wrong, "plugins=apart/my_parts.py", program=program), root)
    assert said in problem and problem.startswith(wrong.partition("=")[0])
    if kind == "loss of its conf":
        assert filled(cfg).model.loss.share == 0.25, "defaults are written out"
        assert {"soft", "info_nce"} <= set(folders.choices("model/loss")), "its choices show in --help"
    assert "my_parts" not in sys.modules, "signatures are read, not imported"


def test_without_being_named_it_is_refused_with_the_words_that_name_it(tmp_path: Path, composed: Compose) -> None:
    own_parts.write(tmp_path)
    (problem,) = problems(composed("model=clip", "model.loss._target_=my_parts.Soft"))
    assert problem.startswith("model.loss._target_: my_parts.Soft is outside") and problem.endswith(
        "plugins=[my_parts]"
    )
    assert problems(composed("model=clip", "model.loss._target_=my_parts.Soft", "plugins=[my_parts]")) == []


def test_three_ways_to_name_one_and_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = own_parts.write(tmp_path / "apart")
    package = tmp_path / "site" / "my_package"
    own_parts.write(package, "parts", conf=False)
    (package / "conf" / "optim").mkdir(parents=True)
    (package / "conf" / "optim" / "other.yaml").write_text("_target_: torch.optim.SGD\n")
    (package / "__init__.py").touch()
    info = tmp_path / "site" / "my_package-3.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 3.4\n")
    (info / "entry_points.txt").write_text("[alignlab.plugins]\nmine = my_package\nold = my_gone\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv(plugins.VARIABLE, "apart/my_parts.py")
    plugins.activate([], CONF)
    named, installed = plugins.of({}).plugins
    assert (
        "the installed plugin old is left out: plugins: there is no module or package my_gone"
        in capsys.readouterr().err
    )
    assert (installed.name, installed.named) == ("my_package", False) and (named.name, named.named) == (
        "my_parts",
        True,
    )
    assert folders.folders() == (tmp_path / "apart" / "conf", package / "conf", CONF.resolve())
    whole = plugins.of({"plugins": "my_package"})
    assert "my_package.parts.Soft" in whole and "my_package.parts.Soft" not in plugins.of({}), (
        "a run has to have it named"
    )
    assert [plugin.name for plugin in plugins.of({}).used(["my_package.parts.Soft"])] == ["my_parts", "my_package"]
    assert [plugin.name for plugin in plugins.of({}).used([])] == ["my_parts"]
    assert [plugin.record()["version"] for plugin in whole.plugins] == ["1.2", "3.4"]
    before = named.record()["sha256"]
    file.write_text(file.read_text() + "# changed\n")
    assert named.record()["sha256"] != before


def test_a_file_within_a_package_has_the_package_s_name(tmp_path: Path) -> None:
    own_parts.write(tmp_path / "my_lab" / "parts", "soft")
    for folder in ("my_lab", "my_lab/parts"):
        (tmp_path / folder / "__init__.py").touch()
    plugin = plugins.plugin("my_lab/parts/soft.py")
    assert plugin.name == "my_lab.parts.soft" and plugin.gives("my_lab.parts.soft.Soft")
    plugins.imported([plugin])
    assert sys.modules["my_lab.parts.soft"].Soft


BAD = {
    "plugins=./nowhere.py": r"plugins: there is no \./nowhere\.py; there are broken\.py, my-loss\.py, my_parts\.py",
    "plugins=[my_nowhere]": r"plugins: there is no module or package my_nowhere; a file is named as plugins=\./",
    "plugins=[my_parts.Sofd]": r"plugins: my_parts has no Sofd; it has .*Soft",
    "plugins=./empty": r"plugins: \./empty is a folder without a module",
    "plugins=./notes.txt": r"plugins: \./notes\.txt is no Python file",
    "plugins=./my-loss.py": r"plugins: 'my-loss' can't be imported by that name",
    "plugins=./apart/random.py": r"plugins: \./apart/random\.py has the name of another module, random",
    "plugins=./apart/torch.py": r"has the name of another module, torch",
    "plugins=./apart/pytest.py": r"has the name of another module, pytest",
    "plugins=[torch]": r"plugins: torch is no plugin: .*plugins=\[torch\.Name\]",
    "plugins=[os]": r"plugins: os is no plugin",
    "plugins=./broken.py": r"plugins: \./broken\.py can't be read \(SyntaxError: .*, line 2\)",
    "plugins=./clash/my_clash.py": r"clash/conf/model/clip\.yaml has the name of one of alignlab's own; give it another",
    "plugins=./damaged/my_damaged.py": r"damaged/conf/data/x\.yaml can't be read \(.*line 2",
}  # fmt: skip


@pytest.mark.parametrize("word", BAD)
def test_a_bad_one_is_one_line(word: str, tmp_path: Path) -> None:
    own_parts.write(tmp_path)
    for path, text in {
        "broken.py": "x = 1\nclass :\n", "notes.txt": "x", "my-loss.py": "x = 1\n", "empty/x.txt": "", "apart/random.py": "",
        "apart/torch.py": "", "apart/pytest.py": "", "clash/my_clash.py": "", "clash/conf/model/clip.yaml": "x: 1\n",
        "damaged/my_damaged.py": "", "damaged/conf/data/x.yaml": "a: [1\nb: 2\n",
    }.items():  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with pytest.raises(ValueError, match=BAD[word]) as refused:
        plugins.activate([word], CONF)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name', my_bad.py line 1"),
     ("x = 1\ny = x + z\n", "NameError: name 'z' is not defined, my_bad.py line 2")],
)  # fmt: skip
def test_one_that_cannot_be_imported_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "my_bad.py").write_text(text)
    with pytest.raises(ValueError) as refused:
        plugins.imported([plugins.plugin("./my_bad.py")])
    assert str(refused.value) == f"plugins: ./my_bad.py can't be imported ({said})"


def test_a_run_directory_may_name_what_is_written_in_a_named_plugin_and_nothing_that_it_imports(tmp_path: Path) -> None:
    own_parts.write(tmp_path)
    named = plugins.of({"plugins": ["./my_parts.py"]})
    for name in ("my_parts.Soft", "my_parts.short", "my_parts.Squares", "torch.optim.SGD"):  # the last one by its conf/
        assert name in named, name
    for name in (
        "my_parts.os.system my_parts.subprocess.run my_parts.Path my_parts.Path.touch my_parts.InfoNce my_parts.nowhere os.system "
        "my_parts torch.hub.load other.Soft my_parts.Soft.__init__"
    ).split():
        assert name not in named, name


def test_the_working_directory_s_conf_goes_first_unless_it_is_a_run_s(
    tmp_path: Path, composed: Compose, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "conf" / "model" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "loss" / "info_nce.yaml").write_text(
        "_target_: alignlab.losses.contrastive.InfoNce\nlocal_loss: false\n"
    )
    plugins.activate([], CONF)
    assert folders.folders()[0] == tmp_path / "conf" and composed("model=clip").model.loss.local_loss is False
    (tmp_path / "config.yaml").write_text("model: x\n")
    plugins.activate([], CONF)
    assert folders.folders() == (CONF.resolve(),) and "local_loss" not in composed("model=clip").model.loss
    assert "conf/ isn't read here" in capsys.readouterr().err


def test_a_saved_plugin_is_neither_looked_for_nor_run(tmp_path: Path, composed: Compose) -> None:
    from alignlab.runs import resuming

    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "my_evil.py").write_text(f"open({str(tmp_path / 'MARK')!r}, 'w')\nclass Loss: pass\n")
    run = tmp_path / "run"
    run.mkdir()
    cfg = filled(composed("model=clip"))
    cfg.plugins, cfg.model.loss._target_ = ["evil/my_evil.py"], "my_evil.Loss"
    (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    before = list(sys.path)
    with pytest.raises(ValueError, match=r"model\.loss\._target_ names my_evil\.Loss.*plugins=\[evil/my_evil\.py\]$"):
        resuming.saved_config(run)
    assert sys.path == before and not (tmp_path / "MARK").exists() and "my_evil" not in sys.modules
    named = plugins.of({"plugins": "evil/my_evil.py"})
    assert resuming.saved_config(run, named).plugins is None and not (tmp_path / "MARK").exists()
