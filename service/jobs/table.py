"""The table of jobs, in SQLite: what was asked for, how far it is, how it ended.

Every change is one transaction, so that whatever ends the process, the table tells a state that was. Calls
may come from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, get_args

from service.jobs.layout import lay_out
from service.jobs.records import Item, Job, NewItem, Request, State, Waiting

ITEM = tuple(field.name for field in fields(Item))


class Table:
    """Opened once per process, which is the only one that runs jobs of it."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error."""
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self._writing() as connection:
            lay_out(connection)

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
        found = self._jobs("SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?", owner, key)
        return found[0] if found else None

    def get(self, id: str) -> Job | None:
        """A job by its id."""
        found = self._jobs("SELECT * FROM jobs WHERE id = ?", id)
        return found[0][0] if found else None

    def item(self, id: str, number: int) -> Item | None:
        """One image of a job."""
        if number > sys.maxsize:
            return None
        rows = self._read("SELECT * FROM images WHERE job = ? AND number = ?", id, number)
        return _item(rows[0]) if rows else None

    def request(self, id: str) -> Request | None:
        """What was asked for, without the images."""
        rows = self._read("SELECT request FROM jobs WHERE id = ?", id)
        return _request(rows[0]["request"]) if rows else None

    def ids_of(self, owner: str | None, *, most: int, before: str | None = None) -> list[str]:
        """Of the jobs of an owner, or of all for None; the newest first. before: the id of a newer one."""
        query = (
            "SELECT id FROM jobs WHERE (?1 IS NULL OR owner = ?1) AND (?3 IS NULL OR (-created, id) > "
            "(SELECT -created, id FROM jobs WHERE id = ?3)) ORDER BY created DESC, id LIMIT ?2"
        )
        return [row["id"] for row in self._read(query, owner, most, before)]

    def next_of_owners(self, most: int, *, without: Iterable[str] = ()) -> list[Item]:
        """Of each owner the first images that wait or are worked on, in the order in which they came.

        without: runs of versions; images that one of these would restore do not count.
        """
        query = (
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY owner ORDER BY entered, job, number) "
            "AS turn FROM images WHERE state IN ('queued', 'running') "
            "AND run_id NOT IN (SELECT value FROM json_each(?))) WHERE turn <= ? "
            "ORDER BY entered, job, number"
        )
        return [_item(row) for row in self._read(query, json.dumps(list(without)), most)]

    def waiting(self) -> list[Waiting]:
        """All that waits or is worked on, in the order in which it came."""
        query = (
            "SELECT job, number, owner, shape, rounds, done, total FROM images "
            "WHERE state IN ('queued', 'running') ORDER BY entered, job, number"
        )
        return [
            Waiting(job, number, owner, _pixels(shape) * rounds, done, total)
            for job, number, owner, shape, rounds, done, total in self._read(query)
        ]

    def unfinished_of(self, owner: str) -> int:
        """How many images an owner has that wait or are worked on."""
        query = "SELECT count(*) FROM images WHERE owner = ? AND state IN ('queued', 'running')"
        ((count,),) = self._read(query, owner)
        return int(count)

    def begin(self, item: Item) -> None:
        """It, and no other, has the device now, perhaps not for the first time."""
        with self._writing() as connection:
            connection.execute("UPDATE items SET at_device = 0 WHERE at_device AND state = 'running'")
            connection.execute(
                "UPDATE items SET state = 'running', began = coalesce(began, ?), at_device = 1 "
                "WHERE job = ? AND number = ? AND state IN ('queued', 'running')",
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

    def cancel(self, id: str, *, without: Iterable[int]) -> list[int]:
        """End what has not ended of a job, apart from some images; returns which ones did."""
        with self._writing() as connection:
            rows = connection.execute(
                "UPDATE items SET state = 'cancelled', ended = ? WHERE job = ? AND state IN "
                "('queued', 'running') AND number NOT IN (SELECT value FROM json_each(?)) RETURNING number",
                (time.time(), id, json.dumps(list(without))),
            )
            return [row["number"] for row in rows]

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
        """After a start: what an end of the process interrupted waits again. Returns how many images do.

        Of the one that had the device it is noted, from the beginning again where it had come further.
        """
        with self._writing() as connection:
            connection.execute(
                "UPDATE items SET interruptions = iif(done > reached, 1, interruptions + 1), "
                "reached = max(done, reached) WHERE at_device AND state = 'running'"
            )
            return connection.execute(
                "UPDATE items SET state = 'queued', at_device = 0 WHERE state = 'running'"
            ).rowcount

    def rest(self) -> None:
        """The process is about to end in order: none that is interrupted by that is at fault."""
        with self._writing() as connection:
            connection.execute("UPDATE items SET at_device = 0 WHERE at_device AND state = 'running'")

    def often_interrupted(self, times: int) -> list[Item]:
        """Images that wait although the process ended so often over them, without their coming further."""
        query = "SELECT * FROM images WHERE state = 'queued' AND interruptions >= ?"
        return [_item(row) for row in self._read(query, times)]

    def ended_before(self, moment: float) -> list[Job]:
        """Jobs whose last image ended before a moment (seconds since 1970)."""
        query = (
            "SELECT * FROM jobs WHERE NOT EXISTS "
            "(SELECT 1 FROM items WHERE job = id AND (ended IS NULL OR ended >= ?))"
        )
        return [job for job, _ in self._jobs(query, moment)]

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

    def _jobs(self, query: str, *values: Any) -> list[tuple[Job, str]]:
        """Jobs, each with the fingerprint of what was asked for."""
        with self._lock:  # a job that is removed meanwhile is found with all its images, or not at all
            return [(self._job(row), row["fingerprint"]) for row in self._read(query, *values)]

    def _job(self, row: sqlite3.Row) -> Job:
        items = self._read("SELECT * FROM images WHERE job = ? ORDER BY number", row["id"])
        request = _request(row["request"])
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


@lru_cache
def _pixels(shape: str) -> int:
    """Of a shape as it is stored; the images of a batch have few."""
    return prod(json.loads(shape))


def _request(text: str) -> Request:
    asked = json.loads(text)
    lists = {name: tuple(asked.get(name, ())) for name in ("maps", "channels")}
    return Request(**asked | lists)


def _item(row: sqlite3.Row) -> Item:
    values = {name: row[name] for name in ITEM}
    for name in ("shape", "warnings", "maps", "channels"):
        values[name] = tuple(json.loads(values[name]))
    values["error"] = None if values["error"] is None else json.loads(values["error"])
    return Item(**values)
