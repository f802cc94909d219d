"""Parts of one's own: `plugins=[my_package]`, `plugins=./my_loss.py`, or one name, `plugins=[torch.nn.GELU]`.

A plugin is code that the user of this command names: by the command line, by ALIGNLAB_PLUGINS, by a config of theirs.
Configs may then name what lies in it, those out of a run directory too, as far as it is written there. Packages that
are installed with an entry point in `alignlab.plugins` serve command lines, but a run directory has to have them named.
"""

import hashlib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alignlab.configs import folders, signatures, sources
from alignlab.configs.roots import ALLOWED

VARIABLE = "ALIGNLAB_PLUGINS"
GROUP = "alignlab.plugins"  # of entry points
_KEY = "plugins"
_active: tuple["Plugin", ...] = ()  # of this program


@dataclass(frozen=True)
class Plugin:
    """One plugin.

    Attributes:
        given: as it was named.
        name: dotted: of a module, a package, or a class or function in one.
        place: the package's folder, the module's file; None for a single name.
        conf: its own folder of configs, if it has one.
        named: by the user of this command, and not merely installed.
    """

    given: str
    name: str
    place: Path | None
    conf: Path | None = None
    named: bool = True

    def has(self, name: str) -> bool:
        """Whether a dotted name lies in it."""
        return name == self.name or (self.place is not None and name.startswith(f"{self.name}."))

    def gives(self, name: str) -> bool:
        """Whether a run directory may name this: it is written in the plugin, or in its conf/; not what it imports."""
        if self.place is None:
            return name == self.name
        in_conf = {} if self.conf is None else folders.targets(self.conf)
        return name in in_conf or (self.has(name) and signatures.defines(name, self.name))

    def record(self) -> dict[str, str | None]:
        """Version, and the SHA-256 of all its files."""
        total = hashlib.sha256()
        for file in self._files():
            name = file.relative_to(self.place if self.place.is_dir() else self.place.parent)
            total.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        try:
            version = importlib.metadata.version(self.name.partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            module, _ = sources.longest(f"{self.name}.x")
            version = module.text("__version__") if module is not None and self.place is not None else None
        return {"given": self.given, "version": version, "sha256": None if self.place is None else total.hexdigest()}

    def _files(self) -> Iterator[Path]:
        if self.place is not None:
            yield from sorted(self.place.rglob("*.py")) if self.place.is_dir() else [self.place]
        if self.conf is not None:
            yield from sorted(self.conf.rglob("*.yaml"))


class Plugins(Container[str]):
    """Those of a command: `name in plugins` is whether a run directory may name it besides the parts of alignlab.

    Args:
        names: single names that count too.
    """

    def __init__(self, plugins: Iterable[Plugin] = (), names: Iterable[str] = ()) -> None:
        self.plugins = list({plugin.name: plugin for plugin in plugins}.values())
        self.names = frozenset(names)

    def __contains__(self, name: object) -> bool:
        return name in self.names or any(plugin.named and plugin.gives(str(name)) for plugin in self.plugins)

    def allow(self, name: str) -> bool:
        """Whether what this command composes may name it."""
        return any(plugin.has(name) for plugin in self.plugins)

    def used(self, names: Iterable[str]) -> list[Plugin]:
        """Those that were named by the user, or that a config names something of."""
        names = list(names)
        return [plugin for plugin in self.plugins if plugin.named or any(map(plugin.has, names))]


def activate(words: Sequence[str], configs: Path) -> None:
    """Takes up the plugins of a command line, of the environment and of installed packages, with their configs.

    Programs that this one starts get those that were named by the environment.

    Args:
        words: the command line's.
        configs: the program's own folder of configs.

    Raises:
        ValueError: one isn't there, can't be told from something else, or its configs can't be used.
    """
    global _active
    named = [*_typed(words), *(each for each in os.environ.get(VARIABLE, "").split(",") if each)]
    made = [plugin(each) for each in dict.fromkeys(named)]
    if named:
        os.environ[VARIABLE] = ",".join(dict.fromkeys(named))
    confs = [each.conf for each in made if each.conf is not None]
    folders.use(configs, confs)
    taken = {each.name for each in made}
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            each = replace(_by_name(entry.value), named=False)
            if each.name not in taken and each.conf is not None:
                folders.use(configs, [*confs, each.conf])
                confs.append(each.conf)
        except ValueError as error:  # another's fault: this command goes on without it
            print(f"the installed plugin {entry.name} is left out: {error}", file=sys.stderr)
        else:
            made += [] if each.name in taken else [each]
    _active = tuple(made)


def of(cfg: Mapping[str, Any]) -> Plugins:
    """The plugins of a config: this program's, and those that the config itself names.

    Raises:
        ValueError: as `plugin`.
    """
    return Plugins([*_active, *map(plugin, listed(cfg.get(_KEY)))])


def listed(value: object) -> list[str]:
    """What a config has for `plugins`, as a list."""
    return [value] if isinstance(value, str) else [str(each) for each in value] if isinstance(value, Iterable) else []


def plugin(given: str) -> Plugin:
    """The plugin of a name or a path; what is no part of Python's search path yet is added at its end.

    Raises:
        ValueError: there is none, or its name is that of something else.
    """
    if "," in given:
        raise ValueError(f"{_KEY}: {given} has a comma; give a list, {_KEY}=[a,b]")
    return _by_path(given) if "/" in given or given.endswith(".py") else _by_name(given)


def imported(plugins: Iterable[Plugin]) -> None:
    """Imports them, which is when errors in their files show.

    Raises:
        ValueError: one can't be imported; one line with the place in its file.
    """
    for each in plugins:
        if each.place is None:
            continue
        try:
            importlib.import_module(each.name)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (frame.filename, frame.lineno)
            place = "" if "importlib" in str(where[0]) else f", {Path(str(where[0])).name} line {where[1]}"
            line = " ".join(str(getattr(error, "msg", error)).split())
            raise ValueError(
                f"{_KEY}: {each.given} can't be imported ({type(error).__name__}: {line}{place})"
            ) from error


def _by_path(given: str) -> Plugin:
    path = Path(given).expanduser().resolve()
    if not path.exists():
        near = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ValueError(f"{_KEY}: there is no {given}" + (f"; there are {', '.join(near[:5])}" if near else ""))
    if path.is_dir() and not any(path.glob("*.py")):
        raise ValueError(f"{_KEY}: {given} is a folder without a module (*.py)")
    if path.is_file() and path.suffix != ".py":
        raise ValueError(f"{_KEY}: {given} is no Python file")
    names, root = [path.stem if path.is_file() else path.name], path.parent
    while (root / "__init__.py").exists():
        names, root = [root.name, *names], root.parent
    name = ".".join(names)
    if not all(part.isidentifier() for part in names):
        raise ValueError(f"{_KEY}: {name!r} can't be imported by that name: letters, digits and _ can")
    _refuse_taken(given, names[0], root)
    _search(root)
    _read(f"{name}.x", given)
    conf = (path if path.is_dir() else path.parent) / "conf"
    return Plugin(given, name, path, conf if conf.is_dir() else None)


def _by_name(given: str) -> Plugin:
    first = given.partition(".")[0]
    if not all(part.isidentifier() for part in given.split(".")):
        raise ValueError(f"{_KEY}: {given!r} is neither a path nor a dotted name")
    if sources.spec_of(first) is None and folders.is_own():
        _search(Path.cwd())
    if (spec := sources.spec_of(given)) is None:
        module, rest = _read(given, given)
        if sources.spec_of(first) is None:
            raise ValueError(
                f"{_KEY}: there is no module or package {first}; a file is named as {_KEY}=./FOLDER/FILE.py"
            )
        if module is not None and module.complete and rest[0] not in module.names_to_nodes:
            raise ValueError(f"{_KEY}: {module.dotted} has no {rest[0]}; it has {', '.join(sorted(module.names()))}")
        return Plugin(given, given, None)
    if first in (*ALLOWED, *sys.stdlib_module_names):
        raise ValueError(
            f"{_KEY}: {given} is no plugin: a run directory could then name all that it has; "
            f"name one class or function of it, {_KEY}=[{given}.Name]"
        )
    _read(f"{given}.x", given)
    places = spec.submodule_search_locations
    place = Path(next(iter(places)) if places else str(spec.origin))
    return Plugin(given, given, place, place / "conf" if (place / "conf").is_dir() else None)


def _read(path: str, given: str) -> tuple[sources.Source | None, list[str]]:
    """The source of a plugin's module, which is told from one that can't be read before anything else is."""
    try:
        return sources.longest(path)
    except (SyntaxError, ValueError, OSError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = getattr(error, "msg", error)
        raise ValueError(f"{_KEY}: {given} can't be read ({type(error).__name__}: {text}{where})") from error


def _refuse_taken(given: str, first: str, root: Path) -> None:
    """A module of the same name elsewhere would be imported in its place, or by others in theirs."""
    spec = None if first in sys.builtin_module_names else sources.spec_of(first)
    places = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or [spec.origin or ""]]
    elsewhere = [place for place in places if place.parent.resolve() != root]
    if first in (*ALLOWED, *sys.stdlib_module_names) or elsewhere:
        raise ValueError(f"{_KEY}: {given} has the name of another module, {first}; give it one of its own")


def _search(root: Path) -> None:
    """At the end, so that nothing of it stands before what was there."""
    if str(root) not in sys.path and root not in map(Path, sys.path):
        sys.path.append(str(root))
        importlib.invalidate_caches()
        signatures.forget()


def _typed(words: Sequence[str]) -> list[str]:
    """What a command line has for `plugins=`; what Hydra doesn't read it says itself."""
    named: list[str] = []
    for word in words:
        if word.lstrip("+").startswith(f"{_KEY}="):
            try:
                (override,) = OverridesParser.create().parse_overrides([word])
                value = list(override.sweep_string_iterator()) if override.is_sweep_override() else override.value()
            except (HydraException, ValueError):
                continue
            named += listed(value)
    return named
