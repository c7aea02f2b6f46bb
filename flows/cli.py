"""The command `cvdm`: the one composition root. Each command is short; what it does lies in its own module.

Heavy packages are imported inside the commands that need them, so that `cvdm --help` answers at once.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from flows.alerts import Alert, send
from flows.commands.audit import audit
from flows.commands.data import NoCommit, data
from flows.commands.housekeeping import housekeeping
from flows.commands.keys import keys
from flows.commands.schedule import schedule
from flows.console import Answer, command, say, stated, stop_on_sigterm
from flows.settings import Settings

app = typer.Typer(
    name="cvdm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def tell_version(asked: bool) -> None:
    """Print name and version, and nothing else."""
    if asked:
        typer.echo(f"cvdm {installed_version('cvdm-platform')}")
        raise typer.Exit


@app.callback()
def common(
    told: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=tell_version, is_eager=True)
    ] = False,
) -> None:
    """Model registry and retraining platform for microscopy image restoration with uncertainty."""


app.add_typer(data, name="data")
app.add_typer(audit, name="audit")
app.add_typer(housekeeping, name="housekeeping")
app.add_typer(schedule, name="schedule")
app.add_typer(keys, name="keys")

Task = Annotated[str, typer.Option("--task", help="Name of the task, a folder of the data directory.")]
Which = Annotated[str, typer.Option("--version", help="A version number, or an alias such as champion.")]
Reason = Annotated[
    str, typer.Option("--reason", help="Why; written on the version and in the audit log.", callback=stated)
]


NewCard = Annotated[Path | None, typer.Option("--card", help="Card of a new task.")]
NamePattern = Annotated[
    str | None,
    typer.Option(
        "--name-pattern", help="For a new task without a card: regular expression with (?P<field>...)."
    ),
]


@command(app)
def ingest(
    source: Annotated[Path, typer.Argument(help="Folder with low/ and high/.")],
    task: Task,
    session: Annotated[
        str | None, typer.Option("--session", help="Name of the acquisition session, e.g. its date.")
    ] = None,
    card: NewCard = None,
    name_pattern: NamePattern = None,
    no_commit: NoCommit = False,
    no_push: Annotated[bool, typer.Option("--no-push", help="Leave DVC's remote alone.")] = False,
) -> Answer:
    """Add the good pairs of a batch to a task, version and share them; set the others aside with reasons."""
    settings = Settings.prepared()
    from flows.ingest import ingest as take_in
    from flows.ingest_result import IngestOptions
    from flows.triggers.drift_watch import watch_for_drift
    from flows.validate import keep

    options = IngestOptions(session, card, name_pattern, commit=not no_commit, push=not no_push)
    result = take_in(source, task, settings, options)
    refused = frozenset(one.name for one in result.rejected if one.name)
    page = keep(
        result.everything,
        settings,
        f"{task}-ingest",
        files=result.files,
        batch=refused.union(result.added),
        also_in=result.quarantined.folder if result.quarantined else None,
    )
    drift = watch_for_drift(settings, result.everything, refused) if result.added else None
    text = f"{result.summary()}\nReport: {page}" + (f"\n{drift.summary()}" if drift else "")
    document = {**result.as_json(), "page": str(page), "drift": drift.as_json() if drift else None}
    return Answer(document, text, 0 if result.accepted else 1)


@command(app)
def validate(
    path: Annotated[
        Path | None, typer.Argument(help="A dataset, a batch for --task, or one image; else give --task.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="A task of the data directory, or a new one.")
    ] = None,
    card: NewCard = None,
    name_pattern: NamePattern = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="Compare new fields with the champion's data, too.")
    ] = False,
) -> Answer:
    """Check image pairs before anything is trained on them; writes a page to look at."""
    settings = Settings.prepared()
    from flows.validate import examine

    if path is None and task is None:
        raise typer.BadParameter("Give a folder, an image or --task.")
    if (card or name_pattern) and (path is None or task is None):
        raise typer.BadParameter("--card and --name-pattern are for a folder that is for a new --task.")
    if drift and (task is None or path is not None):
        raise typer.BadParameter("--drift needs --task, and compares what that task holds.")
    result = examine(settings, path, task, new_card=card, name_pattern=name_pattern, drift=drift)
    return Answer(result.document, result.text, 0 if result.passed else 1)


@command(app)
def retrain(
    task: Task,
    preset: Annotated[str, typer.Option("--preset", help="A preset of params.yaml.")] = "cpu",
    init: Annotated[
        str, typer.Option("--init", help="Where weights start: auto, scratch, base or champion.")
    ] = "auto",
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Training seed.")] = None,
    data_version: Annotated[
        str | None, typer.Option("--data-version", help="Refuse any other data than this version.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew even when nothing has changed.")] = False,
) -> Answer:
    """Validate, train, evaluate, judge and, if it is better, promote a model; run again to continue."""
    from flows.launch import launch

    settings = Settings.read()
    result = launch(settings, task, preset, init=init, seed=seed, data_version=data_version, force=force)
    lines = [
        f"{task} version {result.version}: {result.verdict}",
        f"  weights from {result.init}: {result.init_reason}",
        *(f"  {reason}" for reason in result.reasons),
    ]
    if result.repeated:
        lines.append("  (nothing has changed since this result; --force trains anew)")
    return Answer(result.as_json(), "\n".join(lines))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def train(context: typer.Context) -> None:
    """Train outside the registry: the options of `python -m cvdm train`, --resume among them."""
    from cvdm.__main__ import main as science

    raise typer.Exit(science(["train", *context.args]))


@command(app)
def models(
    task: Annotated[str | None, typer.Option("--task", help="One task; all when left out.")] = None,
) -> Answer:
    """List the versions of models with their aliases, verdicts and test scores."""
    settings = Settings.prepared()
    from flows.catalogue import catalogue, catalogue_table, known_task
    from flows.registry import Registry

    registry = Registry.open(settings)
    tasks = (known_task(task, registry, settings),) if task else registry.models.tasks()
    entries = catalogue(registry, tasks, settings)
    return Answer({"versions": entries}, catalogue_table(entries))


@command(app)
def promote(task: Task, version: Annotated[int, typer.Option("--version")], reason: Reason) -> Answer:
    """Let a version serve, against or without the gate's word; it is verified first."""
    settings = Settings.prepared()
    from flows.deployment import deployment_of
    from flows.promote import promote as move
    from flows.registry import Registry

    who, registry = getpass.getuser(), Registry.open(settings)
    deployment = deployment_of(settings, registry)
    standing = move(registry, task, version, reasons=[reason], by=who, deployment=deployment)
    send(settings, Alert("promoted", task, f"version {standing.champion}, by {who}: {reason}"))
    return Answer(standing.as_json(), standing.summary())


@command(app)
def rollback(
    task: Task,
    reason: Reason,
    to: Annotated[int | None, typer.Option("--to", help="A version; the previous one when left out.")] = None,
) -> Answer:
    """Let the previous version serve again."""
    settings = Settings.prepared()
    from flows.promote import rollback as move
    from flows.registry import Registry

    who = getpass.getuser()
    standing = move(Registry.open(settings), task, to, reason=reason, by=who)
    send(settings, Alert("rolled back", task, f"to version {standing.champion}, by {who}: {reason}"))
    return Answer(standing.as_json(), standing.summary())


@command(app)
def export(
    directory: Annotated[Path, typer.Argument(help="New or empty folder.")],
    task: Task,
    version: Which = "champion",
) -> Answer:
    """Write the self-contained checkpoint directory of a registered version."""
    settings = Settings.prepared()
    from flows.catalogue import export as write
    from flows.registry import Registry

    found = write(Registry.open(settings), task, version, directory)
    document = {"task": task, "version": found.number, "run_id": found.run_id, "directory": str(directory)}
    return Answer(document, f"Wrote {task} version {found.number} to {directory}")


@command(app)
def serve() -> None:
    """Run the reconstruction service alone until Ctrl-C."""
    from flows.processes import serve as run

    _until_interrupted(run, Settings.prepared())


@command(app)
def up() -> None:
    """Run tracking server, orchestrator with its schedule, and service until Ctrl-C."""
    from flows.processes import up as run

    _until_interrupted(run, Settings.prepared())


@command(app)
def reconstruct(
    images: Annotated[list[str], typer.Argument(help="Images and stacks, folders of them, patterns.")],
    output: Annotated[str, typer.Option("--output", "-o", help="OME-TIFF to write; a folder for several.")],
    task: Annotated[str | None, typer.Option("--task", help="Use a registered model of this task.")] = None,
    version: Which = "champion",
    checkpoint: Annotated[Path | None, typer.Option(help="Use this checkpoint directory.")] = None,
    server: Annotated[str | None, typer.Option(help="Ask the service at this address.")] = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Posterior draws.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoiser evaluations per draw.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the draws.")] = None,
    maps: Annotated[str | None, typer.Option(help="Also write these: schedule_map, residual.")] = None,
    channels: Annotated[str | None, typer.Option(help="Of a stack restore these, names or numbers.")] = None,
) -> Answer:
    """Restore images and write reconstruction, uncertainty and calibrated bounds of each.

    Interrupted, the same command goes on where it ended.
    """
    from flows.batch import errands_for
    from flows.restore import Draws, restore_by_checkpoint, restore_by_service, restore_by_version

    if (checkpoint is None) == (task is None and server is None):
        raise typer.BadParameter("Give one of --task, --checkpoint and --server (which may have a --task).")
    errands, draws = errands_for(images, output), Draws(samples, steps, seed, maps, channels)
    if checkpoint is not None:
        outcome = restore_by_checkpoint(errands, checkpoint, draws, settings=Settings.prepared())
    elif server is not None:  # from anywhere: the checkout is the server's
        outcome = restore_by_service(errands, server, task, version, draws)
    else:
        outcome = restore_by_version(errands, str(task), version, draws, Settings.prepared())
    return Answer(outcome.as_json(), outcome.as_text(), 1 if outcome.failed else 0)


@command(app)
def demo() -> Answer:
    """From the data in this repository to a served reconstruction; writes demo/ and stops what it started."""
    from flows.demo import require_claims, run_demo, summary

    result = run_demo(Settings.read(), say)
    say(summary(result))
    require_claims(result)
    return Answer(result.as_json(), "")


@command(app)
def doctor() -> Answer:
    """Look whether everything is here that the platform needs, and say what to do where it is not."""
    from flows.doctor import as_document, as_table, examine, is_healthy

    findings = examine(Settings.read())
    return Answer(as_document(findings), as_table(findings), 0 if is_healthy(findings) else 1)


def main() -> None:
    """Entry point of the installed command."""
    stop_on_sigterm()
    app()


def _until_interrupted(run: Callable[[Settings, Callable[[str], None]], None], settings: Settings) -> None:
    """Run servers in the foreground; Ctrl-C is how a person ends them, not a failure."""
    try:
        run(settings, lambda table: print(f"{table}\nCtrl-C stops everything.", flush=True))
    except KeyboardInterrupt:
        say("Stopped.")


if __name__ == "__main__":
    main()
