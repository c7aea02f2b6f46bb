"""Writing a file completely or not at all.

A file is written under a temporary name in its own folder and renamed when it is whole, so that a reader
never sees half of it and a failure leaves nothing behind. Not covered: power loss between write and rename
(nothing is fsynced), and folders.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvdm.errors import StorageError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Lend a temporary path beside target that becomes target when the block ends well.

    Creates missing parent folders. Raises StorageError when the disk is full or the folder cannot be
    written; whatever is raised, the temporary file is removed and an older target stays as it was.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        _remove(temporary)


def content_digest(path: Path) -> str:
    """SHA-256, hexadecimal, of a file, or of a folder's files in order with their names. Raises OSError."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for member in sorted(path.rglob("*")):
        if member.is_file():
            digest.update(f"{member.relative_to(path).as_posix()}\0{content_digest(member)}\n".encode())
    return digest.hexdigest()


def storage_error(error: OSError, target: Path | str) -> StorageError:
    """The user's message for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Free some disk space, or write to another disk."
    else:
        remedy = "Check that the folder exists and that you may write to it."
    return StorageError(f"to write {target}", error.strerror or str(error), remedy)


def _remove(path: Path) -> None:
    """Remove a temporary file if it is (still) there and can be removed."""
    try:
        path.unlink()
    except OSError:  # already renamed, never written, or its folder is gone: nothing to clean
        return
