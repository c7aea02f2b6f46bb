"""The table of jobs, in SQLite: what was asked for, how far it is, how it ended.

Every change is one transaction, so that whatever ends the process, the table tells a state that was. Calls
may come from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    created REAL NOT NULL,
    UNIQUE (owner, idempotency_key)
);
CREATE TABLE items (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    axes TEXT NOT NULL,
    shape TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL,
    warnings TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    error TEXT,
    began REAL,
    ended REAL,
    PRIMARY KEY (job, number)
);
CREATE TABLE paces (
    run_id TEXT PRIMARY KEY,
    seconds REAL NOT NULL,
    work REAL NOT NULL,
    measured REAL NOT NULL
);
CREATE INDEX items_by_state ON items (state);
CREATE INDEX jobs_by_owner ON jobs (owner, created);
"""
IMAGES = """
CREATE TEMP VIEW images AS SELECT items.*, owner, created AS entered,
    coalesce(json_extract(request, '$.maps'), '[]') AS maps FROM items JOIN jobs ON job = id
"""


@dataclass(frozen=True)
class Request:
    """What all images of a job have in common. The version is a number, whoever is champion later."""

    task: str
    version: int
    run_id: str
    samples: int
    steps: int
    seed: int
    maps: tuple[str, ...] = ()
    """Channels of the results beside those that all have."""
    memory_bytes: int | None = None
    """About how much the largest image takes; None of a job that an earlier release accepted."""
    disk_bytes: int | None = None
    """What all of its images take while they are restored, their results included; None likewise."""


@dataclass(frozen=True)
class NewItem:
    """An image that was uploaded and looked at."""

    name: str
    """The client's name of the file, for people."""
    sha256: str
    axes: str
    """Letters out of "TCZYX", as of `cvdm.reading.Stack`."""
    shape: tuple[int, ...]
    total: int
    """Evaluations of a tile that it takes."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """What speaks against it: expected, actual, remedy."""


@dataclass(frozen=True)
class Item:
    """One image of a job."""

    job: str
    owner: str
    number: int
    """From 0."""
    name: str
    sha256: str
    axes: str
    shape: tuple[int, ...]
    state: State
    done: int
    """Evaluations of a tile so far."""
    total: int
    warnings: tuple[Mapping[str, str], ...]
    seconds: float
    """How long it had the device, in this and earlier processes."""
    error: Mapping[str, Any] | None
    entered: float
    """When the job was; seconds since 1970, like the following."""
    began: float | None
    ended: float | None
    maps: tuple[str, ...]
    """As of its job's request."""


@dataclass(frozen=True)
class Job:
    """Images restored alike."""

    id: str
    owner: str
    request: Request
    created: float
    """Seconds since 1970."""
    items: tuple[Item, ...]

    def work(self, item: Item) -> int:
        """Of one of its images: pixels x draws x steps, to which its time is about proportional."""
        return prod(item.shape) * self.request.samples * self.request.steps

    @property
    def state(self) -> State:
        """Of all images: running from the first one's begin to the last one's end."""
        states = {item.state for item in self.items}
        if states <= set(ENDED):
            return next(state for state in ("cancelled", "failed", "done") if state in states)
        return "queued" if states == {"queued"} else "running"

    @property
    def ended(self) -> float | None:
        """When the last image ended."""
        return max(item.ended or 0.0 for item in self.items) if self.state in ENDED else None


class Table:
    """Opened once per process, which is the only one that runs jobs of it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self._writing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(IMAGES)

    def add(
        self,
        id: str,
        owner: str,
        request: Request,
        items: Sequence[NewItem],
        *,
        key: str | None,
        fingerprint: str,
    ) -> None:
        """Enter a job. Raises sqlite3.IntegrityError when its owner has one of the same key."""
        rows = [
            (
                id,
                at,
                new.name,
                new.sha256,
                new.axes,
                json.dumps(new.shape),
                new.total,
                json.dumps(new.warnings),
            )
            for at, new in enumerate(items)
        ]
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)",
                (id, owner, key, fingerprint, json.dumps(vars(request)), time.time()),
            )
            connection.executemany(
                "INSERT INTO items (job, number, name, sha256, axes, shape, total, warnings) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def known(self, owner: str, key: str) -> tuple[Job, str] | None:
        """The owner's job of an idempotency key, and the fingerprint of what was asked for."""
        rows = self._read("SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?", owner, key)
        return (self._job(rows[0]), rows[0]["fingerprint"]) if rows else None

    def get(self, id: str) -> Job | None:
        """A job by its id."""
        rows = self._read("SELECT * FROM jobs WHERE id = ?", id)
        return self._job(rows[0]) if rows else None

    def of_owner(self, owner: str | None, *, most: int) -> list[Job]:
        """The jobs of an owner, or of all for None; the newest first."""
        query = "SELECT * FROM jobs WHERE ?1 IS NULL OR owner = ?1 ORDER BY created DESC, id LIMIT ?2"
        return [self._job(row) for row in self._read(query, owner, most)]

    def unfinished(self) -> list[Item]:
        """Images that wait or are worked on, in the order in which they came."""
        query = "SELECT * FROM images WHERE state IN ('queued', 'running') ORDER BY entered, job, number"
        return [_item(row) for row in self._read(query)]

    def unfinished_of(self, owner: str) -> int:
        """How many images an owner has that wait or are worked on."""
        query = "SELECT count(*) FROM images WHERE owner = ? AND state IN ('queued', 'running')"
        ((count,),) = self._read(query, owner)
        return int(count)

    def begin(self, item: Item) -> None:
        """It has the device, perhaps not for the first time."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE items SET state = 'running', began = coalesce(began, ?) "
                "WHERE job = ? AND number = ? AND state = 'queued'",
                (time.time(), item.job, item.number),
            )

    def report(self, item: Item, done: int, seconds: float) -> None:
        """How far it is, and how long it had the device in all."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE items SET done = ?, seconds = ? WHERE job = ? AND number = ?",
                (done, seconds, item.job, item.number),
            )

    def end(self, item: Item, state: State, error: Mapping[str, Any] | None = None) -> bool:
        """It will not change any more; returns whether it had not ended before."""
        text = None if error is None else json.dumps(dict(error))
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE items SET state = ?, error = ?, ended = ?, done = iif(? = 'done', total, done) "
                "WHERE job = ? AND number = ? AND state IN ('queued', 'running')",
                (state, text, time.time(), state, item.job, item.number),
            )
            return changed.rowcount > 0

    def counts(self) -> dict[str, int]:
        """State -> how many images are in it."""
        rows = self._read("SELECT state, count(*) AS images FROM items GROUP BY state")
        return dict.fromkeys(get_args(State), 0) | {row["state"]: row["images"] for row in rows}

    def learn_pace(self, run_id: str, seconds: float, work: float) -> None:
        """How long a version took for some work; what was learnt before counts half."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO paces VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run_id) DO UPDATE SET "
                "seconds = seconds / 2 + ?2, work = work / 2 + ?3, measured = ?4",
                (run_id, seconds, work, time.time()),
            )

    def pace(self, run_id: str) -> float | None:
        """Seconds per work of a version, or else of the one that was measured last; None before any was."""
        query = "SELECT seconds / work AS pace FROM paces ORDER BY run_id = ? DESC, measured DESC LIMIT 1"
        rows = self._read(query, run_id)
        return float(rows[0]["pace"]) if rows else None

    def requeue(self) -> int:
        """After a start: what an end of the process interrupted waits again. Returns how many images do."""
        with self._writing() as connection:
            return connection.execute("UPDATE items SET state = 'queued' WHERE state = 'running'").rowcount

    def ended_before(self, moment: float) -> list[Job]:
        """Jobs whose last image ended before a moment (seconds since 1970)."""
        query = (
            "SELECT * FROM jobs WHERE NOT EXISTS "
            "(SELECT 1 FROM items WHERE job = id AND (ended IS NULL OR ended >= ?))"
        )
        return [self._job(row) for row in self._read(query, moment)]

    def remove(self, id: str) -> None:
        """Forget a job."""
        with self._writing() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def ids(self) -> set[str]:
        """Of all jobs."""
        return {row["id"] for row in self._read("SELECT id FROM jobs")}

    def close(self) -> None:
        """Nothing is written after this."""
        with self._lock:
            self._connection.close()

    def _job(self, row: sqlite3.Row) -> Job:
        items = self._read("SELECT * FROM images WHERE job = ? ORDER BY number", row["id"])
        asked = json.loads(row["request"])
        request = Request(**asked | {"maps": tuple(asked.get("maps", ()))})
        return Job(row["id"], row["owner"], request, row["created"], tuple(_item(item) for item in items))

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _item(row: sqlite3.Row) -> Item:
    values = dict(row)
    for name in ("shape", "warnings", "maps"):
        values[name] = tuple(json.loads(values[name]))
    values["error"] = None if values["error"] is None else json.loads(values["error"])
    return Item(**values)
