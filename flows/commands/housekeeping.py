"""The commands `cvdm housekeeping reap|retain|backup|restore|readdress|restore-drill`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cvdm.errors import ConfigError
from flows.console import Answer, command
from flows.progress import progress_bar
from flows.settings import Settings

housekeeping = typer.Typer(help="Clear away, keep, back up, restore.", no_args_is_help=True)

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without this it is only told.")]
Backup = Annotated[Path, typer.Argument(help="One backup: the folder with its manifest.json.")]


@command(housekeeping, "housekeeping")
def reap(apply: Apply = False) -> Answer:
    """Close runs that nobody continues and remove what killed processes left."""
    settings = Settings.prepared()
    from flows.housekeeping.flow import reap as look

    plan = look(settings, apply=apply)
    return Answer(plan.as_json(applied=apply), plan.summary(applied=apply))


@command(housekeeping, "housekeeping")
def retain(apply: Apply = False) -> Answer:
    """Remove training states and versions that are older than policy keeps and that nothing needs."""
    settings = Settings.prepared()
    from flows.housekeeping.flow import retain as look

    plan = look(settings, apply=apply)
    return Answer(plan.as_json(applied=apply), plan.summary(applied=apply))


@command(housekeeping, "housekeeping")
def backup(
    destination: Annotated[
        Path | None, typer.Argument(help="Folder of backups; CVDM_BACKUP_DIR when left out.")
    ] = None,
) -> Answer:
    """Copy what cannot be computed again, with checksums, and say what is left out."""
    settings = Settings.prepared()
    from flows.housekeeping.backup import back_up
    from flows.housekeeping.plan import megabytes
    from flows.housekeeping.snapshot import LEFT_OUT

    if destination is None and not settings.backup_dir:
        raise ConfigError("a folder for backups", "none", "Name one, or set CVDM_BACKUP_DIR.")
    folder = (destination or Path(settings.backup_dir)).resolve()
    with progress_bar("backup", "step") as progress:
        target, manifest = back_up(settings, folder, progress)
    document = {
        "backup": str(target),
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "left_out": list(LEFT_OUT),
    }
    told = [f"Wrote {target}: {len(manifest.files)} files, {megabytes(manifest.bytes)}"]
    told += ["Not in it:", *(f"  {what}" for what in LEFT_OUT)]
    told.append(f"`cvdm housekeeping restore-drill {target}` proves it.")
    return Answer(document, "\n".join(told))


@command(housekeeping, "housekeeping")
def restore(backup: Backup, to: Annotated[Path, typer.Option("--to", help="New or empty folder.")]) -> Answer:
    """Write a backup to a new place, with addresses that hold there."""
    Settings.prepared()
    from flows.housekeeping.restore import restore as write

    with progress_bar("verify", "file") as progress:
        manifest = write(backup, to.resolve(), progress)
    document = {**asdict(manifest), "files": len(manifest.files), "home": str(to)}
    told = [f"Restored {len(manifest.files)} files of {manifest.created} to {to}"]
    told.append(
        f"Look at it: CVDM_HOME={to.resolve()} cvdm models. Into a clone: docs/operations.md, A new machine."
    )
    return Answer(document, "\n".join(told))


@command(housekeeping, "housekeeping")
def readdress(
    before: Annotated[Path, typer.Argument(help="The folder that addresses begin with.")],
) -> Answer:
    """After a move of the artifacts: let the registry find them below CVDM_ARTIFACT_ROOT."""
    settings = Settings.prepared()
    from flows.housekeeping.addresses import readdress as change

    changed = change(settings, before)
    return Answer({"changed": changed}, f"{changed} addresses begin with {settings.artifact_root} now.")


@command(housekeeping, "housekeeping")
def restore_drill(backup: Backup) -> Answer:
    """Prove a backup: restore it for a moment, replay every champion, read log, keys, cards, quarantine."""
    Settings.prepared()
    from flows.housekeeping.drill import drill

    with progress_bar("verify", "file") as progress:
        found = drill(backup.resolve(), progress)
    return Answer(found.as_json(), found.summary(), 0 if found.passed else 1)
