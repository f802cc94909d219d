"""One side of the GRPO benchmark as a process: it makes an update when it is told to and says how long each phase took.

    python benchmarks/grpo_sides.py alignlab --setting page --weights lora --updates 3 [--device cuda] [--precision bf16-mixed]

It speaks as `turns.py` has it. `grpo.py` and `gpu/updates.py` start these. TRL's side is that of the TRL which Python finds.
"""

import argparse
import contextlib
import tempfile
import time
from dataclasses import replace
from functools import partial

from measuring import device_option, wait
from ppo_sides import SETTINGS, Job, config, import_all, options_of, prompts, run_method
from turns import Turns

TRL, OURS = "TRL", "alignlab"
GROUP, RANK = 8, 16  # responses to a prompt; of the adapter
BETA = 0.05  # of the KL penalty in the loss
# PPO's nets and lengths; each prompt is answered GROUP times, and PPO's number of rows goes through the nets at once.
PROMPTS = {"page": 2, "tiny": 2, "135M": 32, "1B": 16}
SIZES = {name: replace(size, batch=PROMPTS[name], epochs=1) for name, size in SETTINGS.items()}
ROWS = {name: size.batch for name, size in SETTINGS.items()}


def sevens(prompts: list[str], completions: list[str], **_: object) -> list[float]:
    """The reward of both sides: how often a response has the digit 7."""
    return [float(text.count("7")) for text in completions]


def words(vocabulary: int):
    """A tokenizer with a word for each id, and an end that the net never says."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {"<pad>": 0} | {f"w{i}": i for i in range(1, vocabulary)} | {"<never>": vocabulary}
    inner = Tokenizer(models.WordLevel(table, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<never>", padding_side="left")


def work_trl(turns: Turns, job: Job, weights: str, rows: int) -> None:
    """TRL's trainer without checkpointing, logs and bfloat16: it generates for all micro-batches of a step at once, and
    leaves out the pass for old log-probabilities, which with one step a rollout are those of the step.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import LlamaForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Turn(TrainerCallback):
        def on_step_begin(self, *_, **__):
            turns.wait()

        def on_step_end(self, *_, **__):
            wait(job.device)
            turns.phases["score"] -= turns.phases["generate"]
            turns.phases["improve"] = (
                time.perf_counter() - turns.started - turns.phases["generate"] - turns.phases["score"]
            )
            turns.report()

    size, tokenizer, folder = job.setting, words(job.setting.vocabulary), tempfile.mkdtemp()
    told = [" ".join(f"w{i}" for i in row) for n in range(job.updates) for row in prompts(size, n).tolist()]
    net = LlamaForCausalLM(config(size))
    net.generation_config.eos_token_id = net.config.eos_token_id = size.vocabulary
    net.save_pretrained(folder)  # the reference is read from there again
    del net
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=size.batch * GROUP // rows,
        num_generations=GROUP,
        num_iterations=size.epochs,
        max_completion_length=size.response,
        max_steps=job.updates,
        beta=BETA,
        learning_rate=1e-5,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=job.precision == "bf16-mixed",
        use_cpu=job.device == "cpu",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
    )
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = GRPOTrainer(
        model=folder,
        reward_funcs=sevens,
        args=settings,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": told}),
        peft_config=adapter if weights == "lora" else None,
        callbacks=[Turn()],
    )
    trainer._generate_single_turn = turns.timed("generate", trainer._generate_single_turn)
    trainer._generate_and_score_completions = turns.timed("score", trainer._generate_and_score_completions)
    trainer.train()


def work_alignlab(turns: Turns, job: Job, weights: str, rows: int) -> None:
    """`GrpoMethod`, as `python train.py model=grpo` runs it, with TRL's gradient of the KL penalty."""
    from alignlab.methods.grpo import GrpoMethod
    from alignlab.methods.rlhf.objective import Objective
    from alignlab.methods.rlhf.update import Update
    from alignlab.models.language.lora import add_lora

    from transformers import LlamaForCausalLM

    size = job.setting
    method = partial(
        GrpoMethod,
        lambda vocabulary: LlamaForCausalLM(config(size)),
        sevens,
        peft=partial(add_lora, rank=RANK) if weights == "lora" else None,
        group_size=GROUP,
        objective=Objective(kl_coefficient=BETA, kl_by_ratio=True),
        update=Update(size.epochs, micro_batch_size=rows),
    )
    run_method(turns, job, method, words(size.vocabulary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=(TRL, OURS))
    device_option(parser)
    parser.add_argument("--weights", choices=("whole", "lora"), default="whole")
    parser.add_argument("--rows", type=int, help="that go through a net at once")
    options = options_of(parser, SIZES)
    job = Job(options.side, options.updates, SIZES[options.setting], options.device, options.precision)
    import_all()
    with contextlib.suppress(ImportError):
        from trl import GRPOTrainer  # noqa: F401
    side = work_trl if job.side == TRL else work_alignlab
    side(Turns(job.device), job, options.weights, options.rows or ROWS[options.setting])


if __name__ == "__main__":
    main()
