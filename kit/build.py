"""Collects what a machine without network lacks into one folder: wheels for its Python, this source tree, an installer, hashes.

    python kit/build.py [--python 3.12] [--with needed peers ...] [--target build/kit]

Nothing but the standard library and pip. The lists are in packages.toml, the versions in constraints.txt; what is listed and has no version
there is refused, and so is a kit above `LIMIT`. The folder appears when it is complete.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "kit" / "packages.toml"
LIMIT = 45 * 2**20  # bytes
GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_17", "2_12", "2_5")  # of the platform's tags, newest first
OLD_NAMES = {"2_17": "manylinux2014", "2_12": "manylinux2010", "2_5": "manylinux1"}
LEFT_OUT = ("docs/images/",)  # of the source tree


def chosen(parts: list[str], file: Path = PACKAGES) -> tuple[list[str], list[str], dict[str, str]]:
    """Packages of these parts that are served as wheels, those that are built, and the environment for building.

    Raises:
        ValueError: no such part.
    """
    content = tomllib.loads(file.read_text())
    for part in parts:
        if part not in content["parts"]:
            raise ValueError(f"WITH={part}: no such part of the kit (parts: {', '.join(content['parts'])})")
    names = [name for part in dict.fromkeys(["needed", *parts]) for name in content["parts"][part]]
    built = content["built"]
    return (
        [n for n in names if n not in built["packages"]],
        [n for n in names if n in built["packages"]],
        built["environment"],
    )


def pinned(names: list[str], constraints: Path = ROOT / "constraints.txt") -> list[str]:
    """Requirements with the versions of constraints.txt. Raises ValueError for a package that has none there."""
    lines = [line.partition("#")[0].strip() for line in constraints.read_text().splitlines()]
    versions = {normal(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}
    for name in names:
        if normal(name) not in versions:
            raise ValueError(f"kit/packages.toml: {name} has no version in constraints.txt")
    return [f"{name}=={versions[normal(name)]}" for name in names]


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_version(words: str) -> str:
    """ "3.12" as given; of an interpreter ("python3", a path) what it says. Raises ValueError for anything else."""
    if re.fullmatch(r"3\.\d+", words):
        return words
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([words, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"PYTHON={words}: neither a version such as 3.12 nor an interpreter") from error


def tags(version: str, machine: str) -> list[str]:
    """pip's options for wheels of this CPython on Linux."""
    abi = f"cp{version.replace('.', '')}"
    found = ["--python-version", version, "--implementation", "cp"]
    for name in (abi, "abi3", "none"):
        found += ["--abi", name]
    for glibc in GLIBC:
        found += ["--platform", f"manylinux_{glibc}_{machine}"]
        if glibc in OLD_NAMES:
            found += ["--platform", f"{OLD_NAMES[glibc]}_{machine}"]
    return found


def collect(folder: Path, parts: list[str], version: str, machine: str) -> None:
    """Downloads and builds the wheels. Raises ValueError with pip's reason."""
    wheels, built, environment = chosen(parts)
    if wheels:
        options = ["--no-deps", "--only-binary", ":all:", *tags(version, machine), "--dest", str(folder)]
        pip("download", options, pinned(wheels))
    if built:
        pip("wheel", ["--no-deps", "--wheel-dir", str(folder)], pinned(built), environment)
    for wheel in folder.glob("*.whl"):
        if any(name in wheel.name.lower() for name in map(normal_file, built)) and not wheel.name.endswith("-any.whl"):
            raise ValueError(f"{wheel.name} was built for this machine alone")


def normal_file(name: str) -> str:
    """A package's name as its wheel is called."""
    return normal(name).replace("-", "_")


def pip(command: str, options: list[str], requirements: list[str], environment: dict[str, str] | None = None) -> None:
    """One call of pip; its last complaint as a ValueError."""
    words = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *options, *requirements]
    done = subprocess.run(words, env=os.environ | (environment or {}), capture_output=True, text=True)
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ValueError(f"pip {command}: {(reason or ['failed'])[0]} ({' '.join(requirements)})")


def source(file: Path) -> None:
    """This tree as it is: what git tracks, changes included, in a folder `alignlab` of an archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and not name.startswith(LEFT_OUT) and (ROOT / name).is_file()]
    with tarfile.open(file, "w:gz", compresslevel=6) as archive:
        for name in names:
            archive.add(ROOT / name, f"alignlab/{name}")


def manifest(folder: Path, version: str, machine: str, parts: list[str]) -> dict:
    """What is in the kit, with sizes and hashes."""
    files = {
        str(file.relative_to(folder)): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "python": version, "platform": f"linux_{machine}", "parts": list(dict.fromkeys(["needed", *parts])),
        "revision": revision, "date": str(date.today()), "files": files,
    }  # fmt: skip


def build(target: Path, version: str, parts: list[str], machine: str = "x86_64") -> dict:
    """Makes the kit in `target` and gives its manifest. Raises ValueError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".kit-", dir=target.parent))
    try:
        (folder / "wheels").mkdir()
        collect(folder / "wheels", parts, version, machine)
        source(folder / "alignlab.tar.gz")
        shutil.copy(ROOT / "kit" / "install.py", folder)
        found = manifest(folder, version, machine, parts)
        size = sum(file["bytes"] for file in found["files"].values())
        if size > LIMIT:
            raise ValueError(
                f"the kit takes {size / 2**20:.1f} MiB, more than {LIMIT / 2**20:.0f}; take fewer parts: WITH=..."
            )
        (folder / "manifest.json").write_text(json.dumps(found, indent=1) + "\n")
        folder.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="version or interpreter; default: this one")
    parser.add_argument(
        "--with", dest="parts", nargs="*", default=None, help="parts beside the needed ones; default: all"
    )
    parser.add_argument("--target", type=Path, default=ROOT / "build" / "kit")
    options = parser.parse_args()
    try:
        parts = list(tomllib.loads(PACKAGES.read_text())["parts"]) if options.parts is None else options.parts
        version = python_version(options.python)
        found = build(options.target, version, parts)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    size = sum(file["bytes"] for file in found["files"].values())
    print(
        f"{options.target}: {len(found['files'])} files, {size / 2**20:.1f} MiB, CPython {version}, {', '.join(found['parts'])}"
    )
    print("There: python install.py --target DIRECTORY")


if __name__ == "__main__":
    main()
