"""Which images are restored to which files, one after the other or some at a time; what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from cvdm.errors import CvdmError, ImageError
from cvdm.progress import note
from cvdm.reading.names import ENDINGS, image_stem
from flows.progress import progress_bar

ZARR_HEADERS = ("zarr.json", ".zattrs", ".zgroup")
"""One of them lies in every OME-Zarr folder, which is one image."""
RESULT = ".ome.tif"


@dataclass(frozen=True)
class Errand:
    """One image to restore."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What came of all."""

    restored: Mapping[Path, Mapping[str, str]]
    """Result to what made it."""
    failed: Mapping[Path, CvdmError]
    """Image to why it could not be restored."""

    def as_json(self) -> dict[str, Any]:
        """One document."""
        return {
            "restored": [{"output": str(path), **made} for path, made in self.restored.items()],
            "failed": [{"image": str(path), **error.as_dict()} for path, error in self.failed.items()],
        }

    def as_text(self) -> str:
        """A line for each result, and for each image that has none."""
        lines = [f"Wrote {path}" for path in self.restored]
        lines += [f"NOT restored: {path}: {error}" for path, error in self.failed.items()]
        return "\n".join(lines)


Way = Callable[[Errand, Event], dict[str, str]]
"""Restores one image, unless the event is set; returns what made it. Raises CvdmError."""


def errands_for(paths: Sequence[str], output: str) -> list[Errand]:
    """What to restore: files, all images of folders, patterns; to a file for one file, else to a folder.

    Results are called like their inputs, and lie in the folder as these did. Raises ImageError.
    """
    target = Path(output)
    if len(paths) == 1 and _is_image(Path(paths[0])) and not (target.is_dir() or output.endswith("/")):
        return [_checked(Errand(Path(paths[0]), target))]
    found: dict[Path, Path] = {}  # result to image
    for given in paths:
        for source, place in _images(given, target):
            result = target / place.with_name(image_stem(place.name) + RESULT)
            if found.setdefault(result, source) != source:
                raise ImageError(
                    "images whose results have different names",
                    f"{found[result]} and {source}, both {result}",
                    "Restore them to different folders.",
                )
    return [_checked(Errand(source, result)) for result, source in found.items()]


def carry_out(errands: Sequence[Errand], restore: Way, *, at_once: int = 1) -> Outcome:
    """Restore all images, those that can be; one that cannot keeps no other from it.

    Raises the reason when there is only one image and it cannot, KeyboardInterrupt.
    """
    if len(errands) == 1:
        (errand,) = errands
        return Outcome({errand.target: restore(errand, Event())}, {})
    restored: dict[Path, Mapping[str, str]] = {}
    failed: dict[Path, CvdmError] = {}
    stopped = Event()
    with ThreadPoolExecutor(at_once) as threads, progress_bar("reconstruct", "image") as progress:
        begun = {threads.submit(restore, errand, stopped): errand for errand in errands}
        try:
            for done, future in enumerate(as_completed(begun), start=1):
                errand = begun[future]
                try:
                    restored[errand.target] = future.result()
                except CvdmError as error:
                    failed[errand.source] = error
                    note(f"{errand.source}: {error}")
                progress(done, len(errands))
        except BaseException:  # Ctrl-C above all: what has not begun never will
            stopped.set()
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    in_order = {errand.target: restored[errand.target] for errand in errands if errand.target in restored}
    return Outcome(in_order, failed)


def _images(given: str, output: Path) -> list[tuple[Path, Path]]:
    """Images of a path or pattern, each with its place under the output."""
    path = Path(given)
    if path.is_dir() and not _is_image(path):
        inside = list(_inside(path, output.resolve()))
        if not inside:
            kinds = f"{', '.join(ENDINGS)}, OME-Zarr"
            raise ImageError(f"images ({kinds}) in {path}", "none", "Check the folder.")
        return [(file, file.relative_to(path)) for file in inside]
    files = [path]
    if not path.exists() and any(mark in given for mark in "*?["):
        files = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not files or not all(_is_image(file) for file in files):
        raise ImageError("an image file that can be read", f"{given}: no such file", "Check the path.")
    return [(file, Path(file.name)) for file in files]


def _inside(folder: Path, output: Path) -> Iterator[Path]:
    """Images of a folder and those in it, but for hidden ones and results."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.resolve() == output:
            continue
        if _is_image(path) and (path.is_dir() or path.suffix.lower() in ENDINGS):
            yield path
        elif path.is_dir() and not path.is_symlink():  # which may lead back
            yield from _inside(path, output)


def _is_image(path: Path) -> bool:
    """Whether a path is one image, if it is any: a file, or an OME-Zarr folder."""
    return path.is_file() or (path.is_dir() and any((path / name).is_file() for name in ZARR_HEADERS))


def _checked(errand: Errand) -> Errand:
    """Raises ImageError where the result would replace the input."""
    if errand.target.exists() and errand.target.samefile(errand.source):
        raise ImageError("an output other than the input", str(errand.target), "Choose another -o.")
    return errand
