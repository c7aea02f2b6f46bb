"""What detectors and scanners leave in an image (H, W): hot and dead pixels, dropped lines, scan stagger,
and fields that show nothing.

Not covered: banding and line noise without lost lines, stagger that varies within a line, clusters of hot
pixels that touch each other, a fixed pattern of the camera under structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

LOCAL_RADIUS = 3  # px, of the window that says how much pixels vary around a suspect
LOCAL_FACTOR = 6.0  # of that window's standard deviation
TAIL_FACTOR = 12.0  # of the median height of local maxima over their neighbours
STRIP = 64  # rows
SUSPECTS = 20_000  # at most looked at; the count is scaled up beyond
LINE_CHANGES = 20  # pixels by which a line must vary to say anything
LINE_SHARE = 0.05  # of its length, likewise
PADDING_SHARE = 0.5  # of a line's length, by which it must vary to show that those up to the border are lost
DARK_LEVEL = 0.25  # of its neighbours' level, of a line that has lost its signal
DARK_DEVIATIONS = 8.0
STAGGER_LINES = 256  # at most compared
STAGGER_BANDS = 8
STAGGER_SIGMA = 2.0  # px, of the Gaussian along the row
STAGGER_REACH = 8  # px, largest shift looked for
STAGGER_STEP = 0.01  # px
STAGGER_SIGNIFICANCE = 10.0  # standard deviations of a chance correlation
CELL = 4  # px, side of the squares whose means are tested for signal
SIGNAL_DEVIATIONS = 5.0


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


@dataclass(frozen=True)
class Stagger:
    """How odd rows lie against even rows, as after a bidirectional scan.

    shift: of odd rows to the right, in px, -8 to 8.
    error: its standard error, in px: large where noise or structure allows no better.
    """

    shift: float
    error: float


def hot_pixels(pixels: np.ndarray) -> float | None:
    """Single pixels that stand out of all 8 neighbours, per megapixel; None for constant or tiny images.

    A pixel is hot if it exceeds its brightest neighbour by six local standard deviations (from the quartiles
    of 7x7 pixels) and by twelve times what local maxima of this image usually exceed theirs by. The first
    spares structure, which an objective never images into one pixel; the second spares images of few photons,
    where many a pixel stands alone.
    """
    side = 2 * LOCAL_RADIUS + 1
    if min(pixels.shape) < side or np.ptp(pixels) == 0:
        return None
    excess = _excess(pixels)
    heights = excess[excess > 0]
    if heights.size == 0:
        return 0.0
    usual = float(np.median(heights[:: max(1, heights.size // 50_000)]))
    suspects = np.argwhere(excess > TAIL_FACTOR * usual) + 1
    looked_at = suspects[:: max(1, -(-len(suspects) // SUSPECTS))]
    if len(looked_at) == 0:
        return 0.0
    windows = _windows(pixels, looked_at)
    lower, upper = np.percentile(windows, (25, 75), axis=1)
    spread = (upper - lower) / 1.349  # a Gaussian's standard deviation
    rows, columns = (looked_at - 1).T
    hot = excess[rows, columns] > LOCAL_FACTOR * spread
    return float(hot.mean() * len(suspects) / excess.size * 1e6)


def dead_pixels(pixels: np.ndarray) -> float | None:
    """The same for single pixels that fall below all 8 neighbours."""
    return hot_pixels(-pixels)


def _excess(pixels: np.ndarray) -> np.ndarray:
    """How far each inner pixel (H-2, W-2) exceeds the brightest of its 8 neighbours."""
    excess = np.empty((pixels.shape[0] - 2, pixels.shape[1] - 2), dtype=pixels.dtype)
    for top in range(0, len(excess), STRIP):  # strips that stay in the processor's cache
        part = pixels[top : top + STRIP + 2]
        sides = np.maximum(part[:, :-2], part[:, 2:])
        triples = np.maximum(sides, part[:, 1:-1])
        neighbours = np.maximum(triples[:-2], triples[2:])
        np.maximum(neighbours, sides[1:-1], out=neighbours)
        np.subtract(part[1:-1, 1:-1], neighbours, out=excess[top : top + STRIP])
    return excess


def _windows(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(K, 49) values around each place; windows at the border are moved inside."""
    side = 2 * LOCAL_RADIUS + 1
    corners = np.clip(places - LOCAL_RADIUS, 0, np.array(pixels.shape) - side)
    down, right = np.divmod(np.arange(side**2), side)
    return pixels[corners[:, :1] + down, corners[:, 1:] + right]


def dropped_rows(pixels: np.ndarray) -> DroppedLines:
    """Rows that are constant, repeat the row before, or are dark, although the rows beside them are not.

    Empty background, where rows are alike by nature, counts for nothing: a row says something only if at
    least 20 of its pixels, and 5 %, differ from the pixel before; beside lines that are lost up to the border
    (padding) it must be half of them.
    """
    changes = np.count_nonzero(pixels[:, 1:] != pixels[:, :-1], axis=1)
    telling = changes >= max(LINE_CHANGES, LINE_SHARE * pixels.shape[1])
    repeated = np.zeros(len(pixels), dtype=bool)
    # most rows differ in their first pixels: compare the few others in full
    first = min(pixels.shape[1], 64)
    alike = 1 + np.flatnonzero((pixels[1:, :first] == pixels[:-1, :first]).all(axis=1))
    repeated[alike] = (pixels[alike] == pixels[alike - 1]).all(axis=1)
    return DroppedLines(
        constant=_bounded_runs(changes == 0, telling, changes > PADDING_SHARE * pixels.shape[1]),
        duplicated=int((repeated & telling).sum()),
        dark=int((_dark(pixels) & (changes > 0)).sum()),
    )


def dropped_columns(pixels: np.ndarray) -> DroppedLines:
    """The same for columns."""
    return dropped_rows(pixels.T)


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
    profile = pixels.mean(axis=1, dtype=np.float64)
    # the background: no single dark line may set it
    level = profile - np.percentile(pixels[:: max(1, len(pixels) // 256)], 1)
    neighbours = np.minimum(level[:-2], level[2:])
    bend = level[1:-1] - (level[:-2] + level[2:]) / 2
    usual = 1.4826 * np.median(np.abs(bend - np.median(bend)))
    dark[1:-1] = (level[1:-1] < DARK_LEVEL * neighbours) & (bend < -DARK_DEVIATIONS * usual)
    return dark


def scan_stagger(pixels: np.ndarray) -> Stagger | None:
    """How far odd rows are shifted to the right against even rows; None without structure along the rows.

    Each odd row is correlated with the mean of the even rows above and below, so that slanted structure
    cancels, on derivatives of a Gaussian along the row, which removes illumination and most noise. The sum of
    all correlations is maximised over the shift; the error is the jackknife's over eight bands of the image.
    """
    height, width = pixels.shape
    if height < 4 * STAGGER_BANDS or width < 4 * STAGGER_REACH:
        return None
    odd = np.arange(1, height - 1, 2)
    odd = odd[:: max(1, -(-len(odd) // STAGGER_LINES))]
    frequency = 2 * np.pi * fft.rfftfreq(width)
    weight = frequency**2 * np.exp(-((frequency * STAGGER_SIGMA) ** 2))
    here, beside = (_row_spectra(rows) for rows in (pixels[odd], pixels[odd - 1] + pixels[odd + 1]))
    bands = np.linspace(0, len(odd), STAGGER_BANDS, endpoint=False).astype(int)
    cross = np.add.reduceat(here * np.conj(beside), bands, axis=0) * weight
    power = np.sqrt(((np.abs(here) ** 2) @ weight).sum() * ((np.abs(beside) ** 2) @ weight).sum())
    if power == 0:
        return None
    total = cross.sum(axis=0)
    shift, peak = _best_shift(total, frequency)
    # chance correlations of rows, each with about width / sigma independent values
    if peak / power * np.sqrt(len(odd) * width / STAGGER_SIGMA) < STAGGER_SIGNIFICANCE:
        return None
    without = np.array([_best_shift(total - band, frequency)[0] for band in cross])
    error = np.sqrt((STAGGER_BANDS - 1) / STAGGER_BANDS * ((without - without.mean()) ** 2).sum())
    return Stagger(shift, float(error))


def _row_spectra(rows: np.ndarray) -> np.ndarray:
    """Fourier transforms of rows without their mean, faded out at both ends."""
    taper = np.hanning(rows.shape[1]).astype(np.float32)
    return fft.rfft((rows - rows.mean(axis=1, keepdims=True)) * taper, axis=1)


def _best_shift(cross: np.ndarray, frequency: np.ndarray) -> tuple[float, float]:
    """The shift in px at which a cross spectrum's correlation is largest, and that correlation."""

    def correlation(shifts: np.ndarray) -> np.ndarray:
        return (np.exp(1j * np.outer(shifts, frequency)) @ cross).real

    shifts, step = np.arange(-STAGGER_REACH, STAGGER_REACH + 0.25, 0.5), 0.5
    values = correlation(shifts)
    while step > STAGGER_STEP:
        step /= 5
        shifts = shifts[np.argmax(values)] + step * np.arange(-5, 6)
        values = correlation(shifts)
    best = int(np.argmax(values))
    return round(float(shifts[best]), 3), float(values[best])


def signal_share(pixels: np.ndarray) -> float | None:
    """Share of the image that is brighter than its background, 0 to 1; None for images under 16 px.

    Means of 4x4 pixels are compared with a smooth background, a quadratic surface fitted to the darker
    of them in turn; brighter means by five standard deviations of the noise, which is read from what
    neighbouring means in the dark half differ by.
    A field without anything in it gives nearly 0 under any smooth illumination; an evenly bright one too.
    """
    height, width = pixels.shape[0] // CELL, pixels.shape[1] // CELL
    if min(height, width) < 4:
        return None
    rows = pixels[: height * CELL, : width * CELL].reshape(height, CELL, width * CELL).sum(axis=1)
    cells = rows.reshape(height, width, CELL).sum(axis=2) / CELL**2
    cells = cells.astype(np.float64)
    if np.ptp(cells) == 0:
        return 0.0
    above = cells - _background(cells)
    return float(np.mean(above > SIGNAL_DEVIATIONS * _dark_noise(cells)))


def _dark_noise(cells: np.ndarray) -> float:
    """Standard deviation of neighbouring means in the darker half, from the median difference."""
    pairs = cells[:, 1:] + cells[:, :-1]
    dark = np.abs(np.diff(cells, axis=1))[pairs <= np.median(pairs)]
    middle = float(np.median(dark))
    # coarse grey levels: most differences are 0, so that only their mean tells
    return 1.4826 / np.sqrt(2) * middle if middle > 0 else float(np.sqrt(np.mean(dark**2) / 2))


def _background(cells: np.ndarray) -> np.ndarray:
    """A quadratic surface through the cells, fitted again and again without those far above it."""
    y, x = (
        axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in cells.shape), indexing="ij")
    )
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    thin = max(1, len(terms) // 4096)
    some, values = terms[::thin], cells.ravel()[::thin]
    kept = values <= np.median(values)
    for _ in range(8):
        surface = np.linalg.lstsq(some[kept], values[kept], rcond=None)[0]
        residual = values - some @ surface
        below = residual[kept & (residual < 0)]
        spread = 1.4826 * np.median(-below) if below.size else 0.0
        again = residual <= 3 * spread
        if again.sum() < 16 or (again == kept).all():
            break
        kept = again
    return (terms @ surface).reshape(cells.shape)
