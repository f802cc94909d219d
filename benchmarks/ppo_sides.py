"""One side of the PPO benchmark as a process: it makes an update when it is told to and says how long each phase took.

    python benchmarks/ppo_sides.py alignlab --setting page --updates 3 [--device cuda] [--precision bf16-mixed]

It speaks as `turns.py` has it. `ppo.py` and `gpu/updates.py` start these.
"""

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass
from functools import partial

import torch
from measuring import bare_trainer, device_option, wait
from turns import Turns

TRL, OURS, SEPARATE = "TRL 1.12", "alignlab", "alignlab, separate critic"
PAD, END = 0, 1


@dataclass(frozen=True)
class Setting:
    """Sizes that all sides share."""

    batch: int
    prompt: int
    response: int
    epochs: int
    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int

    @property
    def trunk(self) -> int:
        """Parameters of the layers' matrices."""
        attention = self.width * self.width * (2 + 2 * self.key_heads / self.heads)
        return int(self.layers * (attention + 3 * self.width * self.inner))

    @property
    def head(self) -> int:
        """Parameters of the output layer."""
        return self.vocabulary * self.width


SETTINGS = {
    "page": Setting(8, 32, 64, 4, 32_000, 384, 1024, 6, 6, 6),
    "tiny": Setting(4, 8, 8, 2, 500, 48, 64, 2, 3, 3),
    "135M": Setting(64, 64, 128, 4, 49_152, 576, 1536, 30, 9, 3),
    "1B": Setting(32, 64, 128, 4, 128_256, 2048, 8192, 16, 32, 8),
}


@dataclass(frozen=True)
class Job:
    """What one process is to do."""

    side: str
    updates: int
    setting: Setting
    device: str
    precision: str


def config(size: Setting):
    """Of all nets."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=END,
        num_labels=1,
    )


def prompts(size: Setting, number: int) -> torch.Tensor:
    """Ids (B, P) of one update."""
    return torch.randint(2, size.vocabulary, (size.batch, size.prompt), generator=torch.Generator().manual_seed(number))


def work_trl(turns: Turns, job: Job) -> None:
    """TRL's trainer; its callback at the end of an update waits for the next turn."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    class Pause(TrainerCallback):
        def on_step_end(self, *_, **__):
            wait(job.device)
            turns.phases["improve"] = time.perf_counter() - marks["improve"]
            turns.phases["score"] = turns.started and marks["improve"] - turns.started - turns.phases["generate"]
            turns.report()
            turns.wait()

    size, updates = job.setting, job.updates
    marks: dict[str, float] = {}
    rows = torch.cat([prompts(size, i) for i in range(updates + 1)]).tolist()
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=size.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=size.epochs,
        total_episodes=size.batch * updates,
        response_length=size.response,
        temperature=1.0,
        local_rollout_forward_batch_size=size.batch,
        learning_rate=1e-5,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        use_cpu=job.device == "cpu",
        bf16=job.precision == "bf16-mixed",
        disable_tqdm=True,
    )
    policy = LlamaForCausalLM(config(size))
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer(),
        model=policy,
        ref_model=LlamaForCausalLM(config(size)),
        reward_model=LlamaForSequenceClassification(config(size)),
        value_model=LlamaForSequenceClassification(config(size)),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        callbacks=[Pause()],
    )
    whiten = ppo_trainer.masked_whiten

    def whiten_and_mark(*args, **kwargs):  # the last thing before the epochs
        wait(job.device)
        marks["improve"] = time.perf_counter()
        return whiten(*args, **kwargs)

    ppo_trainer.masked_whiten = whiten_and_mark
    ppo_trainer.batch_generation = turns.timed("generate", ppo_trainer.batch_generation)
    turns.wait()
    trainer.train()


def tokenizer():
    """TRL wants one; it is never asked for words."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<pad>": PAD, "<end>": END, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left")


class SequenceScore:
    """The same reward model as TRL's."""

    def __init__(self, size: Setting) -> None:
        self.size = size

    def bind(self, net, tokenizer) -> None:
        from transformers import LlamaForSequenceClassification

        self.model = LlamaForSequenceClassification(config(self.size)).eval().to(net.device)

    def __call__(self, batch) -> torch.Tensor:
        ids = torch.tensor(batch.sequences, device=self.model.device)
        return self.model.score(self.model.model(ids, use_cache=False).last_hidden_state[:, -1])[:, 0]


def work_alignlab(turns: Turns, job: Job) -> None:
    """`PpoMethod`, as `python train.py model=ppo` runs it."""
    from alignlab.methods.ppo import PpoMethod
    from alignlab.methods.rlhf.update import Update

    from transformers import LlamaForCausalLM

    size = job.setting
    method = partial(
        PpoMethod,
        lambda vocabulary: LlamaForCausalLM(config(size)),
        SequenceScore(size),
        critic="separate" if job.side == SEPARATE else "shared",
        update=Update(size.epochs, micro_batch_size=size.batch),
    )
    run_method(turns, job, method, tokenizer())


def run_method(turns: Turns, job: Job, method: partial, words: object) -> None:
    """An on-policy method under Lightning's trainer, an update each turn, on prompts told apart by a tokenizer."""
    from alignlab.methods.rlhf import on_policy
    from alignlab.optim.adamw import adamw
    from alignlab.systems.choosing import system_of
    from alignlab.types.language import LanguageVocabulary, PromptBatch

    import lightning
    from torch.utils.data import DataLoader

    size = job.setting

    class Turn(lightning.Callback):
        def on_train_batch_start(self, *_):
            turns.wait()

        def on_train_batch_end(self, *_):
            turns.report()

    class Data(lightning.LightningDataModule):
        tokenizer = words

        def train_dataloader(self):
            mask, index = torch.ones(size.batch, size.prompt, dtype=torch.bool), torch.arange(size.batch)
            return DataLoader([PromptBatch(prompts(size, i), mask, index) for i in range(job.updates)], batch_size=None)

    system = system_of(
        partial(method, response_length=size.response),
        vocabulary=LanguageVocabulary(size.vocabulary, PAD, None, END),
        optim=partial(adamw, lr=1e-5, weight_decay=0.0),
    )
    system.configure_model()
    made = system.method
    made.sampling = made.sampling._replace(ignore_eos=True)
    on_policy.generate = turns.timed("generate", on_policy.generate)
    on_policy.evaluate = turns.timed("score", on_policy.evaluate)
    made.scores = turns.timed("score", made.scores)
    system.improve = turns.timed("improve", system.improve)
    bare_trainer(job.updates, Turn(), job.device, job.precision).fit(system, datamodule=Data())


def import_all() -> None:
    """What both sides need, so that none of it counts as memory of an update."""
    import alignlab  # noqa: F401  before whatever imports torchvision
    import lightning  # noqa: F401  # isort: skip
    import peft  # noqa: F401
    import transformers  # noqa: F401


def options_of(parser: argparse.ArgumentParser, settings: dict[str, Setting]) -> argparse.Namespace:
    """What the parent tells a worker besides its side."""
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--setting", choices=settings, default="page")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    return parser.parse_args()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=(TRL, OURS, SEPARATE))
    device_option(parser)
    options = options_of(parser, SETTINGS)
    job = Job(options.side, options.updates, SETTINGS[options.setting], options.device, options.precision)
    import_all()
    with contextlib.suppress(ImportError):
        from trl.experimental.ppo import PPOTrainer  # noqa: F401
    (work_trl if job.side == TRL else work_alignlab)(Turns(job.device), job)


if __name__ == "__main__":
    main()
