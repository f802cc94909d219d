"""EfficientNet-Lite's released weights in a vision tower, against a plain forward in their own names."""

from pathlib import Path

from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.tools.convert import from_efficientnet_lite

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

# Repeats, kernel, stride, widening, channels out: EfficientNet-B0 (arXiv:1905.11946, table 1) without squeeze and excitation.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
STAGES += ((1, 3, 1, 6, 320),)


def blocks() -> list[tuple[int, int, int, int, int]]:
    """Kernel, stride, channels in, within, out."""
    found, channels = [], 32
    for repeats, kernel, stride, widening, out in STAGES:
        for place in range(repeats):
            found.append((kernel, stride if place == 0 else 1, channels, channels * widening, out))
            channels = out
    return found


def random_state() -> dict[str, Tensor]:
    """Weights of Lite0 under the names of EfficientNet-Lite-PyTorch, which keep numbers in range."""
    state: dict[str, Tensor] = {}

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(channels) + 0.5, torch.randn(channels) * 0.1
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = (
            torch.randn(channels) * 0.1,
            torch.rand(channels) + 0.5,
        )
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, kernel, kernel) * (2 / (into * kernel * kernel)) ** 0.5

    conv("_conv_stem", 32, 3, 3), norm("_bn0", 32)
    for number, (kernel, _, into, within, out) in enumerate(blocks()):
        block = f"_blocks.{number}"
        if within != into:
            conv(f"{block}._expand_conv", within, into, 1), norm(f"{block}._bn0", within)
        conv(f"{block}._depthwise_conv", within, 1, kernel), norm(f"{block}._bn1", within)
        conv(f"{block}._project_conv", out, within, 1), norm(f"{block}._bn2", out)
    conv("_conv_head", 1280, 320, 1), norm("_bn1", 1280)
    return {**state, "_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.randn(1000)}


def plain(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1280, h, w), as TensorFlow pads: more on the right where it can't be even."""

    def conv(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        lacking = [max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0) for side in x.shape[:1:-1]]
        x = F.pad(x, [part for more in lacking for part in (more // 2, more - more // 2)])
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = F.relu6(norm("_bn0", conv("_conv_stem", x, 2)))
    for number, (_, stride, into, within, out) in enumerate(blocks()):
        block, before = f"_blocks.{number}", x
        if within != into:
            x = F.relu6(norm(f"{block}._bn0", conv(f"{block}._expand_conv", x)))
        x = F.relu6(norm(f"{block}._bn1", conv(f"{block}._depthwise_conv", x, stride, within)))
        x = norm(f"{block}._bn2", conv(f"{block}._project_conv", x))
        x = x + before if stride == 1 and into == out else x
    return F.relu6(norm("_bn1", conv("_conv_head", x)))


def test_features_are_those_of_a_plain_forward_and_locked(tmp_path: Path) -> None:
    state = random_state()
    torch.save(state, tmp_path / "lite0.pth")
    assert from_efficientnet_lite(tmp_path / "lite0.pth", tmp_path / "lite0.safetensors") == len(state)
    settings = {"image_size": 72, "name": "tf_efficientnet_lite0", "pretrained": str(tmp_path / "lite0.safetensors")}
    net = Clip(
        lambda: vision_transformer(**settings),
        lambda vocab_size: TextTower(vocab_size=vocab_size, context_length=8, width=16, depth=1, heads=2),
        vocab_size=20,
        embed_dim=8,
        freeze="image",
    ).train()
    image = torch.randn(2, 3, 72, 72)
    wanted = plain(state, image)
    with torch.no_grad():
        assert_close(net.vision.tokens(image), wanted.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
        assert_close(net.vision.pooled(image), wanted.mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert net.vision.grid == (3, 3) and wanted.abs().max() > 0.1
    learning = {name.partition(".")[0] for name, weight in net.named_parameters() if weight.requires_grad}
    assert learning == {"text", "image_projection", "text_projection", "logit_scale"}


def test_its_pickle_is_refused_elsewhere_and_other_weights_here(tmp_path: Path) -> None:
    state = random_state()
    torch.save(state, tmp_path / "lite0.pth")
    settings = {"image_size": 72, "name": "tf_efficientnet_lite0"}
    with pytest.raises(ValueError, match="alignlab convert from-efficientnet-lite FILE") as caught:
        vision_transformer(**settings, pretrained=str(tmp_path / "lite0.pth"))
    assert "\n" not in str(caught.value)
    from_efficientnet_lite(tmp_path / "lite0.pth", tmp_path / "lite0.safetensors")
    with pytest.raises(ValueError, match=r"lite0\.safetensors holds other weights: missing: "):
        vision_transformer(image_size=72, name="resnet10t", pretrained=str(tmp_path / "lite0.safetensors"))
    del state["_fc.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"convert: .*less.pth: these are no weights of efficientnet_lite0, "):
        from_efficientnet_lite(tmp_path / "less.pth", tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match="the package efficientnet_lite9 is not installed"):
        from_efficientnet_lite(Path("package:efficientnet_lite9"), tmp_path / "less.safetensors")
    assert not (tmp_path / "less.safetensors").exists()
