"""Which images show the same field of view, although cropped, flipped, rotated by 90 degrees, rescaled in
intensity or noisier.

A fingerprint holds the strongest blobs and holes of an image (extrema of a difference of Gaussians, Lowe
2004) at one scale, 6 px, since a crop or a flip leaves the scale alone. Each is described by the angular
Fourier coefficients of rings around it, combined so that none of the 8 symmetries of the square changes them;
dividing by the patch's contrast removes gain and offset. A band-passed thumbnail comes with them for proof.

Finding duplicates among n images takes time proportional to n log n:
1. Descriptors are sorted by the signs of random projections (Charikar 2002), several times over; neighbours
   in a sorted list are likely to be alike, and only a fixed number of neighbours is looked at.
2. The matches of two images vote for one of 8 symmetries and a displacement (Hough transform).
3. The thumbnails are correlated over the area that this geometry says is shared.

Not covered: other angles or magnifications, different channels of one field, a different focus, inverted
contrast, images under about 80 px (they have no keypoints), shared areas under about a tenth of a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

CELL = 4  # px, side of the squares that are averaged before anything else
THUMBNAIL_CELL = 2 * CELL  # px, side of a thumbnail's pixel
DETECTION_SIGMAS = (1.5, 2.5)  # cells, the difference of Gaussians that finds keypoints
DESCRIPTION_SIGMA = 0.8  # cells
RINGS = (1.5, 3.0, 4.5, 6.0, 7.5)  # cells, radii around a keypoint
ANGLES = 16
KEYPOINTS = 300  # at most, per image
QUANTUM = 1 / 32  # of a descriptor's value
THUMBNAIL_QUANTUM = 1 / 100  # of the thumbnail's standard deviation, at which it is also clipped

COMPONENTS = 24  # of the descriptors' variance, that neighbours are sought in
BITS = 30
TABLES = 8
NEIGHBOURS = 3  # on each side of a descriptor in a sorted table
DESCRIPTOR_DISTANCE = 2.6  # 95 % of true matches lie below, four fifths of chance matches above
VOTE_SIDE = 12.0  # px, of a bin of displacements
FEWEST_VOTES = 3
PAIRS_AT_ONCE = 250_000  # matches that vote together: bounds memory
INDEPENDENT = 16  # thumbnail pixels that count as one observation, for the width of the band
SMALLEST_SHARED = 4  # observations, below which no correlation is taken

# The 8 symmetries of the square, acting on (row, column).
SYMMETRIES = tuple(
    np.array([[a, 0], [0, b]] if upright else [[0, a], [b, 0]], dtype=np.float64)
    for upright in (True, False)
    for a in (1, -1)
    for b in (1, -1)
)


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


@dataclass(frozen=True)
class Duplicate:
    """Two images that seem to share a part of their field of view.

    first, second: names, first < second.
    score:         0 to 1: what the correlation is at least (two standard errors of Fisher's z below), times
                   matches / (matches + 1), so that neither a small shared area nor few keypoints score high.
    matches:       keypoints that agree on one geometry.
    correlation:   of the two thumbnails over the shared area, -1 to 1.
    overlap:       shared area as a fraction of the smaller image, 0 to 1.
    mirrored:      whether one is a mirror image of the other.
    """

    first: str
    second: str
    score: float
    matches: int
    correlation: float
    overlap: float
    mirrored: bool


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """The fingerprint of an image (H, W) of any unit; the same pixels give the same fingerprint."""
    height, width = pixels.shape
    # Without a large offset float32 keeps faint structure, and a constant image becomes exactly zero.
    cells = _averaged(pixels - np.median(pixels[::CELL, ::CELL]), CELL)
    band = _band(cells)
    rows, columns = _extrema(band)
    places = _refined(band, rows, columns)
    thumbnail = _averaged(band, THUMBNAIL_CELL // CELL)
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


def near_duplicates(fingerprints: Mapping[str, Fingerprint]) -> list[Duplicate]:
    """Pairs that share a part of their field, the highest score first.

    Every pair that three keypoints speak for is returned, chance pairs of low score among them. Of n copies
    with equal fingerprints each is compared with the first only: `groups` says what belongs together.
    """
    representatives, copies = _distinct(fingerprints)
    pool = _Pool.of([fingerprints[name] for name in representatives])
    found = list(copies)
    if pool is not None:
        for hypothesis in _hypotheses(pool, _matches(pool)):
            first, second = representatives[hypothesis.first], representatives[hypothesis.second]
            found.append(_proven(fingerprints, first, second, hypothesis))
    return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def groups(duplicates: Iterable[Duplicate]) -> list[tuple[str, ...]]:
    """Names that the given pairs connect, directly or through others: sorted, each name in one group."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for pair in duplicates:
        parent[root(pair.second)] = root(pair.first)
    members: dict[str, list[str]] = {}
    for name in sorted(parent):
        members.setdefault(root(name), []).append(name)
    return sorted(tuple(group) for group in members.values())


# Fingerprints


def _averaged(image: np.ndarray, side: int) -> np.ndarray:
    """Means of squares of `side` px; an incomplete last row or column of squares is left out."""
    height, width = image.shape[0] // side, image.shape[1] // side
    rows = image[: height * side, : width * side].reshape(height, side, width * side).sum(axis=1)
    return (rows.reshape(height, width, side).sum(axis=2) / side**2).astype(np.float32)


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


# Search


@dataclass(frozen=True)
class _Pool:
    """All keypoints of all images, K in total: image (K,), places (K, 2), polarity (K,), vectors (K, C)."""

    image: np.ndarray
    places: np.ndarray
    polarity: np.ndarray
    vectors: np.ndarray

    @staticmethod
    def of(fingerprints: list[Fingerprint]) -> _Pool | None:
        counts = [len(one.keypoints) for one in fingerprints]
        if sum(count > 0 for count in counts) < 2:
            return None
        return _Pool(
            image=np.repeat(np.arange(len(counts)), counts),
            places=np.concatenate([one.keypoints for one in fingerprints]).astype(np.float64),
            polarity=np.concatenate([one.polarity for one in fingerprints]),
            vectors=_condensed(np.concatenate([one.descriptors for one in fingerprints])),
        )


def _condensed(descriptors: np.ndarray) -> np.ndarray:
    """(K, C) float32: the leading principal components of the pool's descriptors, half whitened."""
    some = descriptors[:: max(1, len(descriptors) // 20_000)].astype(np.float32)
    centre, spread = np.median(some, axis=0), some.std(axis=0)
    spread[spread == 0] = 1
    standard = (some - centre) / spread
    variance, axes = np.linalg.eigh(standard.T @ standard / len(standard))
    variance, axes = variance[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
    weights = axes / np.maximum(variance, 1e-3 * variance[0] + 1e-12) ** 0.25
    vectors = np.empty((len(descriptors), weights.shape[1]), dtype=np.float32)
    for start in range(0, len(descriptors), 100_000):
        part = slice(start, start + 100_000)
        vectors[part] = ((descriptors[part] - centre) / spread) @ weights
    return vectors


def _distinct(fingerprints: Mapping[str, Fingerprint]) -> tuple[list[str], list[Duplicate]]:
    """One name for each fingerprint that has keypoints, and the copies of it as duplicates."""
    first: dict[tuple[bytes, ...], str] = {}
    copies = []
    for name in sorted(fingerprints):
        one = fingerprints[name]
        if len(one.keypoints) == 0:
            continue
        content = (one.shape.tobytes(), one.keypoints.tobytes(), one.thumbnail.tobytes())
        original = first.setdefault(content, name)
        if original != name:
            votes = len(one.keypoints)
            copies.append(Duplicate(original, name, votes / (votes + 1), votes, 1.0, 1.0, False))
    return list(first.values()), copies


def _matches(pool: _Pool) -> np.ndarray:
    """(M, 2) indices of keypoints of different images that look alike; the first image's index is lower."""
    rng = np.random.default_rng(0)
    found = [np.empty((0, 2), dtype=np.int64)]
    powers = 1 << np.arange(BITS, dtype=np.int64)
    for _ in range(TABLES):
        projections = rng.normal(size=(pool.vectors.shape[1], BITS)).astype(np.float32)
        key = np.zeros(len(pool.vectors), dtype=np.int64)
        for bit, power in zip(projections.T, powers, strict=True):
            key += (pool.vectors @ bit > 0) * power
        key += (pool.polarity > 0).astype(np.int64) << BITS
        order = np.argsort(key, kind="stable")
        for step in range(1, NEIGHBOURS + 1):
            found.append(_alike(pool, order[:-step], order[step:]))
    matches = np.concatenate(found)
    code = np.unique(matches[:, 0] * len(pool.image) + matches[:, 1])
    return np.stack(np.divmod(code, len(pool.image)), axis=1)


def _alike(pool: _Pool, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Those of the given pairs of keypoints whose images differ and whose descriptors are near."""
    different = (pool.image[one] != pool.image[other]) & (pool.polarity[one] == pool.polarity[other])
    pairs = np.sort(np.stack([one[different], other[different]], axis=1), axis=1)
    near = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        gap = pool.vectors[part[:, 0]] - pool.vectors[part[:, 1]]
        near.append(part[np.einsum("ij,ij->i", gap, gap) < DESCRIPTOR_DISTANCE**2])
    return np.concatenate(near)


@dataclass(frozen=True)
class _Hypothesis:
    """place in second = SYMMETRIES[symmetry] @ (place in first) + displacement."""

    first: int
    second: int
    symmetry: int
    displacement: np.ndarray
    votes: int


def _hypotheses(pool: _Pool, matches: np.ndarray) -> Iterator[_Hypothesis]:
    """For each pair of images with enough agreeing matches the geometry that most of them vote for."""
    images = int(pool.image[-1]) + 1
    pair = pool.image[matches[:, 0]].astype(np.int64) * images + pool.image[matches[:, 1]]
    order = np.argsort(pair, kind="stable")
    pair, matches = pair[order], matches[order]
    _, group, counts = np.unique(pair, return_inverse=True, return_counts=True)
    enough = counts[group] >= FEWEST_VOTES
    pair, matches = pair[enough], matches[enough]
    if len(pair) == 0:
        return
    starts = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    # cut between pairs of images, so that no pair's votes are split
    wanted = np.searchsorted(starts, np.arange(0, len(pair), PAIRS_AT_ONCE), side="right") - 1
    cuts = starts[np.unique(wanted)]
    for start, stop in zip(cuts, [*cuts[1:], len(pair)], strict=True):
        yield from _elected(pool, pair[start:stop], matches[start:stop], images)


def _elected(pool: _Pool, pair: np.ndarray, matches: np.ndarray, images: int) -> Iterator[_Hypothesis]:
    """The winner of each pair of images; bins overlap by half, so that no cluster of votes is cut."""
    names, local = np.unique(pair, return_inverse=True)
    one, other = pool.places[matches[:, 0]], pool.places[matches[:, 1]]
    displacements = np.stack([other - one @ symmetry.T for symmetry in SYMMETRIES])  # (8, M, 2)
    half = np.stack([np.zeros(4), np.arange(4) // 2, np.arange(4) % 2], axis=1)[:, 1:] / 2
    bins = np.floor(displacements[:, None] / VOTE_SIDE + half[None, :, None]).astype(np.int64)  # (8, 4, M, 2)
    bins -= bins.min(axis=(0, 1, 2))
    rows, columns = bins.max(axis=(0, 1, 2)) + 1
    kind = np.arange(32).reshape(8, 4, 1)
    code = ((local * 32 + kind) * rows + bins[..., 0]) * columns + bins[..., 1]
    order = np.argsort(code, axis=None, kind="stable")
    value = code.ravel()[order]
    starts = np.flatnonzero(np.r_[True, value[1:] != value[:-1]])
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
            yield _Hypothesis(first, second, symmetry, displacement, votes)


# Proof


def _proven(
    fingerprints: Mapping[str, Fingerprint], first: str, second: str, hypothesis: _Hypothesis
) -> Duplicate:
    one, other = fingerprints[first], fingerprints[second]
    correlation, observations = _correlation(one.thumbnail, other.thumbnail, hypothesis)
    return Duplicate(
        first=first,
        second=second,
        score=_at_least(correlation, observations) * hypothesis.votes / (hypothesis.votes + 1),
        matches=hypothesis.votes,
        correlation=correlation,
        overlap=_overlap(one.shape, other.shape, hypothesis),
        mirrored=bool(np.linalg.det(SYMMETRIES[hypothesis.symmetry]) < 0),
    )


def _at_least(correlation: float, observations: float) -> float:
    """The correlation less two standard errors of Fisher's z, not below 0."""
    if observations < SMALLEST_SHARED:
        return 0.0
    z = np.arctanh(min(correlation, 1 - 1e-6)) - 2 / np.sqrt(observations - 3)
    return max(0.0, float(np.tanh(z)))


def _correlation(one: np.ndarray, other: np.ndarray, hypothesis: _Hypothesis) -> tuple[float, float]:
    """Pearson's correlation of two thumbnails where both lie, and how many observations it rests on."""
    centre = (THUMBNAIL_CELL - 1) / 2
    rows, columns = np.indices(other.shape).reshape(2, -1)
    places = np.stack([rows, columns]) * THUMBNAIL_CELL + centre
    # a symmetry's inverse is its transpose
    source = SYMMETRIES[hypothesis.symmetry].T @ (places - hypothesis.displacement[:, None])
    source = (source - centre) / THUMBNAIL_CELL
    limits = np.array(one.shape)[:, None] - 1
    inside = np.all((source >= 0) & (source <= limits), axis=0)
    observations = float(inside.sum()) / INDEPENDENT
    if observations < SMALLEST_SHARED:
        return 0.0, observations
    a = map_coordinates(one.astype(np.float32), source[:, inside], order=1)
    b = other[rows[inside], columns[inside]].astype(np.float32)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return (float(np.clip((a @ b) / norm, -1, 1)) if norm > 0 else 0.0), observations


def _overlap(one: np.ndarray, other: np.ndarray, hypothesis: _Hypothesis) -> float:
    """Area of the first image, laid over the second, that both share, as a fraction of the smaller."""
    corners = (
        np.array([[-0.5, -0.5], one - 0.5]) @ SYMMETRIES[hypothesis.symmetry].T + hypothesis.displacement
    )
    low, high = np.maximum(corners.min(axis=0), -0.5), np.minimum(corners.max(axis=0), other - 0.5)
    area = np.prod(np.maximum(high - low, 0))
    return float(area / min(np.prod(one.astype(np.float64)), np.prod(other.astype(np.float64))))
