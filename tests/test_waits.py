"""No unlisted wait, no mixed device: every model's training, validation, checkpoint and export on the pretend CUDA device."""

import pytest

from pretend_cuda.process import Found, Job, none, results
from tiny_run import TINY_ALBEF, TINY_LANGUAGE, TINY_LLAMA, TINY_SCENES, TINY_TOWERS

SHORT = (
    "trainer=gpu",
    "trainer.max_steps=8",
    "trainer.val_check_interval=6",
    "++trainer.limit_val_batches=2",
    "trainer.log_every_n_steps=5",
    "trainer.num_sanity_val_steps=0",
)
JOBS = (
    Job("clip", ("model=clip", *SHORT, *TINY_SCENES, *TINY_TOWERS)),
    Job("siglip", ("model=siglip", "callbacks=default", *SHORT, *TINY_SCENES, *TINY_TOWERS)),
    Job("albef", ("model=albef", *SHORT, *TINY_SCENES, *TINY_ALBEF)),
    Job("sft", ("model=sft", *SHORT, *TINY_LANGUAGE, *TINY_LLAMA)),
    Job("sft_packed", ("model=sft", "data.pack=true", *SHORT, *TINY_LANGUAGE, *TINY_LLAMA)),
    Job("reward", ("model=reward", *SHORT, *TINY_LANGUAGE)),
    Job("dpo", ("model=dpo", "model.net.path={jobs}/sft", *SHORT, *TINY_LANGUAGE)),
)
MODELS = [job.name for job in JOBS]

pytestmark = pytest.mark.distributed  # one other process


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What the jobs found, of one process for all of them."""
    return results(JOBS, tmp_path_factory)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_refused(found: dict[str, Found], name: str) -> None:
    assert found[name].error is None
    assert found[name].value["status"] == "ok"
    none(found[name].refused())


@pytest.mark.parametrize("name", MODELS)
def test_what_waits_is_listed(found: dict[str, Found], name: str) -> None:
    none(found[name].unlisted())
