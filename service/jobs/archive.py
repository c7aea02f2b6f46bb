"""The files of jobs: one folder a job, one folder an image in it.

    jobs.db                 the table
    watching.db             what was seen of restored images (service/watching/)
    shadow.jsonl            how a challenger would have done on them
    files/JOB/NUMBER/       of one image:
      input                 as it was uploaded; an unpacked folder, or a link to where it lies
      work/                 while it is restored
      views/                planes of the input that somebody has looked at
      unconfirmed.ome.tif   restored from a link, until its input was found to be still the accepted one
      result.ome.tif        written whole or not at all
    incoming/               uploads that are no job yet

What is under incoming/, and folders without a row in the table, are left by an end of the process while a job
was entered or removed; the next start removes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Set
from pathlib import Path
from typing import BinaryIO

from cvdm.errors import ImageError
from cvdm.planes import PROGRESS_FILE
from cvdm.storage import content_digest, storage_error
from service.errors import JobsError

CHUNK = 2**20
UNCONFIRMED = "unconfirmed.ome.tif"


class Archive:
    """A folder that one process at a time may use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files, self._incoming = root / "files", root / "incoming"
        for folder in (self._files, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = (root / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise JobsError(
                f"a folder for jobs that no other service uses, {root}",
                "one that another service uses",
                "Stop it, or give each service a CVDM_JOBS_DIR of its own.",
            ) from error

    @property
    def table(self) -> Path:
        """Where the table lies."""
        return self.root / "jobs.db"

    def receive(self, id: str, number: int, upload: BinaryIO) -> str:
        """Copy an uploaded image of a job to be; returns its SHA-256. Raises StorageError."""
        target, digest = self._incoming / id / str(number) / "input", hashlib.sha256()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            upload.seek(0)
            with target.open("wb") as file:
                while chunk := upload.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())  # a job that is told to be accepted outlives a power cut too
        except OSError as error:
            raise storage_error(error, target) from error
        return digest.hexdigest()

    def link(self, id: str, number: int, image: Path) -> str:
        """Refer to an image where it lies; returns the SHA-256 of its content. Raises StorageError."""
        target = self._incoming / id / str(number) / "input"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(image)
            return content_digest(image)
        except OSError as error:
            raise storage_error(error, target) from error

    def accept(self, id: str) -> None:
        """What was received is the job's now."""
        (self._incoming / id).rename(self._files / id)

    def drop(self, id: str) -> None:
        """Remove what was received for a job, or all that is there of one."""
        for folder in (self._incoming / id, self._files / id):
            shutil.rmtree(folder, ignore_errors=True)

    def input(self, id: str, number: int) -> Path:
        """An image as it was uploaded."""
        return self._files / id / str(number) / "input"

    def received(self, id: str, number: int) -> Path:
        """An image of a job to be."""
        return self._incoming / id / str(number) / "input"

    def work(self, id: str, number: int) -> Path:
        """Where an image is restored."""
        return self._files / id / str(number) / "work"

    def result(self, id: str, number: int) -> Path:
        """The restored image; there as soon as it is whole."""
        return self._files / id / str(number) / "result.ome.tif"

    def mark(self, id: str, number: int) -> frozenset[tuple[int, int]]:
        """Another one whenever more of an image's work is kept, so that an end of the work loses none."""
        files = [path.stat() for path in self.work(id, number).rglob(PROGRESS_FILE)]
        return frozenset((file.st_ino, file.st_mtime_ns) for file in files)

    def restored(self, id: str, number: int) -> Path:
        """Where the restored image is written: of a link, beside the result until `confirm`."""
        result = self.result(id, number)
        linked = self.input(id, number).is_symlink() and not result.exists()
        return result.with_name(UNCONFIRMED) if linked else result

    def require_unchanged(self, id: str, number: int, sha256: str, label: str) -> None:
        """Refuse an image that is referred to where it lies and is not what was accepted. Raises ImageError.

        sha256: what `link` returned.
        """
        path = self.input(id, number)
        if not path.is_symlink():
            return
        try:
            found = content_digest(path)
        except OSError as error:
            found = error.strerror or str(error)
        if found != sha256:
            raise ImageError(
                f"{label} as it was when the job was accepted (SHA-256 {sha256[:12]})",
                f"another file, or none ({found[:60]})",
                "Leave images in the folder until their job has ended; send the job again.",
            )

    def confirm(self, id: str, number: int, sha256: str, label: str) -> None:
        """A restored image becomes the result, if its input is what was accepted. Raises ImageError."""
        restored, result = self.restored(id, number), self.result(id, number)
        if restored != result:
            self.require_unchanged(id, number, sha256, label)
            restored.rename(result)

    def views(self, id: str, number: int) -> Path:
        """Where decoded planes of the input are kept for whoever looks at them."""
        return self._files / id / str(number) / "views"

    def clear_work(self, id: str, number: int) -> None:
        """Remove what was begun of an image that will not be restored."""
        shutil.rmtree(self.work(id, number), ignore_errors=True)
        self.result(id, number).with_name(UNCONFIRMED).unlink(missing_ok=True)

    def tidy(self, known: Set[str]) -> None:
        """After a start: remove what belongs to no job."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()
        for folder in self._files.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Another process may use the folder."""
        self._lock.close()
