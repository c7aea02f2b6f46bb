"""How evenly a field is lit, and where an image's zero lies.

One image confounds its illumination with what it shows; the mean of many different fields of a session does
not. `FlatField` adds images up on a grid of 32x32 cells, so its memory depends neither on how many
there are nor on their size. A quadratic surface through the grid stands for the illumination: vignetting, tilt and a shifted
centre, but no fringes or dust.

Shading is stated relative to the light above `offset`, the camera's dark level; with a wrong offset shading
seems weaker (too low an offset) or stronger than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 32  # cells on each side
MODE_SAMPLE = 2**16  # pixels


@dataclass(frozen=True)
class Shading:
    """Unevenness of the illumination.

    non_uniformity: (brightest - darkest) / mean of the fitted surface; 0 is even.
    falloff:        1 - mean of the four corners / centre: vignetting is positive, a dark centre negative.
    tilt:           difference of the surface's opposite sides over its mean, the larger of both directions.
    explained:      share of the grid's variance that the surface explains, 0 to 1: near 0 the numbers above
                    describe structure, not light.
    """

    non_uniformity: float
    falloff: float
    tilt: float
    explained: float


@dataclass(frozen=True)
class FlatField:
    """The sum of images on a grid, each divided by its own mean.

    total: (32, 32) float64, sum of relative brightness.
    count: images added.
    """

    total: np.ndarray
    count: int

    @staticmethod
    def empty() -> FlatField:
        """A sum of no images."""
        return FlatField(np.zeros((GRID, GRID)), 0)

    def plus(self, pixels: np.ndarray, *, offset: float = 0.0) -> FlatField:
        """The sum with one more image (H, W) of any size; one without light above offset changes nothing."""
        cells = _grid(pixels) - offset
        mean = cells.mean()
        if not mean > 0:
            return self
        return FlatField(self.total + cells / mean, self.count + 1)

    def shading(self) -> Shading | None:
        """The shading of the mean of all images; None before the first."""
        return _shading(self.total / self.count) if self.count else None


def shading(pixels: np.ndarray, *, offset: float = 0.0) -> Shading | None:
    """The shading of one image (H, W), confounded with its structure; None without light above offset."""
    return FlatField.empty().plus(pixels, offset=offset).shading()


def background_offset(pixels: np.ndarray) -> float:
    """The most common value of the darker half of an image, in its units.

    The half-sample mode (Robertson & Cryer 1974): the densest half of the sorted values is halved again until
    few are left. Neither bright structure nor a tail of dark outliers moves it, unlike a mean or a minimum.
    """
    some = pixels.ravel()[:: max(1, -(-pixels.size // MODE_SAMPLE))]
    values = np.sort(some)[: some.size // 2 + 1].astype(np.float64)
    while len(values) > 3:
        half = (len(values) + 1) // 2
        widths = values[half - 1 :] - values[: len(values) - half + 1]
        narrowest = np.flatnonzero(widths == widths.min())
        # equal grey levels give many narrowest halves: the middle one has no bias
        start = narrowest[len(narrowest) // 2]
        values = values[start : start + half]
    return float(values.mean())


def _grid(pixels: np.ndarray) -> np.ndarray:
    """(32, 32) float64 means of cells of nearly equal size; smaller images repeat pixels."""
    rows = _edges(pixels.shape[0])
    columns = _edges(pixels.shape[1])
    sums = np.add.reduceat(pixels, rows[0], axis=0)
    sums = np.add.reduceat(sums, columns[0], axis=1, dtype=np.float64)
    return sums / rows[1][:, None] / columns[1]


def _edges(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where cells start and how long they are; of an empty cell `np.add.reduceat` takes one pixel."""
    edges = np.arange(GRID + 1) * length // GRID
    return edges[:-1], np.maximum(np.diff(edges), 1)


def _shading(cells: np.ndarray) -> Shading:
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, GRID)], indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    values = cells.ravel()
    coefficients = np.linalg.lstsq(terms, values, rcond=None)[0]
    surface = terms @ coefficients
    constant, right, down, across, _, along = coefficients
    variance = values.var()
    mean = surface.mean()
    # the mixed term cancels over the corners, the linear ones too
    corners = constant + across + along
    return Shading(
        non_uniformity=float(np.ptp(surface) / mean),
        falloff=float(1 - corners / constant) if constant > 0 else 0.0,
        tilt=float(2 * max(abs(right), abs(down)) / mean),
        explained=float(surface.var() / variance) if variance > 1e-12 * mean**2 else 0.0,
    )
