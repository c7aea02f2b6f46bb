"""What a training has to tell the tracking server, kept on disk until the server has it.

    FOLDER/rows.jsonl    a line per row of metrics, in order of steps, with the time at which it was true
    FOLDER/files/PATH    files, under the paths that they get among the run's artifacts

A server that is away for minutes, or a kill at any point, costs nothing and doubles nothing: a row goes only
if its step is beyond the last one that the server holds, which is asked for after every failure, and a file
that goes twice replaces itself.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from cvdm.storage import replacing, storage_error
from flows.registry import Registry, RegistryError, Row, Run

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
"""Seconds until a server that was away is tried again; doubled each time, since a try may block for long."""


class Outbox:
    """The outbox of one run.

    progress_metric: one that is in every row; tells how far the server has them.
    """

    def __init__(self, folder: Path, registry: Registry, run: Run, *, progress_metric: str) -> None:
        self._rows_file, self._files = folder / "rows.jsonl", folder / "files"
        self._runs, self._artifacts = registry.runs, registry.artifacts
        self._run, self._metric = run, progress_metric
        self._delivered: int | None = None
        """Last step that the server holds; None where it must be asked."""
        self._pause, self._next_try = FIRST_PAUSE, 0.0
        self._mend()

    def last_step(self) -> int:
        """The last step that the server or the outbox holds. Raises RegistryError."""
        return max((self._last_delivered(), *(row.step for row in self._waiting())))

    def add_row(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the metrics of a step. Raises StorageError."""
        line = json.dumps({"step": step, "at": int(time.time() * 1000), "values": dict(values)})
        try:
            self._rows_file.parent.mkdir(parents=True, exist_ok=True)
            with self._rows_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise storage_error(error, self._rows_file) from error

    def add_file(self, path: str, content: bytes) -> None:
        """Keep a file for `path` among the run's artifacts. Raises StorageError."""
        with replacing(self._files / path) as temporary:
            temporary.write_bytes(content)

    def add_copy(self, path: str, source: Path) -> None:
        """Keep a file as it is now; its writer replaces it whole, so that a second name is enough."""
        with replacing(self._files / path) as temporary:
            try:
                os.link(source, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(source, temporary)

    def offer(self) -> str | None:
        """Deliver if the server is there; returns why not, the first time that it is away."""
        if time.monotonic() < self._next_try:
            return None
        first = self._next_try == 0.0
        try:
            self.deliver()
        except RegistryError as error:
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return str(error) if first else None
        self._pause, self._next_try = FIRST_PAUSE, 0.0
        return None

    def deliver(self) -> None:
        """Send everything. Raises RegistryError; what did not arrive stays."""
        for file in sorted(one for one in self._files.rglob("*") if one.is_file()):
            if file.name.endswith(".tmp"):  # of a writer that was killed
                file.unlink()
                continue
            self._artifacts.log_file(self._run.run_id, file, file.parent.relative_to(self._files).as_posix())
            file.unlink()
        rows = self._waiting()
        if rows:
            done = self._last_delivered()
            self._delivered = None  # until the server has said that it holds them
            self._runs.log_rows(self._run, [row for row in rows if row.step > done])
            self._delivered = max(done, rows[-1].step)
            self._rows_file.unlink()

    def _last_delivered(self) -> int:
        if self._delivered is None:
            self._delivered = self._runs.last_step(self._run, self._metric)
        return self._delivered

    def _waiting(self) -> list[Row]:
        if not self._rows_file.is_file():
            return []
        lines = self._rows_file.read_text(encoding="utf-8").splitlines()
        return [Row(**json.loads(line)) for line in lines]

    def _mend(self) -> None:
        """Drop half a line that a killed writer left."""
        if self._rows_file.is_file():
            content = self._rows_file.read_bytes()
            os.truncate(self._rows_file, content.rfind(b"\n") + 1)
