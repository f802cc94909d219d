"""`pytest -m gpu`: how many tests passed, failed, were skipped. A part of `make gpu`."""

import subprocess
import sys
from xml.etree import ElementTree

from commands import ROOT
from rows import Rows, options

NONE_COLLECTED = 5  # pytest's exit code


def main() -> None:
    chosen = options(__doc__)
    rows, report = Rows(chosen.folder), chosen.folder / "junit.xml"
    where = [] if chosen.full else ["tests/inference"]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={report}", "-p", "no:cacheprovider", *where]
    code = subprocess.run(command, cwd=ROOT).returncode
    suite = ElementTree.parse(report).getroot().find("testsuite").attrib if report.exists() else {}
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped, tests = int(suite.get("skipped", 0)), int(suite.get("tests", 0))
    rows.add("tests for a GPU, passed", tests - failed - skipped, "tests", skipped=skipped, failed=failed)
    if code not in (0, NONE_COLLECTED):
        rows.add("tests for a GPU", error=f"{failed} failed, exit code {code}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
