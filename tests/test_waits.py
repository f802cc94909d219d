"""No mixed device, nothing that a GPU would refuse: every model's training, validation, checkpoint and export on the pretend CUDA device."""

import pytest

from pretend_cuda.process import Found, Job, none, results

SHORT = (
    "trainer=gpu",
    "trainer.max_steps=8",
    "trainer.val_check_interval=6",
    "++trainer.limit_val_batches=2",
    "trainer.log_every_n_steps=5",
    "trainer.num_sanity_val_steps=0",
)
SCENES = (
    "data=emoji_scenes",
    "data.num_train=80",
    "data.num_val=8",
    "data.batch_size=8",
    "data.num_workers=0",
    "data.image_size=32",
)
LANGUAGE = ("data.batch_size=4", "data.max_length=24")
NET = ("model.net.width=32", "model.net.depth=1", "model.net.heads=2", "+data.vocab_size=300")
JOBS = (
    Job("clip", ("model=clip", *SHORT, *SCENES)),
    Job("siglip", ("model=siglip", *SHORT, *SCENES)),
    Job("albef", ("model=albef", "model.fuse_from_step=1", *SHORT, *SCENES)),
    Job("sft", ("model=sft", *SHORT, *LANGUAGE, *NET)),
    Job("sft_packed", ("model=sft", "data.pack=true", *SHORT, *LANGUAGE, *NET)),
    Job("reward", ("model=reward", *SHORT, *LANGUAGE)),
    Job("dpo", ("model=dpo", "model.net.path={jobs}/sft", *SHORT, *LANGUAGE)),
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
