"""The dataset card: what a folder of pairs holds, read from its card.yaml and checked.

A card states what is known and leaves the rest null. Unknown keys, wrong types and impossible values are
refused with a DatasetError that names the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from cvdm.errors import ConfigError, DatasetError
from cvdm.ledger import joined, load_ledger
from cvdm.optics import ForwardModel
from cvdm.sight import PLAIN, Sight

SPLITS = ("train", "validation", "calibration", "test")
INPUTS = ("measured", "simulated")
TARGET_UNITS = ("input", "own")
CARD_NAME = "card.yaml"
TASK_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
"""Of a task: a plain folder name."""

Section = TypeVar("Section")


@dataclass(frozen=True)
class Split:
    """How fields are dealt to the splits: by hashing (seed, field) against these fractions of fields.

    A quarter for tests: two models can be told apart from five test fields on, well from eight on.
    """

    seed: int = 0
    train: float = 0.5
    validation: float = 0.1
    calibration: float = 0.15
    test: float = 0.25

    def __post_init__(self) -> None:
        shares = [getattr(self, name) for name in SPLITS]
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise DatasetError(
                "split fractions >= 0 that add up to 1", f"{shares}", "Correct the card's split."
            )


@dataclass(frozen=True)
class Card:
    """What is known about one task's images.

    task:               name of the task, e.g. "fmd-confocal-nuclei".
    name_pattern:       regular expression of a pair's name, with the groups `field` and optionally `session`.
    split:              see Split.
    inputs:             "measured" on a microscope, or "simulated" from the targets by forward_model.
    target_units:       "input" where equal numbers mean equal brightness in input and target; "own" where
                        each target was stretched by itself: least squares bring it onto its input then.
    structure:          what is imaged.
    modality:           how, e.g. "confocal".
    licence, citation:  terms and source of the images.
    pixel_size_um:      side of a pixel of the input in the sample.
    numerical_aperture: of the objective.
    wavelength_nm:      of the excitation.
    channel:            name of the channel that is restored, as files may state it.
    channels:           names of all channels of an input in their order, where there are several.
    factor:             how many pixels of the target lie along a side of one pixel of the input.
    context:            how many neighbouring planes on each side a plane is seen with; pairs are stacks then.
    context_axis:       along which they are neighbours, "Z" or "T".
    forward_model:      how inputs arise from targets of the same grid, where that is known.
    overlapping:        groups of fields that show parts of the same scene; each goes to one split as a whole.
    validation:         thresholds of the data gate that differ for this task; whoever validates checks them.
    """

    task: str
    name_pattern: str
    split: Split
    inputs: str = "measured"
    target_units: str = "input"
    structure: str | None = None
    modality: str | None = None
    licence: str | None = None
    citation: str | None = None
    pixel_size_um: float | None = None
    numerical_aperture: float | None = None
    wavelength_nm: float | None = None
    channel: str | None = None
    channels: tuple[str, ...] = ()
    factor: int = 1
    context: int = 0
    context_axis: str = "Z"
    forward_model: ForwardModel | None = None
    overlapping: tuple[tuple[str, ...], ...] = ()
    validation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(TASK_NAME, self.task):
            raise DatasetError(
                "a task name of a-z, 0-9 and hyphens", f"'{self.task}'", "Rename it in the card."
            )
        if self.inputs not in INPUTS:
            raise DatasetError(f"inputs: {' or '.join(INPUTS)}", f"'{self.inputs}'", "Correct the card.")
        if self.target_units not in TARGET_UNITS:
            raise DatasetError(
                f"target_units: {' or '.join(TARGET_UNITS)}", f"'{self.target_units}'", "Correct the card."
            )
        if self.inputs == "simulated" and self.forward_model is None:
            raise DatasetError("a forward_model for simulated inputs", "none", "Add it to the card.")
        for name in ("pixel_size_um", "numerical_aperture", "wavelength_nm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise DatasetError(f"{name} above 0, or null", f"{value}", "Correct the card.")
        self._check_sight()
        listed = [field for group in self.overlapping for field in group]
        if len(listed) != len(set(listed)) or any(len(group) < 2 for group in self.overlapping):
            raise DatasetError(
                "overlapping: groups of two or more fields, each field in one",
                f"{listed}",
                "Merge the groups.",
            )
        try:
            groups = re.compile(self.name_pattern).groupindex
        except re.error as error:
            raise DatasetError(
                "a valid name_pattern", f"{error}", "Correct the regular expression."
            ) from error
        if "field" not in groups:
            raise DatasetError(
                "a name_pattern with a group (?P<field>...)",
                f"'{self.name_pattern}'",
                "Mark the part of a name that tells its field of view.",
            )

    @property
    def sight(self) -> Sight:
        """What a model of this task sees of a field of view."""
        restored = self.channel if self.channels else None
        return Sight(self.channels, restored, self.context, self.context_axis, self.factor)

    def _check_sight(self) -> None:
        try:
            sight = self.sight
        except ConfigError as error:
            raise DatasetError(error.expected, error.actual, f"{error.remedy} It is in the card.") from error
        if sight.factor > 1 and self.forward_model is not None:
            raise DatasetError(
                "no forward_model with a factor above 1: it links images of one grid",
                f"one with factor: {self.factor}",
                "Leave it out; Richardson-Lucy and the residual are not defined then.",
            )
        if self.inputs == "simulated" and sight != PLAIN:
            raise DatasetError(
                "inputs: measured where an input has channels, context or a factor",
                "inputs: simulated",
                "Simulate such inputs elsewhere; the forward model makes single planes.",
            )


def load_card(root: Path) -> Card:
    """Read a dataset folder's card, with the scenes of its ledger as overlapping. Raises DatasetError."""
    path = Path(root) / CARD_NAME
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(
            f"a dataset card at {path}",
            "no such file",
            "Check the path; run `dvc pull` if the data came with this repository, else write a card.",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"readable YAML in {path}", reason, "Mend the card's syntax.") from error
    card = _section(Card, content, CARD_NAME)
    scenes = load_ledger(Path(root)).scenes
    return replace(card, overlapping=joined((*scenes, *card.overlapping))) if scenes else card


def _section(cls: type[Section], content: object, where: str) -> Section:
    """Build a frozen section of the card from plain values, keys and types checked."""
    if not isinstance(content, Mapping):
        raise DatasetError(f"'key: value' lines in {where}", type(content).__name__, "Rewrite it so.")
    hints = get_type_hints(cls)
    required = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}  # type: ignore[arg-type]  # a dataclass
    unknown = sorted(str(key) for key in set(content) - set(hints))
    missing = sorted(required - set(content))
    if unknown or missing:
        problem = [f"unknown {', '.join(unknown)}"] if unknown else []
        problem += [f"missing {', '.join(missing)}"] if missing else []
        raise DatasetError(
            f"the keys {', '.join(sorted(hints))} in {where}", " and ".join(problem), "Correct the card."
        )
    return cls(**{key: _value(value, hints[key], f"{where}: {key}") for key, value in content.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    """One value of the type that the card's field declares; whole numbers pass as real ones."""
    kinds = getattr(hint, "__args__", (hint,))
    kind = kinds[0]
    if value is None and type(None) in kinds:
        return None
    if kind in (Split, ForwardModel):
        return _section(kind, value, where)
    if where == f"{CARD_NAME}: overlapping":
        if not (isinstance(value, list) and all(isinstance(group, list) for group in value)):
            raise DatasetError(f"{where} to be a list of lists of fields", f"{value!r}", "Correct the card.")
        return tuple(tuple(str(field) for field in group) for group in value)
    if where == f"{CARD_NAME}: channels":
        if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise DatasetError(f"{where} to be a list of names", f"{value!r}", "Correct the card.")
        return tuple(value)
    if where == f"{CARD_NAME}: validation":
        if not isinstance(value, Mapping):
            raise DatasetError(f"{where} to hold `threshold: value` lines", f"{value!r}", "Correct the card.")
        return dict(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise DatasetError(f"{where} to be of type {kind.__name__}", f"{value!r}", "Correct the card.")
    return value
