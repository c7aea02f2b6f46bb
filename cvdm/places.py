"""Where a model looks in a file: the planes that it restores one after the other, and what it sees of each.

A model of one channel restores every plane of every channel of a stack by itself, one of several channels
every place along time and z once. With context, a plane is seen with its neighbours along z or time, and an
edge plane stands for those beyond it. Channels are told apart by the names that a file gives them, and by
their order where it gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cvdm.errors import ExtentError, ImageError
from cvdm.images import MAX_PIXELS
from cvdm.observation import Observation
from cvdm.reading.opening import read_plane, read_stack
from cvdm.reading.stack import Metadata, Stack, metadata_of
from cvdm.sight import Sight


@dataclass(frozen=True)
class Place:
    """One plane that is restored."""

    index: Mapping[str, int]
    """Where it lies along the axes but Y and X; without C for a model that sees several channels at once."""
    planes: tuple[tuple[int, ...], ...]
    """What is seen there, as of `Observation.channels`: positions in the file's order."""


@dataclass(frozen=True)
class Seen:
    """One image in memory, and what its file says."""

    observation: Observation
    full_range: float | None
    """As of `cvdm.reading.Stack`."""
    axes: str
    """Likewise."""
    metadata: Metadata


def places_of(stack: Stack, sight: Sight) -> tuple[Place, ...]:
    """What a model of this sight restores of a stack, in the file's order. Raises ImageError."""
    channels = _channels(stack, sight)
    axes, lengths = stack.axes[:-2], stack.shape[:-2]
    walked = [(axis, n) for axis, n in zip(axes, lengths, strict=True) if not (channels and axis == "C")]

    def position(place: Mapping[str, int], channel: int | None, offset: int) -> int:
        at = dict(place) if channel is None else {**place, "C": channel}
        if sight.context_axis in at:
            along = lengths[axes.index(sight.context_axis)]
            at[sight.context_axis] = min(max(at[sight.context_axis] + offset, 0), along - 1)
        index = [at[axis] for axis in axes]
        return int(np.ravel_multi_index(index, lengths)) if index else 0

    offsets = range(-sight.context, sight.context + 1)
    places = (
        dict(zip((a for a, _ in walked), at, strict=True)) for at in np.ndindex(*(n for _, n in walked))
    )
    return tuple(
        Place(
            {axis: int(at) for axis, at in place.items()},
            tuple(tuple(position(place, channel, off) for off in offsets) for channel in channels or (None,)),
        )
        for place in places
    )


def observed(stack: Stack, sight: Sight) -> tuple[Observation, ...]:
    """Every place of a stack, all of it in memory. Raises ImageError."""
    places = places_of(stack, sight)
    planes = [plane.pixels for plane in stack.planes()]
    return tuple(
        Observation(tuple(tuple(planes[at] for at in one) for one in place.planes), sight.factor)
        for place in places
    )


def observed_at(stack: Stack, place: Place, sight: Sight) -> Observation:
    """One place of a stack; only what is seen there is decoded. Raises ImageError."""
    needed = sorted({at for planes in place.planes for at in planes})
    decoded = {at: stack.plane(at).pixels for at in needed}
    return Observation(tuple(tuple(decoded[at] for at in one) for one in place.planes), sight.factor)


def read_seen(source: Path | str | BinaryIO, sight: Sight, *, max_pixels: int = MAX_PIXELS) -> Seen:
    """One image that a model of this sight restores at once. Raises ImageError.

    max_pixels: of the file, and of the result.
    """
    opened = read_stack if sight.channels else read_plane
    with opened(source, max_pixels=max_pixels) as stack:
        require_result(stack, sight, max_pixels)
        if len(places_of(stack, sight)) > 1:
            extent = " and ".join(f"{n} along {a}" for a, n in zip(stack.axes, stack.shape, strict=True))
            raise ExtentError(
                f"one image of the channels {', '.join(sight.channels)}",
                f"{stack.label} with {extent}",
                "Save each of its planes as a file of its own.",
            )
        (observation,) = observed(stack, sight)
        return Seen(observation, stack.full_range, stack.axes, metadata_of(stack))


def read_observation(source: Path | str | BinaryIO, sight: Sight) -> Observation:
    """What is seen of one image file. Raises ImageError."""
    return read_seen(source, sight).observation


def require_result(stack: Stack, sight: Sight, max_pixels: int) -> None:
    """Refuse an image or stack that would be too large on the result's grid. Raises ImageError."""
    if sight.pixels(stack.shape) > max_pixels:
        raise ExtentError(
            f"at most {max_pixels} pixels on the result's grid, {sight.factor} times finer than the input's",
            f"{stack.label} with {' x '.join(str(length) for length in stack.shape)}",
            "Crop the image.",
        )


def restored_number(names: tuple[str, ...], sight: Sight) -> int:
    """Which channel of a file with these names the model restores."""
    return channel_order(names, sight.channel_count, sight, "the image")[0]


def channel_order(names: tuple[str, ...], count: int, sight: Sight, label: str) -> tuple[int, ...]:
    """The numbers of a file's channels, the restored one first. Raises ImageError for other channels."""
    given, wanted = [name.casefold() for name in names], [name.casefold() for name in sight.names]
    if count == len(wanted) and (not any(given) or not sight.channels):
        return sight.order
    if count == len(wanted) and sorted(given) == sorted(wanted):
        return tuple(given.index(name) for name in wanted)
    told = f" ({', '.join(names)})" if any(names) else ""
    raise ImageError(
        f"the {len(wanted)} channels that this model sees: {', '.join(sight.channels)}",
        f"{label} with {count}{told}",
        "Save exactly these channels in one file, under these names or without names in this order.",
    )


def _channels(stack: Stack, sight: Sight) -> tuple[int, ...]:
    """The file's channels as the sight orders them; none for a model that takes each by itself."""
    if not sight.channels:
        return ()
    count = dict(zip(stack.axes, stack.shape, strict=True)).get("C", 1)
    return channel_order(stack.channel_names, count, sight, stack.label)
