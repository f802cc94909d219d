"""Checks a composed config before anything is built: every problem at once, each with its path and the nearest valid
name.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from alignlab.configs import plugins
from alignlab.configs.filling import provided_at
from alignlab.configs.roots import ALLOWED, PROVIDED, Root
from alignlab.configs.signatures import NotFound, part_of, signature, signature_of

_CONTROL = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})
_PRIMITIVES = (bool, int, float, str)


class ConfigError(ValueError):
    """Everything that is wrong with a config."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the config:", *(f"  {problem}" for problem in self.problems)]))


def check(cfg: DictConfig, provided: Mapping[str, Iterable[str]] = PROVIDED, root: type = Root) -> None:
    """Binds every key of a composed config to the root's fields or to a parameter of its node's `_target_`.

    Args:
        cfg: the composed config, interpolations still in place.
        provided: dotted path of a node (last part may be `*`) -> parameters that are filled in at run time.
        root: dataclass of the root's keys.
    Raises:
        ConfigError: unknown, missing or unset keys, values of a wrong type or outside a Literal, unknown or forbidden
            targets.
    """
    problems = list(_root_problems(cfg, root))
    try:
        own = plugins.of(cfg)
    except ValueError as error:
        problems, own = [*problems, str(error)], plugins.Plugins()
    for name in (field.name for field in fields(root)):
        node = OmegaConf.to_container(cfg, resolve=False).get(name)
        if isinstance(node, dict):
            problems += _Checker(provided, own).node(
                cfg, name, name, target_needed=name not in ("callbacks", "logger", "stages")
            )
    if problems:
        raise ConfigError(problems)


def _root_problems(cfg: DictConfig, root: type) -> Iterator[str]:
    hints = typing.get_type_hints(root)
    for key in cfg:
        if key not in hints:
            yield f"{key}: unknown key{nearest(str(key), hints)}"
            continue
        value, problem = _value(cfg, key, str(key))
        if problem:
            yield problem
        elif not _accepts(hints[key], value):
            yield f"{key}: expects {_text(hints[key])}, got {_shown(value)}"
    for field in fields(root):
        if field.name not in cfg and field.type is dict:
            yield f"{field.name}: missing; choose one with {field.name}=..."


class _Checker:
    def __init__(self, provided: Mapping[str, Iterable[str]], own: plugins.Plugins) -> None:
        self.provided, self.plugins = provided, own

    def node(self, parent: DictConfig, key: str | int, path: str, target_needed: bool = False) -> Iterator[str]:
        """Problems of one value and everything below it."""
        value, problem = _value(parent, key, path)
        if problem:
            yield problem
        elif isinstance(value, DictConfig):
            if "_target_" in value:
                yield from self.target(value, path)
            else:
                if target_needed:
                    yield f"{path}: has no _target_ (the class or function to build)"
                for child in value:
                    yield from self.node(value, child, f"{path}.{child}", path in ("callbacks", "logger"))
        elif isinstance(value, ListConfig):
            for index in range(len(value)):
                yield from self.node(value, index, f"{path}[{index}]")

    def target(self, node: DictConfig, path: str) -> Iterator[str]:
        """Problems of a node that names a class or function."""
        target = node["_target_"]
        signature, problem = self.found(str(target), f"{path}._target_")
        part = part_of(str(target)) if signature is not None else None
        if part is not None and isinstance(node.get(part), str):
            added, problem = self.found(node[part], f"{path}.{part}")
            signature = signature if added is None else signature_of(node)
        if problem:
            yield problem
        if signature is None:
            return
        given = provided_at(path, self.provided)
        yield from self.arguments(node, path, signature, given)
        keys = {str(key): None for key in node if key not in _CONTROL and key in signature.parameters}
        if not node.get("_partial_", False):
            try:
                signature.bind(*node.get("_args_", ()), **keys, **dict.fromkeys(given & set(signature.parameters)))
            except TypeError:
                for name in _required(signature, skip=len(node.get("_args_", ()))):
                    if name not in keys and name not in given:
                        yield f"{path}.{name}: missing; {target} needs it"

    def found(self, target: str, path: str) -> tuple[inspect.Signature | None, str | None]:
        """The signature at a dotted path, or what is wrong with it."""
        first = target.split(".")[0]
        if first not in ALLOWED and not self.plugins.allow(target):
            own = f"; if it is yours, plugins=[{first}]" if first.isidentifier() else ""
            return None, f"{path}: {target} is outside the allowed packages ({', '.join(ALLOWED)}){own}"
        try:
            return signature(target), None
        except NotFound as error:
            return None, f"{path}: {target} does not exist{nearest(target.rsplit('.')[-1], error.names)}"
        except Exception as error:  # a module that can't be imported here: say so, whatever the reason
            return None, f"{path}: {target} can't be imported ({type(error).__name__}: {error})"

    def arguments(
        self, node: DictConfig, path: str, signature: inspect.Signature, given: frozenset[str]
    ) -> Iterator[str]:
        """Problems of a node's keys and values."""
        kinds = inspect.Parameter
        named = {
            n: p for n, p in signature.parameters.items() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        }
        anything = any(p.kind is kinds.VAR_KEYWORD for p in signature.parameters.values())
        for key in node:
            where = f"{path}.{key}"
            if key in _CONTROL:
                continue
            if key in given:
                yield f"{where}: is filled in by the run itself; leave it out"
            elif key not in named and not anything:
                yield f"{where}: unknown key{nearest(str(key), named)} ({node['_target_']} takes {', '.join(named)})"
            else:
                below = list(self.node(node, key, where))
                yield from below
                value, problem = _value(node, key, where)
                if not problem and key in named and not _accepts(named[str(key)].annotation, value):
                    if not (value is None and named[str(key)].default is None):
                        yield f"{where}: expects {_text(named[str(key)].annotation)}, got {_shown(value)}"


def _required(signature: inspect.Signature, skip: int) -> list[str]:
    kinds = inspect.Parameter
    named = [p for p in signature.parameters.values() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    return [p.name for p in named[skip:] if p.default is kinds.empty]


def _value(parent: DictConfig | ListConfig, key: object, path: str) -> tuple[object, str | None]:
    """The value with interpolations resolved, or what is wrong with it."""
    if OmegaConf.is_missing(parent, key):
        return None, f"{path}: has no value yet (???); set {path}=..."
    try:
        return parent[key], None
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        if MissingMandatoryValue.__name__ in line:  # of `${unless:...}`
            return None, f"{path}: has no value yet (???); set {path}=..., {line.rpartition(': ')[2]}"
        return None, f"{path}: can't be resolved ({line})"


def _accepts(annotation: object, value: object) -> bool:
    """Whether a config value fits a typing annotation; what an annotation or a nested `_target_` will make is not
    judged.
    """
    if annotation is typing.Any or annotation is object or (isinstance(value, DictConfig) and "_target_" in value):
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(arg, value) for arg in args)
    if origin is typing.Literal:
        return any(type(arg) is type(value) and arg == value for arg in args)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is Path:
        return isinstance(value, str)
    kind = origin or annotation
    if kind is tuple and args and ... not in args:
        return isinstance(value, ListConfig) and len(value) == len(args) and all(map(_accepts, args, value))
    if kind in (list, tuple, set, Sequence, Iterable):
        return isinstance(value, ListConfig) and all(_accepts(args[0] if args else typing.Any, item) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, DictConfig)
    if kind is Callable:
        return False  # a node with _target_ and _partial_ was accepted above
    return not isinstance(value, _PRIMITIVES)  # some class: only a nested _target_ or a container can become one


def _text(annotation: object) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_text(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if annotation is type(None):
        return "null"
    if annotation is Callable or origin is Callable:
        return "a node with _target_ and _partial_: true"
    return annotation.__name__ if origin is None and isinstance(annotation, type) else str(annotation)


def _shown(value: object) -> str:
    return f"{value!r}" if value is None or isinstance(value, _PRIMITIVES) else str(value)[:80]


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean x?` where a name is close to one of the names, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
