"""What is kept of an image to recognise its field of view, although cropped, flipped, rotated by 90 degrees,
rescaled in intensity or noisier.

A fingerprint holds the strongest blobs and holes of an image (extrema of a difference of Gaussians, Lowe
2004) at one scale, 6 px, since a crop or a flip leaves the scale alone. Each is described by the angular
Fourier coefficients of rings around it, combined so that none of the 8 symmetries of the square changes them;
dividing by the patch's contrast removes gain and offset. A band-passed thumbnail comes with them for proof.

Which fingerprints belong to the same scene is found in cvdm/inspection/duplicate_search.py.

Not covered: other angles or magnifications, different channels of one field, a different focus, inverted
contrast, images under about 80 px (they have no keypoints).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from cvdm.inspection.blocks import block_means, median

CELL = 4  # px, side of the squares that are averaged before anything else
THUMBNAIL_CELL = 2 * CELL  # px, side of a thumbnail's pixel
STRIP = 16 * CELL  # rows that are averaged together: stay in the processor's cache
DETECTION_SIGMAS = (1.5, 2.5)  # cells, the difference of Gaussians that finds keypoints
DESCRIPTION_SIGMA = 0.8  # cells
RINGS = (1.5, 3.0, 4.5, 6.0, 7.5)  # cells, radii around a keypoint
ANGLES = 16
KEYPOINTS = 300  # at most, per image
QUANTUM = 1 / 32  # of a descriptor's value
THUMBNAIL_QUANTUM = 1 / 100  # of the thumbnail's standard deviation, at which it is also clipped


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of one image: some 20 kB of arrays for 512x512 pixels.

    shape:       (2,) int32, height and width of the image in px.
    keypoints:   (K, 2) float32, row and column in px; K is 0 where the image shows nothing.
    polarity:    (K,) int8, 1 for a blob and -1 for a hole.
    descriptors: (K, D) int8, in steps of QUANTUM.
    thumbnail:   (h, w) int8, the band-passed image in squares of 8 px, clipped at its standard deviation.
    """

    shape: np.ndarray
    keypoints: np.ndarray
    polarity: np.ndarray
    descriptors: np.ndarray
    thumbnail: np.ndarray


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """The fingerprint of an image (H, W) of any unit; the same pixels give the same fingerprint."""
    height, width = pixels.shape
    # Without a large offset float32 keeps faint structure, and a constant image becomes exactly zero.
    middle = median(pixels[::CELL, ::CELL])
    strips = (pixels[top : top + STRIP] - middle for top in range(0, height, STRIP))
    cells = np.concatenate([block_means(strip, CELL) for strip in strips])
    band = _band(cells)
    rows, columns = _extrema(band)
    places = _refined(band, rows, columns)
    thumbnail = block_means(band, THUMBNAIL_CELL // CELL)
    scale = float(thumbnail.std()) if thumbnail.size else 0.0
    if scale > 0:
        thumbnail = np.clip(thumbnail / scale, -1, 1)
    return Fingerprint(
        shape=np.array([height, width], dtype=np.int32),
        keypoints=(places * CELL + (CELL - 1) / 2).astype(np.float32),
        polarity=np.sign(band[rows, columns]).astype(np.int8),
        descriptors=_descriptors(cells, places),
        thumbnail=np.round(thumbnail / THUMBNAIL_QUANTUM).astype(np.int8),
    )


def _band(cells: np.ndarray) -> np.ndarray:
    fine, coarse = DETECTION_SIGMAS
    if cells.size == 0:
        return cells
    smooth = gaussian_filter(cells, fine)
    return smooth - gaussian_filter(smooth, np.sqrt(coarse**2 - fine**2))


def _extrema(band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the strongest extrema whose rings lie inside the image."""
    margin = int(np.ceil(RINGS[-1]))
    if min(band.shape) <= 2 * margin:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    strength = np.abs(band)
    peak = (strength == maximum_filter(strength, 5)) & (strength > 1e-6 * strength.max())
    peak[:margin] = peak[-margin:] = False
    peak[:, :margin] = peak[:, -margin:] = False
    rows, columns = np.nonzero(peak)
    strongest = np.argsort(-strength[rows, columns], kind="stable")[:KEYPOINTS]
    return rows[strongest], columns[strongest]


def _refined(band: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(K, 2) positions of the extrema of parabolas through each extremum and its neighbours."""
    down = _vertex(band[rows - 1, columns], band[rows, columns], band[rows + 1, columns])
    right = _vertex(band[rows, columns - 1], band[rows, columns], band[rows, columns + 1])
    return np.stack([rows + down, columns + right], axis=1)


def _vertex(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    curvature = before - 2 * here + after
    safe = np.where(curvature == 0, 1, curvature)
    return np.where(curvature == 0, 0, np.clip(0.5 * (before - after) / safe, -0.5, 0.5))


def _descriptors(cells: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(K, D) int8: invariants of the rings around each place under the 8 symmetries, gain and offset.

    c_m(r) are the Fourier coefficients of a ring over the angle. A turn by 90 degrees multiplies c_m by i^m
    and a mirror conjugates it, so these stay: c_0 and Re c_4; |Re| and |Im| of c_2; |Im c_4|; the larger and
    the smaller of |Re| and |Im| of c_1 and c_3; and how neighbouring rings are turned against each other,
    Re c_m(r) c_m(r')*.
    """
    if len(places) == 0:
        return np.empty((0, len(RINGS) * 9 + (len(RINGS) - 1) * 3), dtype=np.int8)
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    radii = np.array(RINGS)[:, None]
    rows = places[:, :1, None] + radii * np.sin(angles)
    columns = places[:, 1:, None] + radii * np.cos(angles)
    smooth = gaussian_filter(cells, DESCRIPTION_SIGMA)
    rings = map_coordinates(smooth, [rows, columns], order=1, mode="nearest")  # (K, R, A)
    rings = rings - rings.mean(axis=(1, 2), keepdims=True)
    contrast = np.sqrt((rings**2).mean(axis=(1, 2), keepdims=True))
    rings /= np.where(contrast > 0, contrast, 1)
    c = np.fft.rfft(rings, axis=2) / ANGLES
    real, imaginary = np.abs(c.real), np.abs(c.imag)
    parts = [c[..., 0].real, c[..., 4].real, imaginary[..., 4], real[..., 2], imaginary[..., 2]]
    for m in (1, 3):
        parts += [np.maximum(real, imaginary)[..., m], np.minimum(real, imaginary)[..., m]]
    for m in (1, 2, 3):
        turn = (c[:, :-1, m] * np.conj(c[:, 1:, m])).real
        parts.append(np.sign(turn) * np.sqrt(np.abs(turn)))
    values = np.concatenate(parts, axis=1) / QUANTUM
    return np.clip(np.round(values), -127, 127).astype(np.int8)
