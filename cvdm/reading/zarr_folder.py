"""Files of a Zarr folder, and of nothing outside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cvdm.errors import ImageError

MAX_DOCUMENT_BYTES = 2**24


def file_inside(root: Path, key: str, label: str) -> Path | None:
    """The file under a folder that a key names; None where there is none.

    Raises ImageError for keys and links that lead out of the folder, and for what is no regular file.
    """
    path = root / key
    if key.startswith("/") or ".." in Path(key).parts or not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(
            "a Zarr image whose files all lie in its folder",
            f"{label} with {key}, which leads out of it",
            "Copy the files themselves into the folder.",
        )
    if not path.exists():
        return None
    if not path.is_file():
        raise ImageError("files in a Zarr image", f"{label} with {key}, which is none", "Copy it again.")
    return path


def read_document(root: Path, key: str, label: str) -> bytes | None:
    """The bytes of a JSON or XML document in a folder; None where there is none. Raises ImageError."""
    path = file_inside(root, key, label)
    if path is None:
        return None
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise ImageError(
            f"a header of at most {MAX_DOCUMENT_BYTES >> 20} MiB",
            f"{label} with a larger {key}",
            "Save it again.",
        )
    return path.read_bytes()


def as_object(document: bytes | None) -> dict[str, Any]:
    """A JSON document that must be an object; empty for no document."""
    found = json.loads(document) if document is not None else {}
    if not isinstance(found, dict):
        raise TypeError(f"a header that is a {type(found).__name__}")
    return found
