"""Models that the tests of tasks share: built once for each test process."""

from pathlib import Path

from alignlab.tasks.pictures.subject import VisionLanguage
from pictures_run import load_subject, write_run
from served_model import write_language_model

import pytest


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny language model with a context of 64 tokens, without a chat template."""
    return write_language_model(tmp_path_factory.mktemp("model"), positions=64)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template and a context of 512 tokens."""
    return write_language_model(tmp_path_factory.mktemp("chat"), chat=True)


@pytest.fixture(scope="session", params=["albef", "clip", "siglip"])
def vision_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of each vision-language model in turn."""
    return write_run(tmp_path_factory.mktemp("runs") / request.param, request.param)


@pytest.fixture(scope="session")
def vision(vision_run: Path) -> VisionLanguage:
    """The model of that run directory."""
    return load_subject(vision_run)
