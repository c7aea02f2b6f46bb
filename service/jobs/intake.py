"""Images that do not come as one file: a zipped OME-Zarr folder, and what lies on the service's machine."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from cvdm.errors import ImageError
from cvdm.storage import storage_error
from service.errors import ParameterError
from service.schema import shown

ZIP_MAGIC = b"PK\x03\x04"
MOST_ENTRIES = 2**20
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
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            _check(entries, most_bytes, label)
            top = _common_top(entries)
            left = most_bytes
            for entry in entries:
                path = target.joinpath(*PurePosixPath(entry.filename).parts[len(top) :])
                left = _write(packed, entry, path, left, label)
            return left
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
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


def _check(entries: list[zipfile.ZipInfo], most_bytes: int, label: str) -> None:
    if not entries or len(entries) > MOST_ENTRIES:
        raise ImageError(
            f"a ZIP archive of 1 to {MOST_ENTRIES} files",
            f"{label} with {len(entries)}",
            "Pack one OME-Zarr folder.",
        )
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
