"""Writes defaults out: a recorded config shows every value and doesn't depend on the version that reads it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from inspect import Parameter

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from alignlab.configs.plugins import Plugins, of
from alignlab.configs.roots import ALLOWED, PROVIDED, Root
from alignlab.configs.signatures import signature_of


def filled(cfg: DictConfig, root: type = Root, provided: Mapping[str, Iterable[str]] = PROVIDED) -> DictConfig:
    """A copy in which every field of the root and every parameter of a `_target_` that has a plain default has its
    value.

    Plain are numbers, words, switches, null and lists of them. What is wrong with the config stays as it is, for the
    check.

    Args:
        cfg: a composed config, interpolations still in place.
        root: dataclass of the root's keys.
        provided: dotted path of a node (last part may be `*`) -> parameters that are filled in at run time.
    """
    whole = cfg.copy()
    with open_dict(whole):
        for field in fields(root):
            given = field.name in whole or OmegaConf.is_missing(whole, field.name)
            if field.default is not MISSING and not given:
                whole[field.name] = field.default
        _fill(whole, "", provided, _plugins(cfg))
    return whole


def provided_at(path: str, provided: Mapping[str, Iterable[str]] = PROVIDED) -> frozenset[str]:
    """The parameters of the node at a dotted path that the run fills in."""
    return frozenset(provided.get(path, ())) | frozenset(provided.get(f"{path.rpartition('.')[0]}.*", ()))


def _fill(node: object, path: str, provided: Mapping[str, Iterable[str]], plugins: Plugins) -> None:
    if not isinstance(node, DictConfig | ListConfig):
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if not (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key)):
            _fill(node[key], f"{path}.{key}" if path else str(key), provided, plugins)
    if isinstance(node, DictConfig) and "_target_" in node and not OmegaConf.is_missing(node, "_target_"):
        given = provided_at(path, provided)
        for name, value in list(_defaults(node, plugins)):
            if name not in node and name not in given:
                node[name] = value


def _defaults(node: DictConfig, plugins: Plugins) -> Iterator[tuple[str, object]]:
    """Parameters of a node's target with a plain default; none where the target can't be read, which the check says."""
    target = str(node["_target_"])
    if target.split(".")[0] not in ALLOWED and not plugins.allow(target):
        return
    try:
        parameters = list(signature_of(node).parameters.values())[len(node.get("_args_") or ()) :]
    except Exception:  # not there, or a module that can't be imported here
        return
    for parameter in parameters:
        named = parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        if named and _is_plain(parameter.default):
            value = parameter.default
            yield parameter.name, list(value) if isinstance(value, tuple) else value


def _plugins(cfg: DictConfig) -> Plugins:
    try:
        return of(cfg)
    except ValueError:  # which the check says
        return Plugins()


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
