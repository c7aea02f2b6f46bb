"""How one image lies on another that shows a part of it: matched keypoints vote (Hough transform).

Each match stands for 8 displacements, one for each symmetry of the square; the bin of displacements that most
matches of two images fall into is their geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VOTE_SIDE = 12.0  # px, of a bin of displacements
FEWEST_VOTES = 3
MATCHES_AT_ONCE = 25_000  # that vote together: bounds memory, 2 kB each

# The 8 symmetries of the square, acting on (row, column).
SYMMETRIES = tuple(
    np.array([[a, 0], [0, b]] if upright else [[0, a], [b, 0]], dtype=np.float64)
    for upright in (True, False)
    for a in (1, -1)
    for b in (1, -1)
)


@dataclass(frozen=True)
class Geometry:
    """place in second = SYMMETRIES[symmetry] @ (place in first) + displacement, in px.

    first, second: numbers of the images.
    votes:         different keypoints that agree.
    """

    first: int
    second: int
    symmetry: int
    displacement: np.ndarray
    votes: int

    @property
    def matrix(self) -> np.ndarray:
        """(2, 2), the symmetry; its inverse is its transpose."""
        return SYMMETRIES[self.symmetry]


def elected(image: np.ndarray, places: np.ndarray, codes: np.ndarray) -> Iterator[Geometry]:
    """For each pair of images with enough agreeing matches the geometry that most of them vote for.

    image, places: (K,) ascending and (K, 2), of all keypoints.
    codes:         (M,) int64, ascending: lower keypoint * K + higher one, of different images.
    """
    if len(codes) == 0:
        return
    first_image = image[codes[::MATCHES_AT_ONCE] // len(image)]
    # matches of one pair of images lie between those of the image before and after
    firsts = np.searchsorted(image, np.unique(first_image)).astype(np.int64) * len(image)
    cuts = np.searchsorted(codes, firsts)
    for start, stop in zip(cuts, [*cuts[1:], len(codes)], strict=True):
        some = np.stack(np.divmod(codes[start:stop], len(image)), axis=1)
        pair = image[some] @ np.array([int(image[-1]) + 1, 1], dtype=np.int64)
        order = np.argsort(pair, kind="stable")
        pair = pair[order]
        counts = np.diff(np.r_[_run_starts(pair), len(pair)])
        enough = np.repeat(counts >= FEWEST_VOTES, counts)
        if enough.any():
            yield from _winners(pair[enough], some[order[enough]], places, int(image[-1]) + 1)


def _run_starts(values: np.ndarray) -> np.ndarray:
    """Indices at which another value begins."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]])


def _winners(pair: np.ndarray, matches: np.ndarray, places: np.ndarray, images: int) -> Iterator[Geometry]:
    """The winner of each pair of images; bins overlap by half, so that no cluster of votes is cut."""
    names, local = np.unique(pair, return_inverse=True)
    one, other = (places[side] for side in matches.T)
    displacements = np.stack([other - one @ symmetry.T for symmetry in SYMMETRIES])  # (8, M, 2)
    half = np.array([(0, 0), (0, 1), (1, 0), (1, 1)]) / 2
    bins = np.floor(displacements[:, None] / VOTE_SIDE + half[None, :, None]).astype(np.int64)  # (8, 4, M, 2)
    bins -= bins.min(axis=(0, 1, 2))
    rows, columns = bins.max(axis=(0, 1, 2)) + 1
    kind = np.arange(32).reshape(8, 4, 1)
    code = ((local * 32 + kind) * rows + bins[..., 0]) * columns + bins[..., 1]
    order = np.argsort(code, axis=None, kind="stable")
    value = code.ravel()[order]
    starts = _run_starts(value)
    sizes = np.diff(np.r_[starts, len(value)])
    owner = value[starts] // (32 * rows * columns)
    largest = np.lexsort((sizes, owner))
    winners = largest[np.r_[owner[largest][1:] != owner[largest][:-1], True]]
    for winner in winners[sizes[winners] >= FEWEST_VOTES]:
        members = order[starts[winner] : starts[winner] + sizes[winner]]
        symmetry, voters = int(members[0] // (4 * len(pair))), members % len(pair)
        # one keypoint that resembles many must not vote many times
        votes = min(len(np.unique(matches[voters, side])) for side in (0, 1))
        if votes >= FEWEST_VOTES:
            first, second = divmod(int(names[owner[winner]]), images)
            displacement = np.median(displacements[symmetry, voters], axis=0)
            yield Geometry(first, second, symmetry, displacement, votes)
