"""Which images show the same field of view, found by their fingerprints (cvdm/inspection/fingerprints.py).

Finding duplicates among n images takes time proportional to n log n:
1. Descriptors are sorted by the signs of random projections (Charikar 2002), several times over; neighbours
   in a sorted list are likely to be alike, and only a fixed number of neighbours is looked at.
2. The matches of two images vote for one of 8 symmetries and a displacement (duplicate_geometry.py).
3. The thumbnails are correlated over the area that this geometry says is shared (duplicate_proof.py).

Memory beside the fingerprints themselves is about 80 bytes per keypoint and 25 per match of two keypoints.

Not covered: shared areas under about a tenth of a field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvdm.inspection.duplicate_geometry import elected
from cvdm.inspection.duplicate_proof import Duplicate, proven
from cvdm.inspection.fingerprints import Fingerprint

SAMPLE = 20_000  # descriptors that the principal components are taken from
COMPONENTS = 24  # of the descriptors' variance, that neighbours are sought in
BITS = 31  # of a key: signs of 30 projections, below the keypoint's polarity
TABLES = 12
NEIGHBOURS = 3  # on each side of a descriptor in a sorted table
DESCRIPTOR_DISTANCE = 2.6  # 95 % of true matches lie below, four fifths of chance matches above
AT_ONCE = 100_000  # keypoints that are looked at together: bounds memory


def near_duplicates(fingerprints: Mapping[str, Fingerprint]) -> list[Duplicate]:
    """Pairs that share a part of their field, the highest score first.

    Every pair that three keypoints speak for is returned, chance pairs of low score among them. Of n copies
    with equal fingerprints each is compared with the first only: `groups` says what belongs together.
    """
    names, found = _distinct(fingerprints)
    distinct = [fingerprints[name] for name in names]
    pool = _Pool.of(distinct)
    if pool is not None:
        for geometry in elected(pool.image, pool.places, _matches(pool)):
            one, other = ((names[i], distinct[i]) for i in (geometry.first, geometry.second))
            found.append(proven(one, other, geometry))
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


def _distinct(fingerprints: Mapping[str, Fingerprint]) -> tuple[list[str], list[Duplicate]]:
    """One name for each fingerprint that has keypoints, and the copies of it as duplicates."""
    first: dict[bytes, str] = {}
    copies = []
    for name in sorted(fingerprints):
        one = fingerprints[name]
        if len(one.keypoints) == 0:
            continue
        content = hashlib.sha256()
        for part in (one.shape, one.keypoints, one.thumbnail):
            content.update(np.ascontiguousarray(part).data)
        original = first.setdefault(content.digest(), name)
        if original != name:
            votes = len(one.keypoints)
            copies.append(Duplicate(original, name, (votes - 1) / (votes + 1), votes, 1.0, 1.0, False))
    return list(first.values()), copies


@dataclass(frozen=True)
class _Pool:
    """All keypoints of all images, K in total, in the order of the images.

    image (K,) int32; places (K, 2) float32, px; polarity (K,) bool; vectors (K, C) float16.
    """

    image: np.ndarray
    places: np.ndarray
    polarity: np.ndarray
    vectors: np.ndarray

    @staticmethod
    def of(fingerprints: Sequence[Fingerprint]) -> _Pool | None:
        if len(fingerprints) < 2:
            return None
        counts = [len(one.keypoints) for one in fingerprints]
        return _Pool(
            image=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            places=np.concatenate([one.keypoints for one in fingerprints]),
            polarity=np.concatenate([one.polarity > 0 for one in fingerprints]),
            vectors=_condensed([one.descriptors for one in fingerprints]),
        )


def _condensed(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """(K, C) float16: the leading principal components of the pool's descriptors, half whitened."""
    starts = np.cumsum([0, *(len(part) for part in descriptors)])
    every = max(1, int(starts[-1]) // SAMPLE)
    some = np.concatenate(
        [part[-start % every :: every] for start, part in zip(starts[:-1], descriptors, strict=True)]
    )
    some = some.astype(np.float32)
    centre, spread = np.median(some, axis=0), some.std(axis=0)
    spread[spread == 0] = 1
    standard = (some - centre) / spread
    variance, axes = np.linalg.eigh(standard.T @ standard / len(standard))
    variance, axes = variance[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
    weights = axes / np.maximum(variance, 1e-3 * variance[0] + 1e-12) ** 0.25
    vectors = np.empty((starts[-1], weights.shape[1]), dtype=np.float16)
    for start, part in zip(starts[:-1], descriptors, strict=True):
        vectors[start : start + len(part)] = ((part - centre) / spread) @ weights
    return vectors


def _matches(pool: _Pool) -> np.ndarray:
    """(M,) codes, ascending, of keypoints of different images that look alike: first index * K + second."""
    rng = np.random.default_rng(0)
    codes = np.empty(0, dtype=np.int64)
    for _ in range(TABLES):
        projections = rng.normal(size=(pool.vectors.shape[1], BITS - 1)).astype(np.float32)
        order = np.argsort(_keys(pool, projections), kind="stable").astype(np.int32)
        codes = np.concatenate([codes, *_alike(pool, order)])
        codes.sort()
        codes = codes[np.r_[True, codes[1:] != codes[:-1]]] if len(codes) else codes
    return codes


def _keys(pool: _Pool, projections: np.ndarray) -> np.ndarray:
    """(K,) uint32: polarity, then the signs of the projections."""
    keys = np.empty(len(pool.image), dtype=np.uint32)
    bits = np.zeros((AT_ONCE, 32), dtype=bool)
    for start in range(0, len(keys), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        vectors = pool.vectors[part].astype(np.float32)
        some = bits[: len(vectors)]
        some[:, 32 - BITS] = pool.polarity[part]
        some[:, 33 - BITS :] = vectors @ projections > 0
        keys[part] = np.packbits(some, axis=1).view(">u4")[:, 0]
    return keys


def _alike(pool: _Pool, order: np.ndarray) -> Iterator[np.ndarray]:
    """Codes of neighbours in a sorted table that may show the same structure, some of them twice."""
    for start in range(0, len(order), AT_ONCE):
        some = order[start : start + AT_ONCE + NEIGHBOURS]
        image, polarity = pool.image[some], pool.polarity[some]
        vectors = pool.vectors[some].astype(np.float32)
        for step in range(1, min(NEIGHBOURS + 1, len(some))):
            gap = vectors[step:] - vectors[:-step]
            near = np.einsum("ij,ij->i", gap, gap) < DESCRIPTOR_DISTANCE**2
            near &= (image[step:] != image[:-step]) & (polarity[step:] == polarity[:-step])
            one, other = some[:-step][near], some[step:][near]
            yield np.minimum(one, other).astype(np.int64) * len(pool.image) + np.maximum(one, other)
