"""`python -m cvdm`: the science from the command line, with no tracker, orchestrator or server installed.

`dvc.yaml` calls prepare, train and evaluate. Progress goes to standard error, results to standard output;
a user's mistake is one paragraph and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvdm.allocation import keep_freed_memory
from cvdm.card import SPLITS
from cvdm.config import SamplingConfig
from cvdm.errors import ConfigError, CvdmError
from cvdm.progress import bar, note

Command = Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _require_device(getattr(options, "device", "cpu"))
        options.run(options)
    except CvdmError as error:
        if options.traceback:
            raise
        print(f"cvdm {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        remedy = " The same command goes on where it ended." * (options.command == "train")
        print(f"cvdm {options.command}: interrupted.{remedy}", file=sys.stderr)
        return 130
    except Exception as error:  # any: a bug is one sentence too, unless somebody wants to see it
        if options.traceback:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        remedy = "Run it again with --traceback and report what it shows."
        print(f"cvdm {options.command}: Unexpected failure: {reason}. {remedy}", file=sys.stderr)
        return 1
    return 0


def simulate(options: argparse.Namespace) -> None:
    """Make the inputs of a simulated dataset from its targets and the card's forward model."""
    from cvdm.simulation import simulate_dataset

    with _bar("simulate", "image") as progress:
        simulate_dataset(options.data, progress)


def prepare(options: argparse.Namespace) -> None:
    """Check a dataset, split it by field of view and write the manifest that training depends on."""
    from cvdm.dataset import load_dataset
    from cvdm.manifest import write_manifest

    manifest = write_manifest(load_dataset(options.data), options.output)
    counts = {split: len(fields) for split, fields in manifest["fields"].items()}
    print(f"{manifest['task']}: {manifest['pairs']} pairs, fields {counts}, digest {manifest['digest'][:12]}")


def train(options: argparse.Namespace) -> None:
    """Train, or go on with an interrupted training, and write the calibrated checkpoint directory.

    Started by torchrun, on as many GPUs as there are processes.
    """
    from cvdm.build import build_checkpoint, golden_input
    from cvdm.checkpoint import save_checkpoint
    from cvdm.dataset import load_dataset
    from cvdm.fine_tuning import read_base
    from cvdm.params import load_recipe
    from cvdm.provenance import git_commit
    from cvdm.team import join
    from cvdm.training import train as training_steps
    from cvdm.training import training_fingerprint

    keep_freed_memory()
    recipe = load_recipe(options.params, options.preset)
    dataset = load_dataset(options.data)
    recipe = recipe.seeing(dataset.card.sight)
    if options.seed is not None:
        recipe = recipe.with_seed(options.seed)
    base = None if options.base is None else read_base(options.base, recipe.model)
    if base is not None:
        recipe = recipe.for_fine_tuning()
    # Another recipe or other data begin anew beside the old state, the same ones continue.
    scratch = options.output.with_name(options.output.name + ".training")
    state = options.state or scratch / f"state-{training_fingerprint(dataset, recipe, base)[:12]}.pt"
    team = join(options.device)
    if not team.leads:
        for _ in training_steps(dataset, recipe, state_path=state, base=base, team=team):
            pass
        return
    if options.output.exists():
        raise ConfigError(
            f"nothing yet at {options.output}", "a file or folder", "Choose another -o or remove it."
        )
    if options.resume and not state.is_file():
        raise ConfigError(
            "the state of an earlier training of equal data, recipe and seed",
            f"none at {state}",
            "Leave --resume out to begin anew, or correct the options.",
        )
    if base is not None:
        steps, rate = recipe.training.steps, recipe.training.learning_rate
        note(f"fine-tuning from {options.base}: {steps} steps at a rate of {rate:g}")
    with _bar("train", "step") as progress:
        for step in training_steps(dataset, recipe, state_path=state, base=base, team=team):
            progress(step.step, step.total)
            for told in step.news:
                note(f"step {step.step}: {told}")
    with _bar("calibrate", "image") as progress:
        checkpoint = build_checkpoint(
            dataset,
            recipe,
            state,
            git_commit=git_commit(Path.cwd()),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            device=team.device,
            base=base,
            progress=progress,
        )
    save_checkpoint(options.output, checkpoint, golden_input(dataset))
    if options.state is None:
        shutil.rmtree(scratch)
    print(f"Wrote {options.output}")


def evaluate(options: argparse.Namespace) -> None:
    """Measure a checkpoint and its baselines on one split, field by field."""
    from cvdm.checkpoint import load_checkpoint
    from cvdm.dataset import load_dataset
    from cvdm.evaluation import summary_table
    from cvdm.measuring import evaluate as measure
    from cvdm.storage import replacing

    checkpoint = load_checkpoint(options.checkpoint, device=options.device)
    sampling = _sampling(checkpoint.recipe.sampling, options)
    with _bar("evaluate", "image") as progress:
        result = measure(
            checkpoint, load_dataset(options.data), options.split, sampling=sampling, progress=progress
        )
    text = json.dumps(result.as_json(), indent=2)
    if options.output:
        with replacing(options.output) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else summary_table(result))


def reconstruct(options: argparse.Namespace) -> None:
    """Restore one image and write reconstruction, uncertainty and calibrated bounds as OME-TIFF."""
    from cvdm.checkpoint import load_checkpoint, verify_golden
    from cvdm.restoration import restore_file

    checkpoint = load_checkpoint(options.checkpoint, device=options.device)
    verify_golden(options.checkpoint, checkpoint)
    sampling = _sampling(checkpoint.recipe.sampling, options)
    annotations = checkpoint.annotations(sampling)
    with _bar("reconstruct", "tile") as progress:
        doubts = restore_file(
            checkpoint, options.input, options.output, sampling, annotations=annotations, progress=progress
        )
    for doubt in doubts:
        print(f"Doubtful: {doubt.as_error()}", file=sys.stderr)
    print(f"Wrote {options.output}")


def _sampling(default: SamplingConfig, options: argparse.Namespace) -> SamplingConfig:
    chosen = {name: getattr(options, name) for name in ("samples", "steps", "seed", "tile")}
    return replace(default, **{name: value for name, value in chosen.items() if value is not None})


def _require_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("a CUDA device", "none that PyTorch can use", "Use --device cpu.")


class _bar:
    """A progress bar with ETA on standard error, as a callback (done, total)."""

    def __init__(self, description: str, unit: str) -> None:
        self._bar = bar(description, unit)

    def __enter__(self) -> _bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cvdm", description="CVDM from the command line.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run: Command, *options: Callable[[argparse.ArgumentParser], None]) -> Callable[..., Any]:
        sub = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        sub.set_defaults(run=run)
        sub.add_argument("--traceback", action="store_true", help="show where an error was raised")
        for add in options:
            add(sub)
        return sub.add_argument

    command(simulate, _add_data)
    add = command(prepare, _add_data)
    add("-o", "--output", type=Path, required=True, help="manifest to write (JSON)")
    add = command(train, _add_data, _add_device)
    add("--params", type=Path, default=Path("params.yaml"))
    add("--preset", required=True, help="a preset of params.yaml")
    add("--seed", type=int, help="training seed (default: the preset's)")
    add("--base", type=Path, metavar="DIR", help="fine-tune from this checkpoint")
    add("--resume", action="store_true", help="only go on with an earlier training, never begin one")
    add("--state", type=Path, help="file of the resumable training state (default: beside the output)")
    add("-o", "--output", type=Path, required=True, help="checkpoint directory to write")
    add = command(evaluate, _add_data, _add_device, _add_sampling)
    add("--checkpoint", type=Path, required=True, metavar="DIR")
    add("--split", choices=SPLITS, default="test")
    add("--json", action="store_true", help="print one JSON document")
    add("-o", "--output", type=Path, help="also write the JSON document here")
    add = command(reconstruct, _add_device, _add_sampling)
    add(
        "input", type=Path, metavar="INPUT", help="an image or a stack, with the channels that the model sees"
    )
    add("--checkpoint", type=Path, required=True, metavar="DIR")
    add("-o", "--output", type=Path, required=True, metavar="OUTPUT", help="OME-TIFF to write")
    return parser


def _add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data", type=Path, required=True, metavar="data/TASK", help="dataset folder with a card.yaml"
    )


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def _add_sampling(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--samples", type=int, metavar="K", help="posterior draws (default: the checkpoint's)")
    add("--steps", type=int, metavar="N", help="denoiser evaluations per draw")
    add("--seed", type=int, metavar="S", help="seed of the draws")
    add("--tile", type=int, metavar="T", help="edge of a tile in pixels; changes memory, not results")


if __name__ == "__main__":
    sys.exit(main())
