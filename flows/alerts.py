"""Messages to people when something was decided or went wrong: by mail, in a chat, to a file.

Off until `CVDM_ALERTS` names addresses as Apprise knows them. A message that cannot be delivered fails
nothing: the decision stands, and standard error tells which address failed, by its place and kind, never by
its content, which holds keys.
Beside Apprise's own addresses, `file:///absolute/path.jsonl` appends a line to a file.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from cvdm.errors import ConfigError
from flows.console import say
from flows.settings import Settings

if TYPE_CHECKING:
    from apprise import Apprise

Event = Literal["promoted", "rejected", "undecided", "failed", "drift", "rolled back"]
KINDS: dict[Event, Literal["success", "info", "warning", "failure"]] = {
    "promoted": "success",
    "rejected": "warning",
    "undecided": "info",
    "failed": "failure",
    "drift": "warning",
    "rolled back": "warning",
}
"""How Apprise marks each event, by colour or sign."""
LONGEST = 1500
"""Characters of a message; some channels cut at 2000."""


@dataclass(frozen=True)
class Alert:
    """One message."""

    event: Event
    task: str
    text: str

    @property
    def title(self) -> str:
        """One line."""
        return f"CVDM {self.task}: {self.event}"


def send(settings: Settings, alert: Alert) -> bool:
    """Deliver to every address of the settings; whether all took it. Never raises for one that did not."""
    delivered = True
    for place, address in enumerate(_addresses(settings), start=1):
        if not _delivered(address, alert):
            delivered = False
            say(f"The alert '{alert.title}' could not be delivered to address {place} ({_kind(address)}).")
    return delivered


def require_valid(settings: Settings) -> None:
    """Raise ConfigError for an address that is none, before there is anything to tell."""
    for place, address in enumerate(_addresses(settings), start=1):
        if _file(address) is None and _messenger(address) is None:
            raise ConfigError(
                "Apprise addresses in CVDM_ALERTS, such as mailto://..., slack://... or file:///path.jsonl",
                f"something else at place {place} ({_kind(address)})",
                "Correct it: a file's has three slashes; https://github.com/caronc/apprise lists all kinds.",
            )


@contextmanager
def telling_of_failure(settings: Settings, task: str) -> Iterator[None]:
    """Send an alert when the block fails; an interruption by a person is no failure."""
    try:
        yield
    except Exception as error:
        send(settings, Alert("failed", task, f"{type(error).__name__}: {error}"))
        raise


def _addresses(settings: Settings) -> list[str]:
    return [one for one in re.split(r"[,\s]+", settings.alerts.get_secret_value()) if one]


def _kind(address: str) -> str:
    """What comes before `://`, which holds no key."""
    return address.split("://")[0][:20] if "://" in address else "no kind"


def _delivered(address: str, alert: Alert) -> bool:
    if (path := _file(address)) is not None:
        return _append(path, alert)
    messenger = _messenger(address)
    if messenger is None:
        return False
    kind, text = KINDS[alert.event], alert.text[:LONGEST]
    try:
        return bool(messenger.notify(title=alert.title, body=text, notify_type=kind, body_format="text"))
    except Exception:  # any, of dozens of services: an alert must not end what it tells of
        return False


def _messenger(address: str) -> Apprise | None:
    """Who delivers to one address; None for what is no address."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages name addresses
    messenger = apprise.Apprise()
    return messenger if messenger.add(address) else None


def _file(address: str) -> Path | None:
    """The path of `file:///path`; None for another kind of address."""
    return Path(unquote(address.removeprefix("file://"))) if address.startswith("file:///") else None


def _append(path: Path, alert: Alert) -> bool:
    """Append a message to a file, as a line of JSON."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(alert)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError:
        return False
    return True
