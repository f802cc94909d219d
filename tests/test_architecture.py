"""The layers of ARCHITECTURE.md, by the imports in the source; lengths of files and functions; names."""

import ast
import re
from pathlib import Path

from tiny_run import REPOSITORY

import pytest

SOURCE = REPOSITORY / "src" / "alignlab"
FILES = sorted(SOURCE.rglob("*.py"))
PROGRAMS = [file for name in ("train.py", "infer.py") if (file := REPOSITORY / name).exists()]

# Imports point downwards: a file may import from its own layer's folder and from lower layers.
LAYERS = [
    {"types", "distributed", "files", "hub", "reports"},
    {"models", "losses", "optim", "cost", "data"},
    {"evaluation", "prompting", "inference", "tokenizers", "corpus"},
    {"methods"},
    {"launch"},
    {"systems", "callbacks", "strategies", "data.modules", "tasks", "studies", "scaling"},
    {"runs", "configs", "cli", "tools", "programs"},
]
KNOW_HYDRA = {"runs", "configs", "cli"}
KNOW_LIGHTNING = {"systems", "callbacks", "strategies", "data.modules", "runs", "cli", "tools"}
STRANGERS = [
    ("models", "losses"),
    ("methods", "data"),
    ("systems", "data"),
    ("systems", "data.modules"),
    ("callbacks", "data"),
    ("tasks", "systems"),
    ("prompting", "models"),
]
ROOT = {"cli.py", "__init__.py"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base", "shared", "core"}


def unit(file: Path) -> str:
    """The folder or top-level module a file belongs to; Lightning data modules, and what derives from them, are a unit of their own."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    lightning = any(root in ("lightning", "pytorch_lightning") for root in imported(file))
    if parts[0] == "data" and (lightning or parts[-1] == "modules"):
        return "data.modules"
    return parts[0]


def imported(file: Path) -> list[str]:
    """Dotted names of all imports anywhere in a file."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names += [node.module] if node.module != "alignlab" else [f"alignlab.{alias.name}" for alias in node.names]
    return [name if name.startswith("alignlab") else name.split(".")[0] for name in names if name]


def layer(name: str) -> int:
    return next(index for index, units in enumerate(LAYERS) if name in units)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_downwards(file: Path) -> None:
    if file == SOURCE / "__init__.py":
        return
    own = unit(file)
    for name in imported(file):
        if name in ("hydra", "omegaconf"):
            assert own in KNOW_HYDRA, f"{file.name} imports {name}: config stops at the door"
        if name in ("lightning", "pytorch_lightning"):
            assert own in KNOW_LIGHTNING, f"{file.name} imports lightning"
        if not name.startswith("alignlab."):
            continue
        other_file = SOURCE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        other = unit(other_file) if other_file.exists() else name.split(".")[1]
        assert layer(other) <= layer(own), f"{file.name} ({own}) imports {name} from a higher layer"
        assert (own, other) not in STRANGERS and (other, own) not in STRANGERS, (
            f"{own} and {other} don't know each other"
        )
        assert other != "tools" or own in ("cli", "tools"), "nothing imports tools"


@pytest.mark.parametrize("file", FILES + PROGRAMS, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 300, "a file has at most 300 lines"
    assert max(map(len, text.split("\n"))) <= 120, "a line ends at column 120"
    assert not re.search(r"^ *-----", text, re.MULTILINE), (
        "sections of docstrings are Google's (Args:, Returns:, Raises:)"
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            # a Triton kernel is one program: its pieces would hand each other all its tiles
            most = 90 if any(ast.unparse(decorator) == "jit" for decorator in node.decorator_list) else 60
            assert length < most, f"{node.name} has {length} lines; {most} are too many"


def test_programs_are_thin() -> None:
    for file in PROGRAMS:
        assert file.read_text().count("\n") < 100


def test_the_root_holds_the_program_alone() -> None:
    assert {file.name for file in SOURCE.glob("*.py")} == ROOT


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda x: str(x.relative_to(SOURCE)))
def test_folders_are_small(folder: Path) -> None:
    """A method is one file, however many there are; what they share is the room."""
    methods = {file.stem for file in (REPOSITORY / "conf" / "model").glob("*.yaml")}
    counted = methods if folder.name == "methods" else set()
    files = [file for file in folder.glob("*.py") if file.name != "__init__.py" and file.stem not in counted]
    assert len(files) <= 15, f"{len(files)} files; 15 are enough for a room"


def test_no_circle() -> None:
    """Modules that import each other in a ring, imports within functions included."""
    modules = {".".join(file.relative_to(SOURCE.parent).with_suffix("").parts): file for file in FILES}
    ahead = {name: {other for other in imported(file) if other in modules} for name, file in modules.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in ahead[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


# Who may say `data.batch_size=...`: the door, which knows the config, and a task that composes the command lines of other runs.
KNOW_PATHS = {"runs", "configs", "cli", "tools"}
COMPOSES = {
    "studies/probes/runs.py",
    "studies/probes/batch.py",
    "studies/probes/command.py",
    "studies/probes/stability.py",
    "tasks/benchmark.py",
}
# Their messages still name the paths of the config.
YET = ("systems/rlhf/",)
PATH = re.compile(r"\b(data|model|optim|trainer|callbacks|logger|backend|task|prompt|sampling)\.[a-z_.]+(=| is )")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_parts_speak_of_their_own_parameters(file: Path) -> None:
    """`batch_size is 0`, not `data.batch_size is 0`: the door adds where in the config it stands."""
    name = str(file.relative_to(SOURCE))
    if name.split("/")[0].removesuffix(".py") in KNOW_PATHS or name in COMPOSES or name.startswith(YET):
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documents = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if hasattr(node, "body") and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in documents:
            assert not PATH.search(node.value), f"{name}, line {node.lineno}: {node.value}"


def test_names_say_something() -> None:
    for path in [*SOURCE.rglob("*"), *(REPOSITORY / "conf").rglob("*")]:
        assert path.stem.lower() not in FORBIDDEN_NAMES, f"{path}: a name that says nothing"


def test_modules_say_what_they_are_for() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{file} has no docstring"
