"""What one pair of images is like on its own: read, measured, and let go of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvdm.errors import ImageError
from cvdm.images import MAX_PIXELS
from cvdm.inspection.artefacts import hot_pixels, signal_share
from cvdm.inspection.background import background_offset
from cvdm.inspection.dropped_lines import dropped_columns, dropped_rows
from cvdm.inspection.fingerprints import Fingerprint, fingerprint
from cvdm.inspection.focus import measure_focus
from cvdm.inspection.intensity import intensity
from cvdm.inspection.noise import measure_noise
from cvdm.inspection.numeric_range import shortened
from cvdm.inspection.registration import register
from cvdm.inspection.relation import measure_relation
from cvdm.inspection.stagger import scan_stagger
from cvdm.inspection.vignetting import LocalChanges, local_changes
from cvdm.normalisation import Pixels
from cvdm.places import observed, places_of
from cvdm.reading import Stack, read_stack
from cvdm.sight import PLAIN, Sight
from cvdm.upsampling import on_grid
from flows.validation.features import PairFeatures, SideFeatures


@dataclass(frozen=True)
class PairFiles:
    """Where the two images of a name are; None for one that is missing."""

    name: str
    field: str | None
    session: str | None
    low: Path | None
    high: Path | None


@dataclass(frozen=True)
class Target:
    """What is kept of a target to compare it with others: some 20 kB."""

    fingerprint: Fingerprint
    changes: LocalChanges | None
    """None where there is too little structure, or one session only."""


@dataclass(frozen=True)
class _Image:
    """One measured image while its pair is at hand."""

    features: SideFeatures
    pixels: np.ndarray | None = None
    full_range: float | None = None
    target: Target | None = None


def measure_pairs(
    pairs: Sequence[PairFiles], *, lit: bool = False, sight: Sight = PLAIN
) -> list[tuple[PairFeatures, Target | None]]:
    """Rows of some pairs, and what is kept of each target that was not measured before; in one process.

    lit: whether what is kept holds a summary of the illumination. sight: what an input is, by the card.
    """
    found = []
    last: tuple[Path | None, bytes, _Image] | None = None
    for pair in pairs:
        low = _image(pair.low, sight, is_target=False)
        content = _content(pair.high)
        # captures of a field share their target: do not measure it again
        known = last is not None and content != b"" and last[1] == content
        high = last[2] if known and last else _image(pair.high, sight.of_target, is_target=True, lit=lit)
        last = (pair.high, content, high)
        row = PairFeatures(pair.name, pair.field, None, pair.session, low.features, high.features)
        found.append((_with_pair(row, low, high, sight.factor), None if known else high.target))
    return found


def measure_image(path: Path, *, is_target: bool = True) -> SideFeatures:
    """What one file of a single plane says on its own."""
    return _image(path, PLAIN, is_target=is_target).features


def _content(path: Path | None) -> bytes:
    """SHA-256 of a file; empty where it cannot be read."""
    if path is not None and path.is_file():
        with suppress(OSError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return b""


def _image(path: Path | None, sight: Sight, *, is_target: bool, lit: bool = False) -> _Image:
    """Of a stack the plane in the middle is measured, of several channels the restored one."""
    features = SideFeatures(present=path is not None)
    if path is None:
        return _Image(features)
    if not (path.is_file() or path.is_dir()):
        where = "Check the link, or copy the image again."
        return _Image(replace(features, problem=f"{path.name}, which leads to no file", remedy=where))
    try:
        with read_stack(path, max_pixels=MAX_PIXELS) as stack:
            features = _described(stack)
            features = replace(features, fits=_fits(stack, sight))
            if not features.fits:
                return _Image(features)
            seen = observed(stack, sight)
            full_range = stack.full_range
    except ImageError as error:
        # Non-finite pixels are the one refusal of an otherwise sound file: a check of its own.
        sound = error.expected == "finite pixel values"
        finite = False if sound else None
        return _Image(
            replace(features, readable=sound, finite=finite, problem=error.actual, remedy=error.remedy)
        )
    channels = seen[len(seen) // 2].centres
    pixels = np.asarray(channels[0])
    constant = (name for name, one in zip(sight.names, channels, strict=True) if np.ptp(one[:, :]) == 0)
    features = replace(features, empty_channel=next((name for name in constant if name), None))
    planes = [plane for one in seen for plane in one.centres]
    features = _measured(features, pixels, full_range, planes)
    if not is_target:
        return _Image(features, pixels, full_range)
    target = Target(fingerprint(pixels), local_changes(pixels) if lit else None)
    return _Image(features, pixels, full_range, target)


def _fits(stack: Stack, sight: Sight) -> bool:
    """Whether a file has the channels and the other axes that the card states."""
    with suppress(ImageError):
        places_of(stack, sight)
        known = ({"C"} if sight.channels else set()) | ({sight.context_axis} if sight.context else set())
        return {*stack.axes[:-2]} <= known
    return False


def _described(stack: Stack) -> SideFeatures:
    """What the header says."""
    wavelengths = stack.wavelengths_nm
    return SideFeatures(
        present=True,
        readable=True,
        finite=True,
        format=stack.format,
        axes=stack.axes,
        shape=stack.shape,
        dtype=stack.dtype,
        megabytes=float(np.prod(stack.shape)) * max(1, np.dtype(stack.dtype).itemsize) / 1e6,
        pixel_size_um=stack.pixel_size_um,
        numerical_aperture=stack.numerical_aperture,
        wavelength_nm=wavelengths[0] if len(wavelengths) == 1 else None,
        channel=", ".join(stack.channel_names) or None,
        acquired=stack.acquired,
    )


def _measured(
    features: SideFeatures, pixels: np.ndarray, full_range: float | None, planes: Sequence[Pixels]
) -> SideFeatures:
    """What the pixels (H, W) say; planes: all of the image, which its digest covers."""
    short = shortened(pixels)  # for what does no arithmetic with them
    everything = short if len(planes) == 1 else shortened(np.stack([plane[:, :] for plane in planes]))
    digest = hashlib.sha256(repr((everything.shape, everything.dtype.name)).encode())
    digest.update(np.ascontiguousarray(everything).data)
    features = replace(
        features,
        lowest=float(short.min()),
        highest=float(short.max()),
        digest=digest.hexdigest(),
    )
    use = intensity(short, full_range=full_range)
    if use is None:  # a constant image says nothing else
        return features
    noise, focus, stagger = measure_noise(pixels), measure_focus(pixels), scan_stagger(pixels)
    return replace(
        features,
        saturated=use.high.excess,
        black=use.low.excess,
        range_share=use.range_share,
        span=use.span,
        grey_levels=use.levels,
        background=background_offset(short),
        noise=noise.level if noise else None,
        snr_db=noise.snr_db if noise else None,
        focus_db=focus.focus_db if focus else None,
        hot_pixels=hot_pixels(short),
        dropped_lines=dropped_rows(short).total + dropped_columns(short).total,
        stagger_px=None if stagger is None else max(0.0, abs(stagger.shift) - 2 * stagger.error),
        signal_share=signal_share(pixels),
    )


def _with_pair(row: PairFeatures, low: _Image, high: _Image, factor: int) -> PairFeatures:
    """What the two images say about each other, on the target's grid."""
    if low.pixels is None or high.pixels is None:
        return row
    pixels = np.asarray(on_grid(low.pixels, factor)[:, :])
    if pixels.shape != high.pixels.shape:
        return row
    snr = (low.features.snr_db, high.features.snr_db)
    same_type = low.features.dtype == high.features.dtype
    relation = measure_relation(pixels, high.pixels, full_range=low.full_range if same_type else None)
    if relation is not None:
        row = replace(
            row,
            rank_correlation=relation.rank_correlation,
            gain=relation.gain,
            curvature=abs(relation.curvature),
            separate_stretch=relation.separate_stretch,
        )
    if None not in snr:
        row = replace(row, snr_gain_db=snr[1] - snr[0])  # type: ignore[operator]  # just checked
    found = register(pixels, high.pixels)
    if found is None:
        constant = low.features.span is None or high.features.span is None
        return row if constant else replace(row, registration=0.0)
    return replace(
        row,
        shift_px=found.shift_px,
        shift_yx=(found.dy, found.dx),
        rotation_deg=None if found.rotation_deg is None else abs(found.rotation_deg),
        scale_percent=None if found.scale is None else 100 * abs(found.scale),
        registration=found.significance,
    )
