"""Rows and columns of an image (H, W) that a detector or a file transfer has lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvdm.inspection.blocks import median

LINE_CHANGES = 20  # pixels by which a line must vary to say anything
LINE_SHARE = 0.05  # of its length, likewise
PADDING_SHARE = 0.5  # of a line's length, by which it must vary to show that those up to the border are lost
DARK_LEVEL = 0.25  # of its neighbours' level, of a line that has lost its signal
DARK_DEVIATIONS = 8.0
FEW_PIXELS = 64  # of a line, up to twice as many, that are looked at first
BACKGROUND_LINES = 128  # in each direction, up to twice as many: where the background is read


@dataclass(frozen=True)
class DroppedLines:
    """Lines of one direction that a detector or a file transfer has lost.

    constant:   lines of one value beside lines that vary.
    duplicated: lines equal to the one before.
    dark:       lines that vary but hold under a quarter of their neighbours' signal.
    """

    constant: int
    duplicated: int
    dark: int

    @property
    def total(self) -> int:
        """Lines of any kind."""
        return self.constant + self.duplicated + self.dark


def dropped_rows(pixels: np.ndarray) -> DroppedLines:
    """Rows that are constant, repeat the row before, or are dark, although the rows beside them are not.

    Empty background, where rows are alike by nature, counts for nothing: a row says something only if at
    least 20 of its pixels, and 5 %, differ from the pixel before; beside lines that are lost up to the border
    (padding) it must be half of them.
    """
    # a few pixels clear most rows: look at the others in full
    few = pixels[:, :: max(1, pixels.shape[1] // FEW_PIXELS)]
    flat = (few == few[:, :1]).all(axis=1)
    repeated = np.zeros(len(pixels), dtype=bool)
    alike = 1 + np.flatnonzero((few[1:] == few[:-1]).all(axis=1))
    repeated[alike] = (pixels[alike] == pixels[alike - 1]).all(axis=1)
    dark = _dark(pixels)
    changes = _changes(pixels, flat | repeated | dark)
    telling = changes >= max(LINE_CHANGES, LINE_SHARE * pixels.shape[1])
    return DroppedLines(
        constant=_bounded_runs(changes == 0, telling, changes > PADDING_SHARE * pixels.shape[1]),
        duplicated=int((repeated & telling).sum()),
        dark=int((dark & (changes > 0)).sum()),
    )


def dropped_columns(pixels: np.ndarray) -> DroppedLines:
    """The same for columns."""
    return dropped_rows(pixels.T)


def _changes(pixels: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    """How many pixels of each row differ from the one before, where the row or one beside it is suspect.

    Other rows count as changing everywhere; nothing depends on them.
    """
    changes = np.full(len(pixels), pixels.shape[1])
    asked = suspect.copy()
    asked[1:] |= suspect[:-1]
    asked[:-1] |= suspect[1:]
    rows = pixels[asked]
    changes[asked] = np.count_nonzero(rows[:, 1:] != rows[:, :-1], axis=1)
    return changes


def _bounded_runs(flat: np.ndarray, telling: np.ndarray, busy: np.ndarray) -> int:
    """Lines in runs of flat lines between two telling lines, or between the border and a busy line."""
    edges = np.flatnonzero(np.diff(np.r_[0, flat.astype(np.int8), 0]))
    count = 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        beside = [line for line in (start - 1, stop) if 0 <= line < len(flat)]
        enough = telling if len(beside) == 2 else busy
        if beside and all(enough[line] for line in beside):
            count += int(stop - start)
    return count


def _dark(pixels: np.ndarray) -> np.ndarray:
    """Which rows hold far less signal than both neighbours, beyond what rows differ by in this image."""
    dark = np.zeros(len(pixels), dtype=bool)
    if len(pixels) < 8:
        return dark
    # sums of short whole numbers need no fractions
    sums = pixels.sum(axis=1, dtype=np.uint32 if pixels.dtype == np.uint8 else np.float64)
    profile = sums / pixels.shape[1]
    # the background: no single dark line may set it
    rows, columns = (max(1, length // BACKGROUND_LINES) for length in pixels.shape)
    some = pixels[::rows, ::columns]
    level = profile - float(np.partition(some, some.size // 100, axis=None)[some.size // 100])
    neighbours = np.minimum(level[:-2], level[2:])
    bend = level[1:-1] - (level[:-2] + level[2:]) / 2
    usual = 1.4826 * median(np.abs(bend - median(bend)))
    dark[1:-1] = (level[1:-1] < DARK_LEVEL * neighbours) & (bend < -DARK_DEVIATIONS * usual)
    return dark
