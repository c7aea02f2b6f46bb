"""How evenly a field is lit, and where an image's zero lies.

One image confounds its illumination with what it shows; the mean of many different fields of a session does
not. `FlatField` adds images up on a grid of 32x32 cells, so its memory depends neither on how many
there are nor on their size. A quadratic surface through the grid stands for the illumination: vignetting,
tilt and a shifted centre, but no fringes or dust.

Shading is stated relative to the light above `offset`, the camera's dark level; with a wrong offset shading
seems weaker (too low an offset) or stronger than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 32  # cells on each side
ROWS = 512  # of an image that are looked at, up to twice as many
MODE_SAMPLE = 2**15  # pixels


@dataclass(frozen=True)
class Shading:
    """Unevenness of the illumination.

    non_uniformity: (brightest - darkest) / mean of the fitted surface; 0 is even.
    falloff:        1 - mean of the four corners / centre: vignetting is positive, a dark centre negative.
    falloff_error:  standard error of falloff, from how much single images differ; None for a single image.
                    It does not know of specimens that a person has moved into the centre every time.
    tilt:           difference of the surface's opposite sides over its mean, the larger of both directions.
    explained:      share of the grid's variance that the surface explains, 0 to 1: near 0 the numbers above
                    describe structure, not light.
    """

    non_uniformity: float
    falloff: float
    falloff_error: float | None
    tilt: float
    explained: float


@dataclass(frozen=True)
class FlatField:
    """The sum of images on a grid, each divided by its own mean.

    total: (32, 32) float64, sum of relative brightness.
    drops: (2, 2) float64, sum over images of the products of their surfaces' loss and centre, for the error.
    count: images added.
    """

    total: np.ndarray
    drops: np.ndarray
    count: int

    @staticmethod
    def empty() -> FlatField:
        """A sum of no images."""
        return FlatField(np.zeros((GRID, GRID)), np.zeros((2, 2)), 0)

    def plus(self, pixels: np.ndarray, *, offset: float = 0.0) -> FlatField:
        """The sum with one more image (H, W) of any size; one without light above offset changes nothing."""
        cells = _grid(pixels) - offset
        mean = cells.mean()
        if not mean > 0:
            return self
        drop = _drop(cells / mean)
        return FlatField(self.total + cells / mean, self.drops + np.outer(drop, drop), self.count + 1)

    def shading(self) -> Shading | None:
        """The shading of the mean of all images; None before the first."""
        return _shading(self.total / self.count, self._falloff_error()) if self.count else None

    def _falloff_error(self) -> float | None:
        """Of the ratio of two sums, loss over centre (Cochran 1977, eq. 6.11)."""
        loss, centre = _drop(self.total / self.count)
        if self.count < 2 or not centre > 0:
            return None
        against = np.array([1.0, -loss / centre])
        variance = against @ self.drops @ against / (self.count - 1)
        return float(np.sqrt(max(0.0, variance) / self.count) / centre)


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
    """(32, 32) float64 means of cells of nearly equal size; smaller images repeat pixels.

    Of large images every n-th row is enough for means of so many pixels.
    """
    pixels = pixels[:: max(1, pixels.shape[0] // ROWS)]
    rows = _edges(pixels.shape[0])
    columns = _edges(pixels.shape[1])
    sums = np.add.reduceat(pixels, rows[0], axis=0)
    sums = np.add.reduceat(sums, columns[0], axis=1, dtype=np.float64)
    return sums / rows[1][:, None] / columns[1]


def _edges(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where cells start and how long they are; of an empty cell `np.add.reduceat` takes one pixel."""
    edges = np.arange(GRID + 1) * length // GRID
    return edges[:-1], np.maximum(np.diff(edges), 1)


def _surface_terms() -> np.ndarray:
    """(1024, 6): 1, x, y, x^2, xy, y^2 at the cells' centres, the image reaching from -1 to 1."""
    centres = (np.arange(GRID) + 0.5) * 2 / GRID - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)


TERMS = _surface_terms()
FIT = np.linalg.pinv(TERMS)


def _drop(cells: np.ndarray) -> np.ndarray:
    """(2,) what the surface loses from the centre to the mean corner, and its value in the centre."""
    constant, _, _, across, _, along = FIT @ cells.ravel()
    # over the four corners the linear and the mixed terms cancel
    return np.array([-(across + along), constant])


def _shading(cells: np.ndarray, falloff_error: float | None) -> Shading:
    values = cells.ravel()
    coefficients = FIT @ values
    surface = TERMS @ coefficients
    variance, mean = values.var(), surface.mean()
    loss, centre = _drop(cells)
    return Shading(
        non_uniformity=float(np.ptp(surface) / mean),
        falloff=float(loss / centre) if centre > 0 else 0.0,
        falloff_error=falloff_error,
        tilt=float(2 * np.abs(coefficients[1:3]).max() / mean),
        explained=float(surface.var() / variance) if variance > 1e-12 * mean**2 else 0.0,
    )
