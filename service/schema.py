"""What a client may ask and what it is told: form fields in, provenance out. Knows no web framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cvdm.config import SamplingConfig
from cvdm.reading.names import listed
from service.errors import ParameterError

FIELDS = ("task", "version", "samples", "steps", "seed", "maps", "channels")
"""Optional form fields beside the file `image`."""
CHAMPION, PREVIOUS = "champion", "previous"
"""The registry's aliases that may stand for a version."""
CHALLENGER = "challenger"
"""The registry's alias of a version that restores in the champion's shadow."""
MAPS = ("schedule_map", "residual")
"""What may be asked for beside the channels of every answer, in their order (`cvdm.posterior.maps_of`)."""
LARGEST_SEED = 2**63 - 1
FEWEST_SAMPLES = 2


@dataclass(frozen=True)
class Limits:
    """Upper bounds of what one request may cost."""

    max_samples: int
    max_steps: int


@dataclass(frozen=True)
class Order:
    """One request's choices; None leaves a choice to the service or to the model's recipe."""

    task: str | None = None
    version: int | str | None = None
    """A version number, or the alias `previous`; None is the champion."""
    samples: int | None = None
    steps: int | None = None
    seed: int | None = None
    maps: tuple[str, ...] = ()
    """Channels beside those that every answer has."""
    channels: tuple[str, ...] = ()
    """Of a stack, by name or number, that are restored; all where there are none."""

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """The model's own sampling with this order's choices in it."""
        return replace(
            default,
            samples=default.samples if self.samples is None else self.samples,
            steps=default.steps if self.steps is None else self.steps,
            seed=default.seed if self.seed is None else self.seed,
        )


def read_order(fields: Mapping[str, str], limits: Limits) -> Order:
    """Check the form fields of a request. Raises ParameterError."""
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ParameterError(
            f"only the fields image, {', '.join(FIELDS)}",
            f"also {', '.join(shown(name) for name in unknown)}",
            "Correct the spelling or leave the field out.",
        )
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    return Order(
        task=given.get("task"),
        version=_version(given.get("version", CHAMPION)),
        samples=_optional("samples", given, FEWEST_SAMPLES, limits.max_samples),
        steps=_optional("steps", given, 1, limits.max_steps),
        seed=_optional("seed", given, 0, LARGEST_SEED),
        maps=_maps(given.get("maps", "")),
        channels=listed(given.get("channels", "")),
    )


def require_maps(order: Order, possible: tuple[str, ...], model: str) -> None:
    """Raise ParameterError where a model cannot make a map that is asked for."""
    if impossible := [name for name in order.maps if name not in possible]:
        raise ParameterError(
            f"maps that {model} can make: {', '.join(possible)}",
            ", ".join(shown(name) for name in impossible),
            "Leave it out; a residual needs a dataset card that states the forward model.",
        )


def shown(text: str) -> str:
    """A client's own words, quoted and cut so that they fit into a message."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _version(text: str) -> int | str | None:
    if text == CHAMPION:
        return None
    return text if text == PREVIOUS else integer("version", text, 1, 2**31 - 1)


def _maps(text: str) -> tuple[str, ...]:
    names = listed(text)
    if unknown := [name for name in names if name not in MAPS]:
        raise ParameterError(
            f"maps out of {', '.join(MAPS)}, separated by commas",
            ", ".join(shown(name) for name in unknown[:3]),
            "Correct the spelling or leave maps out.",
        )
    return tuple(name for name in MAPS if name in names)


def _optional(name: str, given: Mapping[str, str], least: int, most: int) -> int | None:
    return integer(name, given[name], least, most) if name in given else None


def integer(name: str, text: str, least: int, most: int) -> int:
    """A client's whole number. Raises ParameterError."""
    if re.fullmatch(r"-?[0-9]{1,20}", text) and least <= int(text) <= most:
        return int(text)
    also = f"{CHAMPION!r}, {PREVIOUS!r} or " if name == "version" else ""
    raise ParameterError(
        f"{name} to be {also}a whole number from {least} to {most}",
        shown(text),
        f"Correct {name} or leave it out.",
    )


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from: enough to make the same pixels again."""

    model: str
    version: int
    run_id: str
    reconstruction: Mapping[str, str]
    """`Checkpoint.annotations`: task, data, code, sampling, and whether the interval is calibrated for it."""
    input_sha256: str
    """Of the file as it was uploaded."""
    maps: tuple[str, ...] = ()
    """Channels that were asked for beside those of every answer."""
    channels: tuple[str, ...] = ()
    """Of the input that were restored; all where there are none."""

    def annotations(self) -> dict[str, str]:
        """For the OME metadata of the reply."""
        own = {
            "model": self.model,
            "version": str(self.version),
            "run_id": self.run_id,
            "input_sha256": self.input_sha256,
        }
        chosen = {"maps": self.maps, "channels": self.channels}
        own |= {name: ", ".join(found) for name, found in chosen.items() if found}
        return own | dict(self.reconstruction)

    def headers(self) -> dict[str, str]:
        """For the HTTP reply: `x-cvdm-` + each name with dashes."""
        return headers_of(self.annotations())


def headers_of(annotations: Mapping[str, str]) -> dict[str, str]:
    """The annotations of a result as HTTP headers."""
    plain = {name: value.encode("ascii", "replace").decode() for name, value in annotations.items()}
    return {f"x-cvdm-{name.replace('_', '-')}": value for name, value in plain.items()}
