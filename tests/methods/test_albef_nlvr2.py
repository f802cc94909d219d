"""Two pictures: gradients, state, teacher, accumulation, learning; which layer sees which picture, shared keys and values, the start."""

import tiny_tasks
from alignlab.methods.albef_nlvr2 import AlbefNlvr2Method
from tiny_tasks import judged

import torch


def make(**settings) -> AlbefNlvr2Method:
    return tiny_tasks.make(AlbefNlvr2Method, **settings)


def cut(batch, part):
    return type(batch)(*(x[part] for x in batch))


BATCH = judged(pictures=2, classes=2)


def test_what_learns_and_what_changes() -> None:
    tiny_tasks.check_gradients(make(), BATCH, {"image_projection", "text_projection", "language_head"})
    tiny_tasks.check_state(make(), BATCH)
    tiny_tasks.check_accumulation(make(), BATCH, cut)


def test_the_teacher() -> None:
    tiny_tasks.check_teacher(make, BATCH)


def test_it_learns_a_batch() -> None:
    method = make(distill=False)
    losses = tiny_tasks.trained(method, BATCH, 40, lr=2e-2)
    assert losses[-1] < 0.3 * losses[0] and method.validate(BATCH)["accuracy"] == 1


@torch.no_grad()
def test_layers_take_turns_with_the_pictures() -> None:
    net, seen = make().eval().net, []
    for layer in (*net.encoder.fusion, *net.second):
        layer.cross_attention.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1].key))
    net(BATCH.image, BATCH.ids, BATCH.mask)
    wanted = []
    for layer in range(2):
        for picture in range(2):  # of each pair of layers the first projects both pictures
            tokens = net.encoder.vision.tokens(BATCH.image[:, picture])
            wanted.append(net.encoder.image_states(tokens)[layer].key)
    assert len(seen) == 4
    for found, expected in zip(seen, wanted, strict=True):
        torch.testing.assert_close(found, expected)
    assert not [name for name, _ in net.second.named_parameters() if "cross_attention.key_value" in name]
    turned = net(BATCH.image.flip(1), BATCH.ids, BATCH.mask)
    assert not torch.allclose(turned, net(BATCH.image, BATCH.ids, BATCH.mask))


@torch.no_grad()
def test_layers_for_the_second_picture_begin_as_those_for_the_first_unless_they_are_loaded() -> None:
    method, name = make(), "cross_attention.out.weight"
    method.net.encoder.fusion[1].get_parameter(name).fill_(1.0)
    method.settle(["net.encoder.fusion.1." + name, "net.second.1." + name])
    assert not (method.net.second[1].get_parameter(name) == 1).all()
    method.settle(["net.encoder.fusion.1." + name])
    for net in (method.net, method.twin.teacher):
        assert (net.second[1].get_parameter(name) == 1).all()
