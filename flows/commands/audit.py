"""The commands `cvdm audit log|verify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.console import Answer, command
from flows.settings import Settings

audit = typer.Typer(help="Every decision about who serves.", no_args_is_help=True)


@command(audit, "audit")
def log(
    task: Annotated[str | None, typer.Option("--task", help="One task; all when left out.")] = None,
) -> Answer:
    """List the decisions, the oldest first."""
    from flows.audit import AuditLog, audit_table

    entries = AuditLog(Settings.read().audit_file).entries(task)
    return Answer({"entries": [asdict(entry) for entry in entries]}, audit_table(entries))


@command(audit, "audit")
def verify(
    head: Annotated[
        str | None, typer.Option("--head", help="A head that was noted earlier: it must still be there.")
    ] = None,
) -> Answer:
    """Prove that the log is as it was written; ends with 1 where it is not."""
    settings = Settings.prepared()
    from flows.promote import audit_references
    from flows.registry import Registry

    registry = Registry.open(settings)
    found = registry.audit.verify(audit_references(registry), head)
    return Answer(found.as_json(), found.summary(), 0 if found.sound else 1)
