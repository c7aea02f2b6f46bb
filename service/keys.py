"""Who may ask the service, how much of it, and what they asked: keys, their quotas, their calls, in SQLite.

A key is 256 random bits, of which the file holds the SHA-256 alone; whoever made it sees it once. Names are
never used twice, so that jobs and calls stay theirs. Calls come from any thread and process.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from service.errors import KeysError, KeysGoneError, QuotaError

Role = Literal["user", "operator"]
"""An operator sees and ends the jobs of everybody, and reads the metrics."""
PREFIX = "cvdm_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    requests_per_day INTEGER,
    pixels_per_day INTEGER,
    images INTEGER,
    created REAL NOT NULL,
    revoked REAL
);
CREATE TABLE IF NOT EXISTS spent (
    name TEXT NOT NULL,
    day TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    pixels INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, day)
);
CREATE TABLE IF NOT EXISTS calls (
    moment REAL NOT NULL,
    name TEXT NOT NULL,
    request_id TEXT,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    version TEXT,
    input_sha256 TEXT
);
"""


@dataclass(frozen=True)
class Quota:
    """What one may ask for; None for no bound."""

    requests_per_day: int | None = None
    """Images sent, in requests and in jobs together; a day is one of UTC."""
    pixels_per_day: int | None = None
    images: int | None = None
    """Images of jobs that wait or are worked on."""


@dataclass(frozen=True)
class Key:
    """One key, without its secret."""

    name: str
    """Of the person or program that it was given to."""
    role: Role
    quota: Quota
    created: float
    """Seconds since 1970."""
    revoked: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        moments = {name: _moment(getattr(self, name)) for name in ("created", "revoked")}
        return {"name": self.name, "role": self.role, **vars(self.quota), **moments}


@dataclass(frozen=True)
class Call:
    """One request, for the log."""

    name: str
    request_id: str | None
    method: str
    path: str
    status: int
    version: str | None
    input_sha256: str | None
    """Of a job of several images, each one's, between blanks."""


MOST_CALLS = 1_000_000
"""Calls that are kept, the newest ones; some 150 bytes each."""


class Keys:
    """The file of keys; made when the first key is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = path.exists()

    @property
    def wanted(self) -> bool:
        """Whether a key was ever made: whoever comes must have one then, although all may be revoked.

        Raises KeysGoneError when a file that was there is gone or damaged: that is no leave to come without.
        """
        try:
            if self.path.exists():
                self._seen = True
                return bool(self.listed())
            problem = "none any more"
        except sqlite3.DatabaseError as error:
            problem = f"one that cannot be read ({error})"
        if not self._seen:
            return False
        raise KeysGoneError(
            f"the file of keys {self.path.name}, which was there",
            problem,
            "Put it back; to do without keys, remove it while the service is stopped.",
        )

    def create(self, name: str, role: Role = "user", quota: Quota = Quota()) -> str:
        """Make a key; returns it, which nothing ever does again. Raises KeysError."""
        if not NAME.fullmatch(name) or role not in get_args(Role):
            raise KeysError(
                f"a name of letters, digits and . _ @ -, and a role, {' or '.join(get_args(Role))}",
                f"{name!r} and {role!r}",
                "Correct them.",
            )
        secret = PREFIX + secrets.token_urlsafe(32)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(make=True) as connection:
            connection.executescript(SCHEMA)
            try:
                connection.execute(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                    (name, _hashed(secret), role, *vars(quota).values(), time.time()),
                )
            except sqlite3.IntegrityError as error:
                raise KeysError("a new name", f"{name}, which a key has or had", "Choose another.") from error
        self.path.chmod(0o600)
        return secret

    def revoke(self, name: str) -> Key:
        """From now on it opens nothing. Raises KeysError."""
        known = {key.name: key for key in self.listed()}
        if name not in known:
            raise KeysError(
                f"a key's name ({', '.join(known) or 'there is none'})", repr(name), "Correct it."
            )
        with self._open() as connection:
            connection.execute(
                "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE name = ?", (time.time(), name)
            )
        return next(key for key in self.listed() if key.name == name)

    def listed(self) -> list[Key]:
        """All keys, revoked ones too, the oldest first."""
        return [_key(row) for row in self._read("SELECT * FROM keys ORDER BY created")]

    def who(self, secret: str) -> Key | None:
        """Whose key it is, unless it is revoked."""
        rows = self._read("SELECT * FROM keys WHERE sha256 = ? AND revoked IS NULL", _hashed(secret))
        return _key(rows[0]) if rows else None

    def spend(self, key: Key, *, images: int, pixels: int) -> None:
        """Count images that are about to be restored. Raises QuotaError, and counts none of them."""
        day = datetime.now(UTC)
        wanted = {"requests": images, "pixels": pixels}
        bounds = {"requests": key.quota.requests_per_day, "pixels": key.quota.pixels_per_day}
        with self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO spent (name, day) VALUES (?, ?)", (key.name, f"{day:%Y-%m-%d}")
            )
            row = connection.execute(
                "SELECT requests, pixels FROM spent WHERE name = ? AND day = ?", (key.name, f"{day:%Y-%m-%d}")
            ).fetchone()
            for what, bound in bounds.items():
                if bound is not None and row[what] + wanted[what] > bound:
                    raise _over(f"{bound} {'images' if what == 'requests' else what} a day", row[what], day)
            connection.execute(
                "UPDATE spent SET requests = requests + ?, pixels = pixels + ? WHERE name = ? AND day = ?",
                (images, pixels, key.name, f"{day:%Y-%m-%d}"),
            )

    def give_back(self, key: Key, *, images: int, pixels: int) -> None:
        """Uncount images that were counted a moment ago and then not restored."""
        with self._open() as connection:
            connection.execute(
                "UPDATE spent SET requests = max(0, requests - ?), pixels = max(0, pixels - ?) "
                "WHERE name = ? AND day = ?",
                (images, pixels, key.name, f"{datetime.now(UTC):%Y-%m-%d}"),
            )

    def log(self, call: Call) -> None:
        """Keep what was asked: who, what, with which version, of which input; never an image."""
        with self._open() as connection:
            connection.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (time.time(), *vars(call).values())
            )
            connection.execute(
                "DELETE FROM calls WHERE rowid <= (SELECT max(rowid) FROM calls) - ?", (MOST_CALLS,)
            )

    def calls(self, *, most: int = 100) -> list[dict[str, Any]]:
        """The newest calls, the last one first."""
        rows = self._read("SELECT * FROM calls ORDER BY rowid DESC LIMIT ?", most)
        return [{**dict(row), "moment": _moment(row["moment"])} for row in rows]

    def _read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        if not self.path.exists():
            return []
        with self._open("BEGIN") as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def _open(self, begin: str = "BEGIN IMMEDIATE", *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction; those that read alone wait for nobody. make: the file, where there is none."""
        file = f"{self.path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}"
        with closing(sqlite3.connect(file, timeout=10, uri=True)) as connection, connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(begin)
            yield connection


def _over(bound: str, spent: int, now: datetime) -> QuotaError:
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    error = QuotaError(f"at most {bound}", f"{spent} so far", "Wait until tomorrow (UTC), or ask for more.")
    error.retry_after = max(1, round((midnight - now).total_seconds()))
    return error


def _hashed(secret: str) -> str:
    """A key has 256 random bits: a slow hash would protect nothing more."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: sqlite3.Row) -> Key:
    quota = Quota(row["requests_per_day"], row["pixels_per_day"], row["images"])
    return Key(row["name"], row["role"], quota, row["created"], row["revoked"])


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
