"""The commands `cvdm data log|diff|checkout`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.console import Answer, command
from flows.settings import Settings

data = typer.Typer(help="Versions of the data.", no_args_is_help=True)

NoCommit = Annotated[bool, typer.Option("--no-commit", help="Leave git alone: no commit, no tag.")]


@command(data, "data")
def log() -> Answer:
    """List the versions of the data, the newest first."""
    from flows.history import history_table, versions

    found = versions(Settings.prepared())
    return Answer({"versions": [asdict(one) for one in found]}, history_table(found))


@command(data, "data")
def diff(
    before: Annotated[str | None, typer.Argument(help="A version; the one before, when left out.")] = None,
    after: Annotated[str | None, typer.Argument(help="A version; the present one, when left out.")] = None,
) -> Answer:
    """Show which pairs two versions of the data do not share."""
    from flows.history import difference

    found = difference(Settings.prepared(), before, after)
    return Answer(found.as_json(), found.summary())


@command(data, "data")
def checkout(
    version: Annotated[str, typer.Argument(help="(The beginning of) a version, a tag or a commit.")],
    no_commit: NoCommit = False,
) -> Answer:
    """Bring a version of the data back."""
    from flows.checkout import checkout as bring_back

    found, commit = bring_back(Settings.prepared(), version, commit=not no_commit)
    text = f"The data are at version {found.version}" + (f", committed as {commit[:12]}." if commit else ".")
    return Answer({**asdict(found), "present": True, "committed_as": commit}, text)
