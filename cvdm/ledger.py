"""What ingests found out about a dataset: the session of each pair, and fields that show one scene.

    ROOT/ledger.json    {"sessions": {PAIR: SESSION}, "scenes": [[FIELD, ...], ...]}

The card is a person's and is never rewritten; this file is a machine's, and nobody needs to edit it. A
dataset without one is complete: sessions then come from names, scenes from the card's `overlapping`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvdm.errors import DatasetError
from cvdm.storage import replacing

LEDGER_NAME = "ledger.json"
KEYS = ("scenes", "sessions")


@dataclass(frozen=True)
class Ledger:
    """The file's content.

    sessions: by name of the pair, for pairs that were ingested with a session.
    scenes:   groups of two or more fields; the first of a group leads the others to its split.
    """

    sessions: Mapping[str, str] = field(default_factory=dict)
    scenes: tuple[tuple[str, ...], ...] = ()


def load_ledger(root: Path) -> Ledger:
    """The ledger of a dataset folder, empty where there is none. Raises DatasetError for a damaged one."""
    path = root / LEDGER_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or sorted(content) != list(KEYS):
        raise _damaged(path, "other keys than scenes and sessions")
    sessions, scenes = content["sessions"], content["scenes"]
    if not isinstance(sessions, dict) or not all(isinstance(value, str) for value in sessions.values()):
        raise _damaged(path, "sessions that are no names")
    if not isinstance(scenes, list) or not all(_is_scene(scene) for scene in scenes):
        raise _damaged(path, "scenes that are no groups of fields")
    return Ledger(sessions, tuple(tuple(scene) for scene in scenes))


def write_ledger(root: Path, ledger: Ledger) -> None:
    """Write the ledger, complete or not at all; an empty one leaves no file behind. Raises StorageError."""
    path = root / LEDGER_NAME
    content = {"scenes": [list(scene) for scene in ledger.scenes], "sessions": dict(ledger.sessions)}
    if any(content.values()):
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def joined(groups: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups that share a member as one, members and groups in the order in which they first come."""
    merged: list[list[str]] = []
    for group in groups:
        touching = [other for other in merged if not set(other).isdisjoint(group)]
        together = list(dict.fromkeys([name for other in (*touching, group) for name in other]))
        if touching:
            merged[merged.index(touching[0])] = together
            merged = [other for other in merged if all(other is not gone for gone in touching)]
        else:
            merged.append(together)
    return tuple(tuple(group) for group in merged)


def _is_scene(scene: object) -> bool:
    return isinstance(scene, list) and len(scene) > 1 and all(isinstance(name, str) for name in scene)


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"a ledger as an ingest writes it at {path}",
        " ".join(reason.split()),
        "Bring back the last good version with `cvdm data checkout`.",
    )
