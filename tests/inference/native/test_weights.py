"""Reading parts of files, splitting over processes, and layers that come from disk."""

from pathlib import Path

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.offload import OffloadBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.families import describe
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.streaming import StreamedLayers
from alignlab.inference.native.weights import WeightFiles
from contract import check_score
from tiny_models import ARCHITECTURES, save_model, tiny_model

import pytest
import torch
from safetensors.torch import save_file


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_parts_of_a_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "a": torch.randn(7, 5).mul(50).to(dtype),
        "b": torch.arange(6).to(dtype),
        "c": torch.zeros(0, 3).to(dtype),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    files = WeightFiles(tmp_path)
    assert "a" in files and "d" not in files and files.shape("a") == (7, 5)
    for name, tensor in tensors.items():
        assert torch.equal(files.read(name), tensor)
    assert torch.equal(files.read("a", 0, 2, 6), tensors["a"][2:6])
    assert torch.equal(files.read("a", 1, 1, 4), tensors["a"][:, 1:4])
    target = torch.empty(7, 5)
    files.read_into("a", target)  # another type is converted
    assert torch.equal(target, tensors["a"].float())


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100, 100)}, tmp_path / "model.safetensors")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="was not copied completely"):
        WeightFiles(tmp_path).read("a")


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_shards_cover_everything_once(kind: str, ranks: int) -> None:
    architecture = describe(tiny_model(kind).config)
    shards = [architecture.split(rank, ranks) for rank in range(ranks)]
    for name in ("heads", "inner", "vocabulary"):
        covered = [index for shard in shards for index in range(*getattr(shard, name))]
        assert covered == list(range(getattr(architecture.whole(), name)[1]))
    group = architecture.heads // architecture.kv_heads
    for shard in shards:
        assert {head // group for head in range(*shard.heads)} == set(range(*shard.kv_heads))


def test_more_processes_than_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"processes=4 is more than the model's 3 attention heads"):
        describe(tiny_model("bloom").config).split(0, 4)


def test_streamed_layers_start_anew_after_a_round_that_was_broken_off(tmp_path: Path) -> None:
    folder = save_model("gpt_neox", tmp_path)
    model = tiny_model("gpt_neox")
    architecture = describe(model.config)
    reader = DecoderReader(WeightFiles(folder), architecture, torch.float32)
    layers = StreamedLayers(reader, resident=0)
    expected = [reader.layer(index).down.weight for index in range(architecture.layers)]
    next(iter(layers))
    for _ in range(3):
        for index, layer in enumerate(layers):
            assert torch.equal(layer.down.weight, expected[index])
    layers.close()


@pytest.mark.parametrize("resident", [0.0, 0.7, 1.0])
def test_offload_keeps_its_share(tmp_path: Path, resident: float) -> None:
    backend, model = OffloadBackend(resident=resident), tiny_model("llama")
    backend.load(ModelSource(str(save_model("llama", tmp_path))))
    memory, whole = backend.memory(), sum(p.nbytes for p in model.parameters())
    assert (memory["streamed"] == 0) == (resident == 1.0)
    assert memory["weights"] + memory["streamed"] >= whole
    check_score(backend, model)


@pytest.mark.parametrize("backend", [CompiledBackend, TransformersBackend])
def test_what_is_wrong_with_a_source_is_one_line(backend: type, tmp_path: Path) -> None:
    model = save_model("llama", tmp_path / "model")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for source, message in [
        (ModelSource(str(tmp_path / "nothing")), "there is no such folder"),
        (ModelSource(str(adapter)), "neither config.json nor adapter_config.json"),
        (ModelSource(str(model), str(adapter)), f"adapter={adapter}"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            backend().load(source)
        assert "\n" not in str(error.value)


def test_unknown_architecture_names_the_backend_that_knows_it(tmp_path: Path) -> None:
    import transformers

    config = transformers.OPTConfig(
        vocab_size=97, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model type opt .* use backend=transformers"):
        CompiledBackend().load(ModelSource(str(tmp_path)))
    TransformersBackend().load(ModelSource(str(tmp_path)))
