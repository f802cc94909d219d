"""Batches: the joint order over ranks and workers, resuming, errors of workers."""

from types import SimpleNamespace

from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.loaders import BatchLoader, JointBatches, JointOrder, keep_batch

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint


def scenes(rank=0, world_size=1, batch_size=4, num_workers=0, **settings):
    module = PairDataModule(
        EmojiScenePairs,
        num_train=40,
        num_val=30,
        image_size=24,
        batch_size=batch_size,
        num_workers=num_workers,
        prefetch_factor=2,
        **settings,
    )
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    module.setup("fit")
    return module


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_two_ranks_see_together_what_one_rank_sees(workers):
    joint = list(scenes(batch_size=8).train_dataloader())
    ranks = [list(scenes(rank, 2, 4, num_workers=workers).train_dataloader()) for rank in range(2)]
    assert len(joint) == len(ranks[0]) == len(ranks[1]) == 5
    for whole, *parts in zip(joint, *ranks, strict=True):
        assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
        assert torch.equal(whole.image_id, torch.cat([part.image_id for part in parts]))
        assert torch.equal(whole.text_id, torch.cat([part.text_id for part in parts]))


def test_the_order_of_numbers():
    order = JointOrder(21)
    order.set_epoch(2)
    assert list(order) == list(range(42, 63))
    assert list(JointBatches(order, 3, 0, 3)) == [[42, 43, 44], [51, 52, 53]]
    assert list(JointBatches(order, 3, 2, 3)) == [[48, 49, 50], [57, 58, 59]]


def test_an_incomplete_last_batch_is_shared_equally():
    batches = [list(JointBatches(JointOrder(23), 4, rank, 2, last="share")) for rank in range(2)]
    assert batches[0] == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18]]
    assert batches[1] == [[4, 5, 6, 7], [12, 13, 14, 15], [19, 20, 21]]
    assert [len(JointBatches(JointOrder(n), 4, 0, 2, last="share")) for n in (18, 20)] == [
        2,
        3,
    ]  # a batch of one is no batch


def test_epochs_bring_new_scenes():
    loader = scenes().train_dataloader()
    first = [batch.image_id for batch in loader]
    loader.batch_sampler.sampler.set_epoch(1)
    assert torch.equal(torch.cat([batch.image_id for batch in loader]), torch.cat(first) + 40)


def test_every_validation_sees_the_same_pictures():
    loader = scenes().val_dataloader()
    first = torch.cat([batch.image_id for batch in loader])
    loader.batch_sampler.sampler.set_epoch(1)  # as Lightning does
    assert torch.equal(torch.cat([batch.image_id for batch in loader]), first) and len(first) == 30


def test_loading_leaves_the_random_numbers_of_training_alone():
    loader = scenes(num_workers=1).train_dataloader()
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_goes_on_where_it_was():
    loader = scenes().train_dataloader()
    loader.batch_sampler.sampler.set_epoch(3)
    iterator = iter(loader)
    seen = [next(iterator).image_id[0].item() for _ in range(4)]
    other = scenes().train_dataloader()
    other.load_state_dict(loader.state_dict())
    assert seen == [120, 124, 128, 132]
    assert [batch.image_id[0].item() for batch in other] == [136, 140, 144, 148, 152, 156]
    assert len(list(other)) == 10  # only the first epoch is shortened
    other.load_state_dict({"epoch": 3, "batch": 10})
    assert next(iter(other)).image_id[0] == 160
    other.load_state_dict({"epoch": 3, "batch": 3, "joint": 6})  # 18 pairs done in batches of 6; here they are of 4
    assert next(iter(other)).image_id[0] == 136


class Recorder(lightning.LightningModule):
    """Notes the pictures of each step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.images = [], []

    def training_step(self, batch, _):
        self.seen.append(batch.image_id[0].item())
        self.images.append(batch.image)
        return (self.weight * batch.image.mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, steps, workers, ckpt_path=None):
    system, module = Recorder(), scenes(num_workers=workers)
    module.trainer = None
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(system, datamodule=module, ckpt_path=ckpt_path)
    return system


@pytest.mark.parametrize("stop", [3, 10, 12])  # within an epoch, at its end, in the second one
def test_lightning_resumes_in_the_middle_of_an_epoch(tmp_path, stop):
    whole = fit(tmp_path / "whole", 14, 0)
    assert whole.seen == list(range(0, 56, 4))
    assert whole.images[0].dtype == torch.float32 and whole.images[0].shape == (4, 3, 24, 24)
    resumed = fit(tmp_path / "resumed", 14, 1, tmp_path / "whole" / f"step={stop}.ckpt")
    assert resumed.seen == whole.seen[stop:]


class Broken(torch.utils.data.Dataset):
    def __getitems__(self, indices):
        raise ValueError("row 7 is broken")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_one_line(workers):
    batches = JointBatches(JointOrder(4), 2, 0, 1)
    with pytest.raises(ValueError) as caught:
        next(iter(BatchLoader(Broken(), batch_sampler=batches, collate_fn=keep_batch, num_workers=workers)))
    assert str(caught.value) == "row 7 is broken"
