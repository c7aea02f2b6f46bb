"""What an ingest is about to change of the recorded data, so that an interrupted one can be told from damage.

    ingest.json = {version: of the data as recorded, files: {path in the project: SHA-256 that it will have}}

Between the swap of the dataset and its record by DVC, a ledger differs from the recorded one. Without the
note that could as well be a file that somebody changed, or another version's; with it, a rerun goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cvdm.checkpoint import file_digest
from cvdm.storage import replacing


def announce(note: Path, version: str | None, files: Mapping[str, Path]) -> None:
    """Write down what is about to replace recorded files: by path in the project. Raises StorageError."""
    content = {"version": version, "files": {name: file_digest(path) for name, path in files.items()}}
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def announced(note: Path, version: str | None, home: Path, names: Iterable[str]) -> frozenset[str]:
    """Those of some changed files that are as an interrupted ingest into this version left them."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        expected = dict(content["files"]) if content["version"] == version else {}
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(
        name
        for name in names
        if name in expected and (home / name).is_file() and file_digest(home / name) == expected[name]
    )
