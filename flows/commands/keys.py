"""The commands `cvdm keys create|list|revoke|calls`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flows.console import Answer, command
from flows.settings import Settings
from service.keys import Keys, Quota, Role

keys = typer.Typer(
    help="Who may ask the service; until the first key is made, its own machine only.", no_args_is_help=True
)

OPEN_AGAIN = (
    "Make one with `cvdm keys create NAME`; to do without keys, remove {} while the service is stopped."
)
Name = Annotated[str, typer.Argument(help="Of the person or program that it is for.")]


@command(keys, "keys")
def create(
    name: Name,
    operator: Annotated[bool, typer.Option("--operator", help="Sees all jobs and the metrics.")] = False,
    requests_per_day: Annotated[int | None, typer.Option(min=1, help="Images a day.")] = None,
    pixels_per_day: Annotated[int | None, typer.Option(min=1, help="Pixels a day.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images of jobs that wait or run.")] = None,
) -> Answer:
    """Make a key and print it, once: nothing can show it again."""
    role: Role = "operator" if operator else "user"
    secret = _keys().create(name, role, Quota(requests_per_day, pixels_per_day, images))
    text = f"{secret}\nSend it as `Authorization: Bearer KEY`, or set CVDM_KEY; nothing shows it again."
    return Answer({"name": name, "role": role, "key": secret}, text)


@command(keys, "keys")
def list() -> Answer:
    """List all keys with their quotas; none can be read."""
    found = [key.as_json() for key in _keys().listed()]
    lines = [
        f"{key['name']:24} {key['role']:9} {_quotas(key):40} "
        + ("revoked " + key["revoked"] if key["revoked"] else "since " + key["created"])
        for key in found
    ]
    nobody = "No key was ever made: the service answers its own machine only."
    return Answer({"keys": found}, "\n".join(lines) or nobody)


def _quotas(key: Mapping[str, Any]) -> str:
    """What a key may ask for, in words."""
    words = {"requests_per_day": "images/day", "pixels_per_day": "pixels/day", "images": "at a time"}
    told = [f"{key[name]} {word}" for name, word in words.items() if key[name] is not None]
    return ", ".join(told) or "no quota"


@command(keys, "keys")
def revoke(name: Name) -> Answer:
    """From now on a key opens nothing; its name stays taken. The service goes on asking for keys."""
    keys = _keys()
    key = keys.revoke(name)
    left = any(other.revoked is None for other in keys.listed())
    text = f"Revoked {name}." + (
        "" if left else f" No key is left: nobody is let in. {OPEN_AGAIN.format(keys.path)}"
    )
    return Answer(key.as_json(), text)


@command(keys, "keys")
def calls(most: Annotated[int, typer.Option(min=1, help="How many.")] = 50) -> Answer:
    """List the newest calls: who, what, with which version, of which input."""
    found = _keys().calls(most=most)
    lines = [
        f"{call['moment']} {call['name']:24} {call['status']} {call['method']} {call['path']}"
        + (f" version {call['version']}" if call["version"] else "")
        for call in found
    ]
    return Answer({"calls": found}, "\n".join(lines) or "No call.")


def _keys() -> Keys:
    return Keys(Settings.prepared().keys_file)
