"""A process whose default type is 16 bits wide (bf16-true, 16-true): what C gets, and every number of a reply, stays as in float32."""

from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.native.decoder import Cache
from alignlab.inference.native.kernels.compiling import address, library
from alignlab.inference.native.kernels.fused_step import FusedStep
from alignlab.inference.native.kernels.small_matmul import SmallMatmul
from tiny_models import PROMPTS, save_model

import pytest
import torch

kernels = pytest.mark.skipif(library() is None, reason="needs a C compiler")
BACKENDS: dict[str, Callable[[], Backend]] = {
    "fused": CompiledBackend,
    "fixed": lambda: CompiledBackend(compile_step=True),
    "int8": Int8Backend,
    "w8a8": lambda: Int8Backend("w8a8"),
}


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def narrow(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Switches the default type; it is float32 again afterwards."""
    yield lambda: torch.set_default_dtype(request.param)
    torch.set_default_dtype(torch.float32)


@kernels
@pytest.mark.parametrize("rounded", [False, True])
def test_products(rounded: bool, narrow: Callable[[], None]) -> None:
    x = torch.randn(5, 70)
    q, scale, bias = torch.randint(-9, 10, (33, 70), dtype=torch.int8), torch.rand(33), torch.randn(33)
    wanted = SmallMatmul(q, scale, bias, rounded)(x)
    narrow()
    found = SmallMatmul(q, scale, bias, rounded)(x)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)


@pytest.mark.parametrize("kind", ["llama", "bloom"])
@pytest.mark.parametrize("name", BACKENDS)
def test_replies(name: str, kind: str, narrow: Callable[[], None], tmp_path: Path) -> None:
    source = ModelSource(str(save_model(kind, tmp_path)))
    settings = [Sampling(8), Sampling(8, temperature=0.7, top_p=0.83), Sampling(8, 1.1, 9, repetition_penalty=1.3)]
    requests = [Request(p, 3, s) for p, s in zip(PROMPTS, settings, strict=False)]

    def replies() -> tuple:
        backend = BACKENDS[name]()
        backend.load(source)
        return backend.generate(requests), backend.score(PROMPTS)

    wanted = replies()
    narrow()
    assert replies() == wanted


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(3, 4, dtype=torch.bfloat16), "(3, 4) in torch.bfloat16 on cpu"),
        (torch.zeros(3, 2), "(3, 2) in torch.float32 on cpu"),
        (torch.zeros(4, 3).t(), "(3, 4) in torch.float32 on cpu, strides (1, 3)"),
        (torch.zeros(3, 4, device="meta"), "(3, 4) in torch.float32 on meta"),
    ],
    ids=["type", "size", "gaps", "device"],
)
def test_the_border_of_c(tensor: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=r"C kernel: states must be \(3, 4\) in torch.float32 on the CPU") as error:
        address(tensor, torch.float32, (3, 4), "states")
    assert reason in str(error.value)
    assert address(None, torch.float32, (3, 4), "states") is None


@kernels
def test_what_a_kernel_is_handed_is_checked(tmp_path: Path) -> None:
    weight = torch.zeros(33, 70)
    with pytest.raises(ValueError, match="C kernel: bias must be"):
        SmallMatmul(weight, bias=torch.zeros(32))(torch.zeros(1, 70))
    with pytest.raises(ValueError, match="C kernel: scale of a matrix must be"):
        SmallMatmul(weight.to(torch.int8), torch.zeros(33, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="integer products take an int8 matrix with a scale"):
        SmallMatmul(weight.to(torch.int8), rounded=True)
    backend = CompiledBackend(device="cpu")
    backend.load(ModelSource(str(save_model("llama", tmp_path))))
    step = FusedStep.of(backend.decoder)
    with pytest.raises(ValueError, match="C kernel: column 9 is outside a cache of 9"):
        cache = backend.decoder.cache([0], 9)
        cache.advance(9)
        step(torch.tensor([[5]]), cache)
    half = torch.zeros(backend.decoder.cache_shape(1, 9), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"C kernel: keys and values must be .* in fp32 or bf16"):
        step(torch.tensor([[5]]), Cache(half, half, [0]))
