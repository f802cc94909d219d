"""YAML holds choices: no file repeats what the signature says already."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from alignlab.configs.signatures import signature_of
from tiny_run import REPOSITORY

import pytest
from omegaconf import OmegaConf

CONF = REPOSITORY / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
# What another file reads has to stand somewhere: `image_size: ${data.image_size}`.
READ = {name for file in FILES for name in re.findall(r"\$\{(?:oc\.select:)?([a-z_.]+)", file.read_text())}


def plain(value: object) -> object:
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def repeated(node: object, path: str) -> Iterator[str]:
    """Paths of the keys below a node that have their parameter's default."""
    if isinstance(node, list):
        for item in node:
            yield from repeated(item, path)
    if not isinstance(node, dict):
        return
    if str(node.get("_target_")).startswith("alignlab."):
        for name, parameter in signature_of(node).parameters.items():
            value, default = plain(node.get(name, ...)), plain(parameter.default)
            known = parameter.default not in (inspect.Parameter.empty, ...)
            if known and name in node and type(value) is type(default) and value == default:
                yield f"{path}.{name}"
    for key, value in node.items():
        yield from repeated(value, f"{path}.{key}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_no_value_repeats_a_default(file: Path) -> None:
    group = str(file.relative_to(CONF)).split("/")[0]
    found = repeated(OmegaConf.to_container(OmegaConf.load(file), resolve=False), group)
    assert [path for path in found if path not in READ] == []


def test_a_repeated_default_is_seen() -> None:
    scenes = {"_target_": "alignlab.data.image_text.modules.PairDataModule", "batch_size": 128, "image_size": 48}
    scenes["source"] = "alignlab.data.emoji.scene_pairs.EmojiScenePairs"
    assert list(repeated(scenes | {"max_sprites": 3, "num_val": 50}, "data")) == ["data.batch_size", "data.max_sprites"]
