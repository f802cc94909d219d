"""PPO and GRPO on the pretend CUDA device: they run in bf16-mixed, what waits for the device is listed, an infinite gradient ends the run."""

from pretend_cuda.allowed import Allowed
from pretend_cuda.process import Found, Job, none, results

import pytest

SHORT = (
    "trainer=gpu",
    "trainer.max_steps=8",
    "trainer.val_check_interval=6",
    "++trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=5",
    "trainer.num_sanity_val_steps=0",
    "data.batch_size=4",
)
NET = ("model.net.width=32", "model.net.depth=1", "model.net.heads=2", "+data.vocab_size=300", "data.max_length=24")
ROLLOUT = (
    "model.net.path={jobs}/sft",
    "model.reward={jobs}/reward",
    "model.response_length=8",
    "model.update.micro_batch_size=2",
    "model.peft.rank=2",
    "callbacks.responses.num_prompts=2",
    *SHORT,
)
JOBS = (
    Job("sft", ("model=sft", *NET, *SHORT, "trainer.max_steps=1")),
    Job("reward", ("model=reward", *NET[3:], *SHORT, "trainer.max_steps=1")),
    Job("ppo", ("model=ppo", "model.update.num_minibatches=2", *ROLLOUT)),
    Job("grpo", ("model=grpo", "model.group_size=2", "model/peft=none", *[x for x in ROLLOUT if "peft" not in x])),
)
ON_POLICY = ("ppo", "grpo")
OFTEN = ("trainer.max_steps=3", "trainer.val_check_interval=1", "callbacks.responses=null", "callbacks.nan_report=null")
BROKEN = tuple(
    Job(
        f"{name}_{limit}",
        call="infinite_gradient:run",
        arguments={"update": 1, "overrides": [*job.overrides, *OFTEN, f"model.update.max_grad_norm={limit}"]},
    )
    for name, limit, job in (("ppo", "1.0", JOBS[2]), ("grpo", "null", JOBS[3]))
)
WAITS = (
    Allowed(("step",), "systems/rlhf/on_policy.py (training_step)", "metrics and checks of an update, in one copy"),
    Allowed(("step",), "inference/", "decoding reads its tokens"),
    Allowed(("step",), "throughput.py (_start)", "the clock starts when the device is idle, after each validation"),
    Allowed(
        ("step",), "callbacks/meters/progress.py", "one copy of what the line shows, by the clock: on a slow machine"
    ),
)

pytestmark = pytest.mark.distributed  # one other process


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return results((*JOBS, *BROKEN, Job("zeroed", call="infinite_gradient:zeroed")), tmp_path_factory)


@pytest.mark.parametrize("name", [job.name for job in JOBS])
def test_bf16_mixed_runs_and_nothing_is_refused(found: dict[str, Found], name: str) -> None:
    assert found[name].error is None
    assert found[name].value["status"] == "ok"
    none(found[name].refused())


@pytest.mark.parametrize("name", ON_POLICY)
def test_an_update_waits_once_besides_decoding(found: dict[str, Found], name: str) -> None:
    waits = found[name].waits("step")
    none([row for row in waits if not any(entry.covers(row.phase, row.what, row.where) for entry in WAITS)])
    own = [row.count for row in waits if WAITS[0].covers(row.phase, row.what, row.where)]
    assert own == [3], "steps 4, 6 and 7, one in each: three are warm, two log"


@pytest.mark.parametrize("name", [job.name for job in BROKEN])
def test_an_infinite_gradient_moves_nothing_and_ends_the_run(found: dict[str, Found], name: str) -> None:
    assert found[name].error is None
    end = found[name].value
    assert end["status"] == "diverged" and end["reason"] in (
        "gradient is inf in update 1",
        "gradient is nan in update 1",
    )
    assert end["gradients after"] > 0, "nobody looked before the end of the update"
    assert end["weights are finite"] and end["checkpoint is finite"]


def test_infinity_times_nothing_is_nothing(found: dict[str, Found]) -> None:
    assert found["zeroed"].error is None
    kept, dropped = found["zeroed"].value
    assert kept == [[1.5, 8.0, 7.0, -2.0]] * 2 and dropped == [[0.0] * 4] * 2
