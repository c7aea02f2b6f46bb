"""What the data gate costs and finds: speed, near-duplicates, registration, memory, planted defects.

    python benchmarks/validation.py [--section speed scale duplicates ...] [--data DIR ...]

Prints one block per section, with the goals that it is held against. Times are of processor cores, not of the
clock, so that other work on the machine hardly counts. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from changed_fields import changed, quick_frame, shifted, synthetic_fingerprints, twins
from planted_defects import DEFECTS, LEVELS, planted

from cvdm.card import load_card
from cvdm.dataset import SUFFIXES
from cvdm.images import MAX_PIXELS, read_image, write_tiff
from cvdm.inspection.duplicate_search import near_duplicates
from cvdm.inspection.fingerprints import fingerprint
from cvdm.inspection.registration import register
from cvdm.reading import read_stack
from flows.validation import judge
from flows.validation.measuring import Measurements, PairFiles, files_of, measure, measure_pairs
from flows.validation.policy import ValidationPolicy

DATA = Path(__file__).resolve().parents[1] / "data"
NUCLEI, CELLS = DATA / "fmd-confocal-nuclei", DATA / "biosr-microtubules"
LEAST_SPEED = 20.0  # MB of decoded pixels per second and core
LEAST_RECALL, LEAST_PRECISION = 0.95, 0.99
LARGEST_SHIFT_ERROR = 0.1  # px, median
MOST_PER_PAIR = 0.5  # MB of memory for each further pair
CHANGES = ((0.6, 0.05), (0.6, 0.1), (0.8, 0.15))  # area kept, noise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--section", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--data", type=Path, nargs="+", default=[NUCLEI, CELLS], help="folders for `speed`")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of each folder for `speed`")
    parser.add_argument("--repeats", type=int, default=3, help="of `speed`; the fastest counts")
    options = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_processor()}, OMP_NUM_THREADS {threads}")
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    met = [SECTIONS[name](options) for name in options.section]
    return int(not all(met))


def speed(options: argparse.Namespace) -> bool:
    """MB/s of decoded pixels with every measure, and against reading alone."""
    fine = True
    for root in options.data:
        pairs = _pairs(root)
        pairs = pairs[:: max(1, len(pairs) // options.pairs)]
        paths = [path for pair in pairs for path in (pair.low, pair.high) if path]
        megabytes = sum(_megabytes(path) for path in paths)
        measure_pairs(pairs[:1])
        all_checks = min(_seconds(lambda some=pairs: measure_pairs(some)) for _ in range(options.repeats))
        reading = min(_seconds(lambda some=paths: [_read(p) for p in some]) for _ in range(options.repeats))
        rate = megabytes / all_checks
        fine &= rate >= LEAST_SPEED
        print(
            f"speed {root.name}: {len(pairs)} pairs, {megabytes:.1f} MB: {rate:.1f} MB/s per core with all "
            f"checks, reading alone {megabytes / reading:.0f} MB/s (x{all_checks / reading:.1f}); "
            f"goal {LEAST_SPEED:g}"
        )
    return fine


def scale(options: argparse.Namespace) -> bool:
    """Time and memory of the search among synthetic fingerprints."""
    per_item = []
    for count in (100, 1000, 10_000):
        seconds, before, peak, recall, precision = _alone(_search, count)
        per_item.append(seconds / count)
        print(
            f"scale {count:6} fingerprints: {seconds:6.2f} s, {1e3 * per_item[-1]:.2f} ms each "
            f"(x{per_item[-1] / per_item[0]:.2f}); peak {peak:.0f} MB, {peak - before:.0f} MB of it for the "
            f"search; recall {recall:.3f}, precision {precision:.3f}"
        )
    return per_item[-1] < 5 * per_item[0]


def duplicates(options: argparse.Namespace) -> bool:
    """Recall and precision on real fields that were cropped, turned, rescaled and made noisier."""
    nuclei = {path.name[:5]: path for path in sorted((NUCLEI / "high").glob("*_cap00.tif"))}
    fields = {name: read_image(path).pixels for name, path in (nuclei | _by_name(CELLS / "high")).items()}
    overlapping = yaml.safe_load((NUCLEI / "card.yaml").read_text())["overlapping"]
    score, rng = ValidationPolicy().near_duplicate_score, np.random.default_rng(0)
    pool = {name: fingerprint(pixels) for name, pixels in fields.items()}
    for name, pixels in fields.items():
        for number, (area, noise) in enumerate(CHANGES):
            pool[f"{name}#{number}"] = fingerprint(changed(pixels, rng, area=area, noise=noise))
    found = {(one.first, one.second) for one in near_duplicates(pool) if one.score >= score}
    copies = {(name.partition("#")[0], name) for name in pool if "#" in name}

    def right(first: str, second: str) -> bool:
        names = {first.partition("#")[0], second.partition("#")[0]}
        return len(names) == 1 or any(names <= set(group) for group in overlapping)

    recall = len(found & copies) / len(copies)
    precision = sum(right(*pair) for pair in found) / max(1, len(found))
    print(
        f"duplicates: {len(copies)} changed copies of {len(fields)} fields: recall {recall:.3f}, precision "
        f"{precision:.3f} over {len(found)} pairs found; goals {LEAST_RECALL:g} and {LEAST_PRECISION:g}"
    )
    return recall >= LEAST_RECALL and precision >= LEAST_PRECISION


def registration(options: argparse.Namespace) -> bool:
    """Error of planted shifts of up to 5 px on low-SNR inputs, in both sets."""
    rng = np.random.default_rng(0)
    targets = [read_image(path).pixels for path in sorted((NUCLEI / "high").glob("*_cap00.tif"))]
    nuclei = [(quick_frame(target, rng), target) for target in targets]
    high = _by_name(CELLS / "high")
    cells = [
        (read_image(path).pixels, read_image(high[name]).pixels)
        for name, path in _by_name(CELLS / "low").items()
    ]
    fine = True
    for name, pairs in ((NUCLEI.name, nuclei), (CELLS.name, cells)):
        errors = []
        for low, target in pairs:
            dy, dx = rng.uniform(-5, 5, 2) * rng.random()
            inside = np.s_[8:-8, 8:-8]
            found = register(low[inside], shifted(target, dy, dx)[inside])
            errors.append(np.inf if found is None else float(np.hypot(found.dy - dy, found.dx - dx)))
        fine &= float(np.median(errors)) <= LARGEST_SHIFT_ERROR
        print(
            f"registration {name}: {len(errors)} planted shifts, error median {np.median(errors):.3f} px, "
            f"largest {max(errors):.3f} px; goal {LARGEST_SHIFT_ERROR:g} px in the median"
        )
    return fine


def memory(options: argparse.Namespace) -> bool:
    """Peak memory of validating so many pairs, and four times as many."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (50, 200):
            root = Path(folder) / str(count)
            _write_dataset(root, count)
            peaks.append(_alone(_validate, root))
    per_pair = (peaks[1] - peaks[0]) / 150
    print(
        f"memory: peak {peaks[0]:.0f} MB for 50 pairs of 512 x 512, {peaks[1]:.0f} MB for 200: "
        f"{per_pair:.2f} MB for each further pair, of 0.5 MB of pixels; goal {MOST_PER_PAIR:g}"
    )
    return per_pair <= MOST_PER_PAIR


def defects(options: argparse.Namespace) -> bool:
    """Defects planted in real pairs at three strengths, and false alarms on the pairs as they are."""
    fine = True
    for root in (NUCLEI, CELLS):
        card = load_card(root)
        files = files_of(root, card)
        clean = measure(files, card)
        report = judge(root, card, clean, ValidationPolicy())
        alarms = [one for one in (*report.rejected, *report.warnings) if one.name is not None]
        told, missed = _told(root, files, clean)
        fine &= not alarms and not missed
        counts = ", ".join(f"{level} {right} of {count}" for level, (right, count) in told.items())
        print(
            f"defects {root.name}: {len(alarms)} false alarms on {len(files)} clean pairs; planted ones pass "
            f"when slight, noticed when middling, refused when strong: {counts}"
        )
    return fine


# Each takes the command line's options, prints, and says whether its goals are met.
SECTIONS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "speed": speed,
    "scale": scale,
    "duplicates": duplicates,
    "registration": registration,
    "memory": memory,
    "defects": defects,
}


def _told(
    root: Path, files: Sequence[PairFiles], clean: Measurements
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """By strength, how many defects the gate answers as it should, of how many; and strong ones it misses."""
    card, told, missed = load_card(root), {}, []
    for level in LEVELS:
        right, count = 0, 0
        for number, defect in enumerate(DEFECTS):
            if getattr(defect, level) is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                pair = planted(defect, level, files[number % len(files)], Path(folder))
                rows = clean.without([pair.name]).plus(measure([pair], card))
            report = judge(root, card, rows, ValidationPolicy())
            found = {
                (one.check, one.severity)
                for one in (*report.rejected, *report.warnings)
                if one.name == pair.name
            }
            severe = ("error",) if level == "strong" else ("warning", "error")
            good = (
                any((defect.check, severity) in found for severity in severe)
                if level != "slight"
                else not found
            )
            right, count = right + good, count + 1
            if not good:
                said = ", ".join(sorted(f"{check} {severity}" for check, severity in found)) or "nothing"
                print(f"  {root.name}, {level} {defect.name}: {said}")
            if level == "strong" and not good:
                missed.append(defect.name)
        told[level] = (right, count)
    return told, missed


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own, whose memory nobody has used before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def _search(count: int) -> tuple[float, float, float, float, float]:
    """Seconds, MB before and at peak, recall and precision of one search."""
    paths = sorted((NUCLEI / "high").glob("*_cap00.tif"))[::2]
    real = [fingerprint(read_image(path).pixels) for path in paths]
    pool = synthetic_fingerprints(count, real, np.random.default_rng(3))
    before, start = _peak(), time.process_time()
    pairs = near_duplicates(pool)
    seconds = time.process_time() - start
    score = ValidationPolicy().near_duplicate_score
    found = {(one.first, one.second) for one in pairs if one.score >= score}
    right = len(found & twins(count))
    return seconds, before, _peak(), right / len(twins(count)), right / max(1, len(found))


def _validate(root: Path) -> float:
    """Peak in MB of one validation."""
    from flows.validation import validate_dataset

    validate_dataset(root, ValidationPolicy(), workers=1)
    return _peak()


def _peak() -> float:
    """Most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent held before it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _write_dataset(root: Path, count: int) -> None:
    """Pairs of different fields: real nuclei, rolled so that none is like another, with quick frames."""
    for side in ("low", "high"):
        (root / side).mkdir(parents=True)
    card = yaml.safe_load((NUCLEI / "card.yaml").read_text()) | {"overlapping": []}
    (root / "card.yaml").write_text(yaml.safe_dump(card))
    rng = np.random.default_rng(0)
    paths = sorted((NUCLEI / "high").glob("*_cap00.tif"))
    for number in range(count):
        target = np.roll(read_image(paths[number % len(paths)]).pixels, rng.integers(0, 512, 2), (0, 1))
        low = np.clip(quick_frame(target, rng), 0, 255)
        for side, pixels in (("low", low), ("high", target)):
            write_tiff(root / side / f"fov{number:03}_cap0.tif", pixels.astype(np.uint8))


def _pairs(root: Path) -> list[PairFiles]:
    """The pairs of a folder, with or without a card; those of one field follow each other."""
    high = _by_name(root / "high")
    return [PairFiles(name, name, None, path, high[name]) for name, path in _by_name(root / "low").items()]


def _by_name(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES))
    return {path.name.split(".")[0]: path for path in paths}


def _read(path: Path) -> np.ndarray:
    with read_stack(path, max_pixels=MAX_PIXELS) as stack:
        return stack.plane(0).pixels


def _megabytes(path: Path) -> float:
    with read_stack(path, max_pixels=MAX_PIXELS) as stack:
        return float(np.prod(stack.shape)) * max(1, np.dtype(stack.dtype).itemsize) / 1e6


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _processor() -> str:
    """The processor's name, where the system tells it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
