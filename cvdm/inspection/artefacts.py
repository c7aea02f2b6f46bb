"""Single pixels of an image (H, W) that lie, hot or dead; and fields that show nothing.

Not covered: clusters of hot pixels that touch each other, a fixed pattern of the camera under structure.
"""

from __future__ import annotations

import math

import numpy as np

from cvdm.inspection.blocks import block_means, median

LOCAL_RADIUS = 3  # px, of the window that says how much pixels vary around a suspect
LOCAL_FACTOR = 6.0  # of that window's standard deviation
TAIL_FACTOR = 12.0  # of the median height of local maxima over their neighbours
STRIP = 64  # rows
HEIGHTS = 2**17  # pixels among which local maxima are looked for, up to twice as many
SUSPECTS = 20_000  # at most looked at; the count is scaled up beyond
CELL = 4  # px, side of the squares whose means are tested for signal
SIGNAL_DEVIATIONS = 5.0
DIFFERENCES = 2**16  # of neighbouring squares, up to twice as many: for the noise
FITTED = 2048  # squares that the background is fitted to, up to twice as many
RIDGE = 1e-10  # of the fit: what the cells leave open, as in a single column of them, comes out as 0
SETTLED = 0.002  # of them, that may still change sides when the fit ends


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
    heights = _heights(excess)
    if heights.size == 0:
        return 0.0
    limit = TAIL_FACTOR * median(heights)
    # whole numbers are compared with a whole one, lest all of them are turned into fractions
    found = np.flatnonzero(excess > (math.floor(limit) if excess.dtype.kind == "u" else limit))
    suspects = np.stack(np.divmod(found, excess.shape[1]), axis=1) + 1
    looked_at = suspects[:: max(1, -(-len(suspects) // SUSPECTS))]
    if len(looked_at) == 0:
        return 0.0
    windows = _windows(pixels, looked_at)
    quarter = windows.shape[1] // 4
    windows.sort(axis=1)  # so few values are sorted quicker than they are parted
    quartiles = windows[:, 3 * quarter] - windows[:, quarter]
    spread = quartiles.astype(np.float32) / 1.349  # a Gaussian's standard deviation
    rows, columns = (looked_at - 1).T
    hot = excess[rows, columns] > LOCAL_FACTOR * spread
    return float(hot.mean() * len(suspects) / excess.size * 1e6)


def _excess(pixels: np.ndarray) -> np.ndarray:
    """How far each inner pixel (H-2, W-2) exceeds the brightest of its 8 neighbours; 0 where it does not."""
    excess = np.empty((pixels.shape[0] - 2, pixels.shape[1] - 2), dtype=pixels.dtype)
    for top in range(0, len(excess), STRIP):  # strips that stay in the processor's cache
        part = pixels[top : top + STRIP + 2]
        sides = np.maximum(part[:, :-2], part[:, 2:])
        triples = np.maximum(sides, part[:, 1:-1])
        neighbours = np.maximum(triples[:-2], triples[2:])
        np.maximum(neighbours, sides[1:-1], out=neighbours)
        highest = np.maximum(part[1:-1, 1:-1], neighbours)
        np.subtract(highest, neighbours, out=excess[top : top + STRIP])
    return excess


def _heights(excess: np.ndarray) -> np.ndarray:
    """How far local maxima exceed their neighbours (N,); those of some rows where these hold any."""
    every = excess.size // HEIGHTS
    if every > 1:
        some = excess[::every]
        heights = some[some > 0]
        if heights.size:
            return heights
    # no two local maxima touch: the larger of two rows loses none, and is half as much to look through
    even = len(excess) // 2 * 2
    parts = np.maximum(excess[:even:2], excess[1:even:2]), excess[even:]
    return np.concatenate([part.ravel()[np.flatnonzero(part > 0)] for part in parts])


def _windows(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(K, 49) values around each place; windows at the border are moved inside."""
    side = 2 * LOCAL_RADIUS + 1
    corners = np.clip(places - LOCAL_RADIUS, 0, np.array(pixels.shape) - side)
    down, right = np.divmod(np.arange(side**2), side)
    return pixels[corners[:, :1] + down, corners[:, 1:] + right]


def signal_share(pixels: np.ndarray) -> float | None:
    """Share of the image that is brighter than its background, 0 to 1; None for images under 16 px.

    Means of 4x4 pixels are compared with a smooth background, a quadratic surface fitted to the darker
    of them in turn; brighter means by five standard deviations of the noise, which is read from what
    neighbouring means in the dark half differ by.
    A field without anything in it gives nearly 0 under any smooth illumination; an evenly bright one too.
    """
    if min(pixels.shape) < 4 * CELL:
        return None
    cells = block_means(pixels, CELL)
    if np.ptp(cells) == 0:
        return 0.0
    bright = cells > _background(cells) + SIGNAL_DEVIATIONS * dark_noise(cells)
    return np.count_nonzero(bright) / cells.size


def dark_noise(cells: np.ndarray) -> float:
    """Standard deviation of neighbouring means in the darker half, from the median difference."""
    cells = cells[:: max(1, cells.size // DIFFERENCES)]
    pairs = cells[:, 1:] + cells[:, :-1]
    dark = np.abs(np.diff(cells, axis=1)).ravel()[np.flatnonzero(pairs <= median(pairs))]
    middle = median(dark)
    # coarse grey levels: most differences are 0, so that only their mean tells
    return 1.4826 / np.sqrt(2) * middle if middle > 0 else float(np.sqrt(np.mean(dark**2) / 2))


def _background(cells: np.ndarray) -> np.ndarray:
    """A quadratic surface through the cells, fitted again and again without those far above it."""
    y, x = (np.linspace(-1, 1, length) for length in cells.shape)
    places = np.arange(0, cells.size, max(1, cells.size // FITTED))
    down, right = np.divmod(places, len(x))
    terms, values = _quadratic(y[down], x[right]), cells.ravel()[places].astype(np.float64)  # (6, N), (N,)
    kept = values <= median(values)
    surface = np.zeros(len(terms))
    for _ in range(8):
        places = np.flatnonzero(kept)
        used = terms.take(places, axis=1)
        normal = used @ used.T
        normal.flat[:: len(normal) + 1] += RIDGE * np.trace(normal)
        surface = np.linalg.solve(normal, used @ values[places])
        residual = values - surface @ terms
        below = residual[kept & (residual < 0)]
        spread = -1.4826 * median(below) if below.size else 0.0
        again = residual <= 3 * spread
        changed = np.count_nonzero(again != kept)
        if changed <= SETTLED * len(values) or np.count_nonzero(again) < 16:
            break
        kept = again
    one, first, second, first_first, both, second_second = surface
    rows = one + first * x + first_first * x * x
    return np.asarray(rows + np.outer(y, second + both * x) + (second_second * y * y)[:, None])


def _quadratic(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(6, N): 1, x, y, x^2, xy, y^2."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
