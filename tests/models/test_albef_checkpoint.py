"""The published layout is read and written strictly, and nothing is lost on the way."""

from albef_pair import TINY, load, make_reference, make_system
from albef_reference import AlbefReference
from albef_reference_encoders import Sizes
from alignlab.models.albef_checkpoint import AlbefState, Shapes, from_official, official_entries, to_official

import pytest
import torch


def test_official_entries_count_and_equal_the_reference_at_full_size():
    with torch.device("meta"):
        model = AlbefReference(Sizes())
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(trainable) == 419
    assert sum(p.numel() for p in trainable) == 209_937_725  # 209.94 M
    entries = official_entries(Shapes())
    assert len(entries) == 844
    assert entries == {name: tuple(x.shape) for name, x in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("temp", ()),
        ("image_queue", (256, 65536)),
        ("visual_encoder_m.pos_embed", (1, 257, 768)),
        ("visual_encoder.blocks.11.attn.qkv.weight", (2304, 768)),
        ("text_encoder.bert.embeddings.position_ids", (1, 512)),
        ("text_encoder.bert.encoder.layer.6.crossattention.self.key.weight", (768, 768)),
        ("text_encoder_m.bert.encoder.layer.0.output.dense.weight", (768, 3072)),
        ("text_encoder_m.cls.predictions.decoder.weight", (30522, 768)),
        ("itm_head.weight", (2, 768)),
    ],
)
def test_official_entries_of_the_released_files(name: str, shape: tuple[int, ...]):
    assert official_entries(Shapes())[name] == shape


def test_round_trip_is_exact_and_loads_strictly():
    official = make_reference().state_dict()
    official["queue_ptr"][0] = 7
    system = make_system()
    system.load_state_dict(from_official(official).of_system(), strict=True)
    back = to_official(AlbefState.from_system(system.state_dict()))
    assert back.keys() == official.keys()
    for name, x in official.items():
        assert back[name].dtype == x.dtype, name
        assert torch.equal(back[name], x), name
    assert (system.queue.image_id < 0).all()
    assert system.queue.pointer.item() == 7


def test_model_entry_of_a_released_file_is_unwrapped():
    official = make_reference().state_dict()
    wrapped = from_official({"model": official, "epoch": 29})
    assert torch.equal(wrapped.net["temperature"], official["temp"].reshape(1))


def test_every_missing_unexpected_and_misshapen_entry_is_listed():
    official = dict(make_reference().state_dict())
    del official["text_proj_m.bias"], official["visual_encoder.blocks.1.norm2.weight"]
    official["idx_queue"] = torch.zeros(1, 20)
    official["vision_proj.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match="does not fit") as error:
        from_official(official)
    for name in (
        "text_proj_m.bias",
        "visual_encoder.blocks.1.norm2.weight",
        "idx_queue",
        "vision_proj.bias (5,) instead of (12,)",
    ):
        assert name in str(error.value)


def test_untied_decoder_is_refused():
    official = dict(make_reference().state_dict())
    official["text_encoder_m.cls.predictions.decoder.bias"] = official["text_encoder_m.cls.predictions.bias"] + 1
    with pytest.raises(ValueError, match=r"decoder\.bias differs"):
        from_official(official)


def test_net_of_another_layout_is_refused():
    state = AlbefState.from_system(make_system().state_dict())
    state.net["encoder.vision.trunk.patch_embed.convs.0.weight"] = torch.zeros(3, 3, 3, 3)
    with pytest.raises(ValueError, match=r"patch_embed\.convs\.0\.weight"):
        to_official(state)
    state = AlbefState.from_system(make_system().state_dict())
    del state.teacher["fusion.2.cross_attention.key_value.bias"]
    with pytest.raises(ValueError, match=r"missing: fusion\.2\.cross_attention\.key_value\.bias"):
        to_official(state)
    with pytest.raises(ValueError, match=r"net\.extra|extra"):
        to_official(AlbefState.from_system(make_system().state_dict() | {"extra": torch.zeros(1)}))


def test_position_embedding_of_student_and_teacher_is_resized_on_request():
    reference = make_reference()
    state = from_official(reference.state_dict(), grid=(5, 5))
    make_system(TINY._replace(image_size=40)).load_state_dict(state.of_system(), strict=True)
    for new, old in (
        (state.net["encoder.vision.trunk.pos_embed"], reference.visual_encoder.pos_embed),
        (state.teacher["vision.trunk.pos_embed"], reference.visual_encoder_m.pos_embed),
    ):
        assert torch.equal(new[:, 0], old[:, 0])
        square = old[:, 1:].reshape(1, 3, 3, -1).permute(0, 3, 1, 2)
        wanted = torch.nn.functional.interpolate(square, size=(5, 5), mode="bicubic", align_corners=False)
        torch.testing.assert_close(new[:, 1:], wanted.flatten(2).transpose(1, 2), atol=1e-7, rtol=0)


def test_loading_makes_the_towers_equal_the_reference():
    reference, system = make_reference().eval(), make_system().eval()
    load(system, reference)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 24, 24, generator=generator)
    ids = torch.randint(5, 61, (3, 7), generator=generator)
    mask = torch.ones(3, 7, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            system.encode_image(image).tokens, reference.visual_encoder(image), atol=2e-6, rtol=0
        )
        torch.testing.assert_close(
            system.encode_text(ids, mask).tokens, reference.text_encoder.bert.text(ids, mask), atol=2e-6, rtol=0
        )
