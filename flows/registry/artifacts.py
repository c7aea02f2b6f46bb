"""Files of runs: pictures, documents and tables among the artifacts, written by run id."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from flows.plain_json import plain_json
from flows.registry.connection import Connection, reporting_failures


@reporting_failures
class Artifacts:
    """Artifacts of one store's runs. Every method raises RegistryError when the store fails."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self.uri = connection.uri

    def log_bytes(self, run_id: str, content: bytes, path: str) -> None:
        """Store a file, for instance a picture, at `path` among the run's artifacts."""
        target = Path(path)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / target.name
            file.write_bytes(content)
            self.log_file(run_id, file, target.parent.as_posix())

    def log_file(self, run_id: str, file: Path, folder: str) -> None:
        """Store a copy of a file in a folder of the run's artifacts, in the place of an earlier one."""
        self._client.log_artifact(run_id, str(file), None if folder == "." else folder)

    def log_json(self, run_id: str, document: Any, path: str) -> None:
        """Store a JSON document at `path` among the run's artifacts, NaN and Infinity as null."""
        self.log_bytes(run_id, (plain_json(document) + "\n").encode(), path)

    def log_table(
        self, run_id: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str
    ) -> None:
        """Store a table, which MLflow's interface shows for several runs side by side; one per run.

        MLflow's own `log_table` appends to what is there, so that a repetition would double the rows.
        """
        self.log_json(run_id, {"columns": list(columns), "data": [list(row) for row in rows]}, path)
        self._client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": path, "type": "table"}]))

    def read_json(self, run_id: str, path: str) -> Any:
        """A JSON document from the run's artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            local = self._client.download_artifacts(run_id, path, folder)
            return json.loads(Path(local).read_text(encoding="utf-8"))

    def holds(self, run_id: str, path: str) -> bool:
        """Whether there is a file at `path` among the run's artifacts."""
        folder = Path(path).parent.as_posix()
        entries = self._client.list_artifacts(run_id, None if folder == "." else folder)
        return any(entry.path == path for entry in entries)
