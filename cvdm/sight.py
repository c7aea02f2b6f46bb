"""What a model sees of a field of view beside the one plane that it restores, and on which grid it answers.

A dataset's card states it, a recipe takes it from there, a checkpoint keeps it. The networks learn of it only
how many inputs they have; which planes these are, and how they come to one grid, is `cvdm.observation`.
A model that sees something else is another model: give it another task.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from cvdm.errors import ConfigError

LARGEST_FACTOR = 4
LARGEST_CONTEXT = 8
CONTEXT_AXES = ("Z", "T")


@dataclass(frozen=True)
class Sight:
    """One plane of one channel, unless it says more."""

    channels: tuple[str, ...] = ()
    """Names of an input's channels in the file's order; empty for an input of one channel."""
    restored: str | None = None
    """The one of them that the target shows."""
    context: int = 0
    """Neighbouring planes that are seen on each side; an edge plane stands for those beyond it."""
    context_axis: str = "Z"
    """Along which they are neighbours, one of `CONTEXT_AXES`."""
    factor: int = 1
    """Pixels of the target along a side of one pixel of the input."""

    def __post_init__(self) -> None:
        names = [name.casefold() for name in self.channels]
        if len(names) == 1 or len(set(names)) != len(names) or not all(names):
            raise ConfigError(
                "channels: two or more different names, or none for inputs of one channel",
                ", ".join(self.channels) or "an empty name",
                "Name each channel of the inputs once.",
            )
        if (self.restored is not None) != bool(names) or (names and self.restored not in self.channels):
            raise ConfigError(
                f"the channel that the target shows, out of {', '.join(self.channels) or 'none'}",
                str(self.restored),
                "Write its name under `channel`, as it stands under `channels`.",
            )
        for name, value, least, most in (
            ("factor", self.factor, 1, LARGEST_FACTOR),
            ("context", self.context, 0, LARGEST_CONTEXT),
        ):
            if not least <= value <= most:
                raise ConfigError(f"{name} from {least} to {most}", str(value), "Correct it.")
        if self.context_axis not in CONTEXT_AXES:
            raise ConfigError(
                f"context_axis: {' or '.join(CONTEXT_AXES)}", f"'{self.context_axis}'", "Correct it."
            )

    @property
    def channel_count(self) -> int:
        """Channels of an input."""
        return max(1, len(self.channels))

    @property
    def planes(self) -> int:
        """Planes that are seen of each channel."""
        return 2 * self.context + 1

    @property
    def inputs(self) -> int:
        """Planes that the networks see, all channels together."""
        return self.channel_count * self.planes

    @property
    def order(self) -> tuple[int, ...]:
        """The channels' numbers, the restored one first."""
        first = 0 if self.restored is None else self.channels.index(self.restored)
        return (first, *(number for number in range(self.channel_count) if number != first))

    @property
    def of_target(self) -> Sight:
        """What a target is: one channel, and as many planes."""
        return Sight(context=self.context, context_axis=self.context_axis)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names, the restored one first; "" for a single one."""
        return tuple(self.channels[number] for number in self.order) if self.channels else ("",)

    def enlarged(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the result of an input whose last two axes are these."""
        return shape[-2] * self.factor, shape[-1] * self.factor

    def pixels(self, shape: tuple[int, ...]) -> int:
        """Pixels of all planes of an image or stack, on the result's grid."""
        return prod(shape) * self.factor**2


PLAIN = Sight()
"""One plane of one channel, restored on its own grid."""
