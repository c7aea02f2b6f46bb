"""What was seen, by sitting: images that one user sends within a while of each other are one observation.

A hundred images of one slide are not a hundred independent ones; taken for such, every new slide would look
like drift. A sitting ends when nothing has come for `PAUSE_SECONDS`, and after `LONGEST_SECONDS` anyway; its
features are the medians over its images.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

PAUSE_SECONDS = 1800.0
LONGEST_SECONDS = 4 * 3600.0
Role = Literal["waiting", "reference", "shifted"]
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE images (
    run_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    at REAL NOT NULL,
    features TEXT NOT NULL
);
CREATE INDEX images_by_sitting ON images (run_id, owner, at);
CREATE TABLE sittings (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    began REAL NOT NULL,
    images INTEGER NOT NULL,
    features TEXT NOT NULL,
    role TEXT NOT NULL
);
CREATE INDEX sittings_by_role ON sittings (run_id, role, id);
CREATE TABLE signals (task TEXT PRIMARY KEY, at REAL NOT NULL);
"""

Features = Mapping[str, float]


class Sittings:
    """A small database; used from one thread. Versions are named by their run."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def add(self, run_id: str, owner: str, features: Features, at: float) -> None:
        """An image that was restored at a moment (seconds since 1970), not before those added already."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._end_sittings(at)
            self._connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?)", (run_id, owner, at, json.dumps(dict(features)))
            )

    def of_role(self, run_id: str, role: Role, newest: int = -1) -> list[tuple[int, Features]]:
        """Ids and features of a version's sittings that have ended, the oldest first; all, or the newest."""
        query = (
            "SELECT id, features FROM (SELECT id, features FROM sittings WHERE run_id = ? AND role = ? "
            "ORDER BY id DESC LIMIT ?) ORDER BY id"
        )
        rows = self._connection.execute(query, (run_id, role, newest))
        return [(id, json.loads(features)) for id, features in rows]

    def become(self, ids: Iterable[int], role: Role) -> None:
        """Give sittings another role."""
        self._connection.executemany("UPDATE sittings SET role = ? WHERE id = ?", [(role, id) for id in ids])

    def forget(self, run_id: str, role: Role, kept: int) -> None:
        """All of a role but the newest."""
        self._connection.execute(
            "DELETE FROM sittings WHERE run_id = ?1 AND role = ?2 AND id NOT IN "
            "(SELECT id FROM sittings WHERE run_id = ?1 AND role = ?2 ORDER BY id DESC LIMIT ?3)",
            (run_id, role, kept),
        )

    def last_signal(self, task: str) -> float | None:
        """When a task's last signal was given, in seconds since 1970."""
        row = self._connection.execute("SELECT at FROM signals WHERE task = ?", (task,)).fetchone()
        return None if row is None else float(row[0])

    def signalled(self, task: str, at: float) -> None:
        """A signal was given."""
        self._connection.execute("INSERT OR REPLACE INTO signals VALUES (?, ?)", (task, at))

    def close(self) -> None:
        """Nothing is written after this."""
        self._connection.close()

    def _end_sittings(self, now: float) -> None:
        """Those in which nothing has come for a while, each into one row."""
        ended = self._connection.execute(
            "SELECT run_id, owner, min(at) FROM images GROUP BY run_id, owner "
            "HAVING max(at) <= ? OR min(at) <= ? ORDER BY min(at)",
            (now - PAUSE_SECONDS, now - LONGEST_SECONDS),
        ).fetchall()
        for run_id, owner, began in ended:
            rows = self._connection.execute(
                "DELETE FROM images WHERE run_id = ? AND owner = ? RETURNING features", (run_id, owner)
            ).fetchall()
            self._connection.execute(
                "INSERT INTO sittings (run_id, began, images, features, role) VALUES (?, ?, ?, ?, 'waiting')",
                (run_id, began, len(rows), json.dumps(_medians([json.loads(row[0]) for row in rows]))),
            )


def _medians(images: Sequence[Features]) -> Features:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for features in images:
        for name, value in features.items():
            values[name].append(value)
    return {name: float(np.median(found)) for name, found in values.items()}
