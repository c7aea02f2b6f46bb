"""How the table of jobs is laid out in SQLite, and how one of an earlier release becomes one of this."""

from __future__ import annotations

import sqlite3

FIRST = """
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
INTERRUPTIONS = """
ALTER TABLE items ADD COLUMN at_device INTEGER NOT NULL DEFAULT 0;
ALTER TABLE items ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE items ADD COLUMN reached INTEGER NOT NULL DEFAULT 0
"""
"""Which image has the device now, how often in a row the process ended then, and how far it was at most."""
CHANGES = (FIRST, INTERRUPTIONS)
"""The first release's layout, and what each later one changed; how many are done is the table's version."""
IMAGES = """
CREATE TEMP VIEW images AS SELECT items.*, owner, created AS entered,
    coalesce(json_extract(request, '$.maps'), '[]') AS maps,
    coalesce(json_extract(request, '$.channels'), '[]') AS channels,
    json_extract(request, '$.run_id') AS run_id,
    json_extract(request, '$.samples') * json_extract(request, '$.steps') AS rounds
    FROM items JOIN jobs ON job = id
"""
"""Images with what they have of their jobs; of this connection, so no release meets another one's."""


def lay_out(connection: sqlite3.Connection) -> None:
    """Within a transaction. Raises sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for statement in ";".join(CHANGES[version:]).split(";"):
        connection.execute(statement)
    if version < len(CHANGES):
        connection.execute(f"PRAGMA user_version = {len(CHANGES)}")
    connection.execute(IMAGES)
