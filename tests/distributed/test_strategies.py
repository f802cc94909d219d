"""Every strategy on two processes against one process with the joint batch, and each one's checkpoints under the next.

All runs of a tier share two processes, started as torchrun starts them. CLIP, SigLIP, ALBEF with teacher, queue and hard negatives; SFT, reward model, DPO.
"""

from importlib.util import find_spec
from pathlib import Path

import strategy_ranks as ranks
from alignlab.cli import main
from two_processes import start

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(ranks.__file__)
DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra deepspeed")
RTOL = 1e-5  # of float32 losses
MUON = 2e-4  # Newton-Schulz computes in bfloat16, which makes differences of rounding larger; ddp differs by as much as the others


def compare(rows: list[dict[str, str]], wanted: list[dict[str, str]], name: str, rtol: float = RTOL) -> None:
    """All training metrics of all steps, but the speed. Rewards of DPO are small differences of sums over tokens."""
    by_step = {row["step"]: row for row in wanted}
    for row in rows:
        for key, value in row.items():
            if key.startswith("train/") and key != "train/samples_per_second" and value:
                absolute = 1e-5 if "reward" in key else 0.0
                expected = pytest.approx(float(by_step[row["step"]][key]), rel=rtol, abs=absolute)
                assert float(value) == expected, (name, row["step"], key)


def check(folder: Path, model: str, strategies: tuple[str, ...]) -> None:
    ranks.quiet()
    rtol = MUON if model.endswith("muon") else RTOL
    wanted = ranks.fit(folder / "one", *ranks.MODELS[model], "trainer=cpu", steps=ranks.MORE)
    start(SCRIPT, folder, [model], strategies)
    for before, after in zip(strategies, strategies[1:] + strategies[:1], strict=True):
        rows = ranks.rows_of(folder / model / before)
        assert len(rows) == ranks.STEPS
        compare(rows, wanted, before, rtol)
        rows = ranks.rows_of(folder / model / f"{before}+{after}")
        assert len(rows) == ranks.MORE - ranks.STEPS
        compare(rows, wanted, f"{after} going on from {before}", rtol)
    last = folder / model / strategies[-1] / "checkpoints" / "last.ckpt"
    alone = ranks.fit(folder / "alone", *ranks.MODELS[model], "trainer=cpu", steps=ranks.MORE, ckpt_path=last)
    compare(alone, wanted, f"one process going on from {strategies[-1]}", rtol)


def models(*usual: str) -> list[object]:
    """All of them; those that aren't usual are slow."""
    return [model if model in usual else pytest.param(model, marks=pytest.mark.slow) for model in sorted(ranks.MODELS)]


@pytest.mark.distributed
@pytest.mark.parametrize("model", models("sft"))  # ALBEF: FSDP beside ZeRO below, DDP in test_albef.py
def test_ddp_and_fsdp_equal_one_process_and_go_on_from_each_other(tmp_path: Path, model: str) -> None:
    check(tmp_path, model, ("ddp", "fsdp"))


@pytest.mark.distributed
def test_a_sharded_folder_resumes_and_converts_to_one_file(tmp_path: Path) -> None:
    ranks.quiet()
    wanted = ranks.fit(tmp_path / "one", *ranks.MODELS["clip"], "trainer=cpu", steps=ranks.MORE)
    start(SCRIPT, tmp_path, ["clip"], ("fsdp_sharded",))  # and goes on from its own folder
    compare(ranks.rows_of(tmp_path / "clip" / "fsdp_sharded+fsdp_sharded"), wanted, "the folder")
    run_dir, file = tmp_path / "clip" / "fsdp_sharded", tmp_path / "whole.ckpt"
    assert (run_dir / "checkpoints" / "last.ckpt").is_dir()
    assert main(["convert", "whole", str(run_dir), str(file)]) == 0
    alone = ranks.fit(tmp_path / "alone", *ranks.MODELS["clip"], "trainer=cpu", steps=ranks.MORE, ckpt_path=file)
    assert len(alone) == ranks.MORE - ranks.STEPS
    compare(alone, wanted, "one process going on from the converted file")
    assert main(["convert", "safetensors", str(file), str(tmp_path / "weights.safetensors")]) == 0
    weights, saved = load_file(tmp_path / "weights.safetensors"), torch.load(file, weights_only=True)["state_dict"]
    assert weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)


@DEEPSPEED
@pytest.mark.deepspeed
@pytest.mark.parametrize("model", models("albef", "sft"))
def test_zero_1_2_3_equal_one_process_and_go_on_from_each_other(tmp_path: Path, model: str) -> None:
    check(tmp_path, model, ("deepspeed_1", "deepspeed_2", "deepspeed_3", "fsdp"))


@DEEPSPEED
@pytest.mark.deepspeed
@pytest.mark.slow
def test_what_lies_on_the_host_trains_the_same(tmp_path: Path) -> None:
    check(tmp_path, "clip", ("fsdp_offloaded", "deepspeed_2_offloaded", "deepspeed_3_offloaded"))


@DEEPSPEED
@pytest.mark.deepspeed
def test_a_folder_of_zero_resumes_and_its_weights_convert(tmp_path: Path) -> None:
    ranks.quiet()
    wanted = ranks.fit(tmp_path / "one", *ranks.MODELS["clip"], "trainer=cpu", steps=ranks.MORE)
    start(SCRIPT, tmp_path, ["clip"], ("deepspeed_3_sharded",))
    run_dir, file = tmp_path / "clip" / "deepspeed_3_sharded+deepspeed_3_sharded", tmp_path / "weights.ckpt"
    compare(ranks.rows_of(run_dir), wanted, "the folder")
    assert main(["convert", "whole", str(run_dir), str(file)]) == 0
    found = torch.load(file, weights_only=True)["state_dict"]
    expected = torch.load(tmp_path / "one" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "qkv.bias" in name:  # a key's bias has no gradient but rounding errors, which AdamW makes large
            continue
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@DEEPSPEED
@pytest.mark.deepspeed
def test_an_odd_bucket_is_refused() -> None:
    from alignlab.strategies.deepspeed import DeepSpeed

    with pytest.raises(ValueError, match="bucket_elements=7 must be even"):
        DeepSpeed(bucket_elements=7)
