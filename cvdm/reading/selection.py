"""Some channels of a stack, as a stack: what a model was made for, and not what was acquired beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.stack import Stack

Value = TypeVar("Value")


def selected(stack: Stack, channels: Sequence[str]) -> Stack:
    """The stack with these channels alone, in the file's order; all of them where none are named.

    channels: names that the file gives, or numbers from 0. Raises ImageError for one that is not there. The
    file stays open as long as the given stack.
    """
    if not channels:
        return stack
    count = dict(zip(stack.axes, stack.shape, strict=True)).get("C", 1)
    numbers = sorted({_number(stack, count, channel) for channel in channels})
    if "C" not in stack.axes:
        return stack
    at = stack.axes.index("C")
    lengths = (*stack.shape[:at], len(numbers), *stack.shape[at + 1 : -2])

    def original(position: int) -> int:
        place = [int(along) for along in np.unravel_index(position, lengths)]
        place[at] = numbers[place[at]]
        return int(np.ravel_multi_index(place, stack.shape[:-2]))

    def of_these(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(values[number] for number in numbers) if len(values) == count else ()

    def decode_to_file(position: int, path: Path) -> np.ndarray:
        assert stack.decode_to_file is not None
        return stack.decode_to_file(original(position), path)

    shape = (*lengths, *stack.shape[-2:])
    single = len(numbers) == 1  # an axis of length one is left out
    return replace(
        stack,
        axes=stack.axes.replace("C", "") if single else stack.axes,
        shape=(*shape[:at], *shape[at + 1 :]) if single else shape,
        decode=lambda position: stack.decode(original(position)),
        decode_to_file=None if stack.decode_to_file is None else decode_to_file,
        channel_names=of_these(stack.channel_names),
        wavelengths_nm=of_these(stack.wavelengths_nm),
        emission_nm=of_these(stack.emission_nm),
    )


def _number(stack: Stack, count: int, channel: str) -> int:
    """Which channel that is; a name goes before a number."""
    if channel in stack.channel_names:
        return stack.channel_names.index(channel)
    if channel.isascii() and channel.isdigit() and int(channel) < count:
        return int(channel)
    names = f", {', '.join(stack.channel_names)}" if stack.channel_names else ""
    raise ImageError(
        f"channels out of 0 to {count - 1}{names}", f"{stack.label} and {channel[:60]!r}", "Correct the name."
    )
