"""Images that do not come as one file: a zipped OME-Zarr folder, and what lies on the service's machine."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from cvdm.errors import ImageError
from cvdm.storage import storage_error
from service.errors import ParameterError
from service.schema import shown

ZIP_MAGIC = b"PK\x03\x04"
MOST_ENTRIES = 2**20
MOST_DIRECTORY_BYTES = 128 * MOST_ENTRIES
ENTRY_MAGIC = b"PK\x01\x02"
END64_BYTES = 76
"""Of the two records that a large archive has between its directory and its end record."""
LONGEST_NAME, LONGEST_PATH = 255, 2000
"""Bytes of a name that disks take, and of a path below the folder of jobs."""
CHUNK = 2**20
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_zip(path: Path) -> bool:
    """Whether a file begins like a ZIP archive."""
    with path.open("rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def unpack(archive: Path, target: Path, most_bytes: int, label: str) -> int:
    """Unpack a zipped OME-Zarr folder; one folder at its top is left out. Returns what is left of most_bytes.

    most_bytes: of all files together, whatever their headers claim. Only plain files and folders inside the
    archive are made. Raises ImageError, StorageError.
    """
    try:
        _check_directory(archive, label)
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            _check(entries, most_bytes, label)
            top = _common_top(entries)
            left = most_bytes
            for entry in entries:
                path = target.joinpath(*PurePosixPath(entry.filename).parts[len(top) :])
                left = _write(packed, entry, path, left, label)
            return left
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise ImageError(
            "an intact ZIP archive", f"{label}, which is damaged ({error})", "Pack the folder again."
        ) from error


def inside(root: Path | None, name: str) -> Path:
    """The image under the operator's folder that a client names. Raises ParameterError."""
    if root is None:
        raise ParameterError(
            "images as uploads",
            f"the path {shown(name)}",
            "Upload the image, or have the operator set CVDM_IMPORT_DIR.",
        )
    path = root / name
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _nothing_there(name) from error
    if not found.is_relative_to(root.resolve()) or not (found.is_file() or found.is_dir()):
        raise _nothing_there(name)
    return found


def _nothing_there(name: str) -> ParameterError:
    """One answer for what is outside and for what is not there, so that nobody learns what is outside."""
    return ParameterError(
        "the path of an image in the operator's folder", shown(name), "Name it relative to that folder."
    )


def _check_directory(archive: Path, label: str) -> None:
    """Refuse what has too many entries before objects are made of them, whatever it claims."""
    with archive.open("rb") as file:
        # Private, but what ZipFile goes by: our own reader might see another directory in an odd archive.
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end is None:
            raise zipfile.BadZipFile("no end record")
        size, at = end[zipfile._ECD_SIZE], end[zipfile._ECD_LOCATION]  # type: ignore[attr-defined]
        if size > MOST_DIRECTORY_BYTES:
            raise _too_many(f"a directory of {size} bytes", label)
        begin = max(0, at - size - END64_BYTES)
        file.seek(begin)
        entries = file.read(at - begin).count(ENTRY_MAGIC)
    if entries > MOST_ENTRIES:
        raise _too_many(str(entries), label)


def _too_many(what: str, label: str) -> ImageError:
    return ImageError(
        f"a ZIP archive of 1 to {MOST_ENTRIES} files", f"{label} with {what}", "Pack one OME-Zarr folder."
    )


def _check(entries: list[zipfile.ZipInfo], most_bytes: int, label: str) -> None:
    if not entries or len(entries) > MOST_ENTRIES:
        raise _too_many(str(len(entries)), label)
    if sum(entry.file_size for entry in entries) > most_bytes:
        raise _too_large(label)
    for entry in entries:
        path = PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG) and entry.compress_type in PLAIN and not entry.flag_bits & 1
        if not plain or path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise ImageError(
                "a ZIP archive of plain files in one folder",
                f"{label} with {shown(entry.filename)}",
                "Pack the OME-Zarr folder itself, stored or deflated and without a password.",
            )
    _check_names([entry.filename for entry in entries], label)


def _check_names(names: list[str], label: str) -> None:
    """Refuse names that no disk takes, and two files, or a file and a folder, of one name."""
    paths = [PurePosixPath(name) for name in names]
    long = (
        str(path)
        for path in paths
        if len(str(path).encode()) > LONGEST_PATH
        or any(len(part.encode()) > LONGEST_NAME for part in path.parts)
    )
    folders = {folder for path in paths for folder in path.parents}
    doubled = (str(path) for path, times in Counter(paths).items() if times > 1 or path in folders)
    for what, found in (("a name of more than 255 bytes", next(long, None)), ("two of", next(doubled, None))):
        if found is not None:
            raise ImageError(
                "a ZIP archive whose files have short names, each once",
                f"{label} with {what} {shown(found)}",
                "Pack the OME-Zarr folder anew.",
            )


def _common_top(entries: list[zipfile.ZipInfo]) -> tuple[str, ...]:
    """The folder that everything lies in, if there is one."""
    tops = {PurePosixPath(entry.filename).parts[:1] for entry in entries}
    deep = all(len(PurePosixPath(entry.filename).parts) > 1 for entry in entries)
    headers = {"zarr.json", ".zattrs", ".zgroup"} & {entry.filename for entry in entries}
    return next(iter(tops)) if len(tops) == 1 and deep and not headers else ()


def _write(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int, label: str) -> int:
    """One file; returns how many bytes the others may have."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with packed.open(entry) as source, path.open("xb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(label)
                file.write(chunk)
    except OSError as error:
        raise storage_error(error, path.name) from error
    return left


def _too_large(label: str) -> ImageError:
    return ImageError(
        "archives that unpacked are together no larger than an upload may be",
        f"{label} with more",
        "Crop the image.",
    )
