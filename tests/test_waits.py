"""No unlisted wait, no mixed device: every model's training, validation, checkpoint and export on the pretend CUDA device."""

from pretend_cuda.allowed import ALLOWED, Allowed
from pretend_cuda.process import Found, Job, none, results
from tiny_run import TINY_ALBEF, TINY_LANGUAGE, TINY_LLAMA, TINY_SCENES, TINY_TASKS, TINY_TOWERS

import pytest

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
    Job("albef_vqa", (*TINY_TASKS["albef_vqa"], *SHORT)),
    Job("sft", ("model=sft", *SHORT, *TINY_LANGUAGE, *TINY_LLAMA)),
    Job("sft_packed", ("model=sft", "data.pack=true", *SHORT, *TINY_LANGUAGE, *TINY_LLAMA)),
    Job("lm", ("model=lm", "model/net=lm_glm_prefix", *SHORT, *TINY_LANGUAGE, *TINY_LLAMA)),
    Job("reward", ("model=reward", *SHORT, *TINY_LANGUAGE)),
    Job("dpo", ("model=dpo", "model.net.path={jobs}/sft", *SHORT, *TINY_LANGUAGE)),
)
MODELS = [job.name for job in JOBS]
TINY = (*SHORT, *TINY_SCENES, *TINY_TOWERS)
CLIP = ("model=clip", "callbacks=default", *TINY)
POISON = (
    "data._target_=poisoned.PoisonedScenes",
    "+data.poison=pixels",
    "+data.poisoned=[6]",
    "trainer.val_check_interval=4",
)
GUARD = (
    "model=clip",
    "callbacks=[default,spike_guard]",
    *TINY,
    *POISON,
    "+callbacks.spike_guard.min_history=2",
    "callbacks.spike_guard.threshold=1000",
    "callbacks.spike_guard.rollback_steps=2",
)
TROUBLE = (
    Job("resumed", ("resume={jobs}/siglip", "model=siglip", "callbacks=default", *TINY, "trainer.max_steps=10")),
    Job("not_finite", (*CLIP, *POISON)),
    Job("skipped", (*GUARD, "callbacks.spike_guard.action=skip")),
    Job("rolled_back", (*GUARD, "callbacks.spike_guard.action=rollback")),
    Job("out_of_memory", call="device_failures:out_of_memory", arguments={"overrides": CLIP}),
)
ENDS = {"resumed": "ok", "not_finite": "diverged", "skipped": "ok", "rolled_back": "ok", "out_of_memory": "failed"}
STEPS = ("warm step", "step", "logging step")
OF_TESTS = (
    *ALLOWED,
    Allowed((*STEPS, "validation"), "tests/support/poisoned.py", "the test's data ask for a picture's number"),
    Allowed(STEPS, "spike_guard.py (look)", "the guard decides on the host, at every step"),
    Allowed(STEPS, "snapshot.py (of)", "a snapshot: one wait for all tensors"),
    Allowed(STEPS, "snapshot.py (put_back)", "a rollback, which is rare"),
    Allowed(STEPS, "throughput.py", "after a rollback a row is due at a step of another number"),
    Allowed(STEPS, "logger_connector.py (log_metrics)", "the same"),
    Allowed(
        STEPS,
        "data/image_text/modules.py (normalise)",
        "a resumed run's first step: mean and deviation go to the device once",
    ),
)

pytestmark = pytest.mark.distributed  # one other process


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What the jobs found, of one process for all of them."""
    return results(JOBS + TROUBLE, tmp_path_factory)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_refused(found: dict[str, Found], name: str) -> None:
    assert found[name].error is None
    assert found[name].value["status"] == "ok"
    none(found[name].refused())


@pytest.mark.parametrize("name", MODELS)
def test_what_waits_is_listed(found: dict[str, Found], name: str) -> None:
    none(found[name].unlisted())


@pytest.mark.parametrize("name", ENDS)
def test_trouble_is_the_same_on_the_device(found: dict[str, Found], name: str) -> None:
    assert found[name].error is None
    assert found[name].value["status"] == ENDS[name]
    none(found[name].refused())
    none(found[name].unlisted(OF_TESTS))


def test_the_first_bad_step_is_named(found: dict[str, Found]) -> None:
    assert "at step 6" in found["not_finite"].value["reason"]
    assert found["out_of_memory"].value["reason"].startswith("OutOfMemoryError: CUDA out of memory")


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_made_on_the_host(found: dict[str, Found], name: str) -> None:
    """A seed would mean other weights with the device's generator; what is read from files would make the way twice."""
    none([row for row in found[name].rows if row.phase == "run" and "(configure_model)" in row.where])
