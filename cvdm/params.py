"""Read frozen configuration values from plain ones and from `params.yaml`.

A key that no class knows, or a value of the wrong type, is refused with the list of what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from cvdm.config import Recipe
from cvdm.errors import ConfigError
from cvdm.sight import PLAIN

Config = TypeVar("Config")


def from_mapping(
    cls: type[Config], values: Mapping[str, Any], where: str = "", default: Config | None = None
) -> Config:
    """Build the frozen config `cls` from nested plain values; `where` names the place in messages.

    What is left out is as in `default`, of a nested value as in the default of the value around it.
    Raises ConfigError on an unknown key or a value of another type than the field's.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(values, Mapping):
        raise ConfigError(f"a mapping under '{where}'", type(values).__name__, "Write key: value lines.")
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # every Config is a dataclass
    unknown = sorted(str(key) for key in set(values) - known)
    if unknown:
        raise ConfigError(
            f"only the keys {', '.join(sorted(known))} under '{where or cls.__name__}'",
            f"unknown {', '.join(unknown)}",
            "Correct the spelling or remove the key.",
        )
    own = {f.name: f.default_factory() for f in fields(cls) if f.default_factory is not MISSING}  # type: ignore[arg-type]
    given = {
        key: _converted(value, hints[key], prefix + key, getattr(default, key, own.get(key)))
        for key, value in values.items()
    }
    return cls(**given) if default is None else replace(default, **given)  # type: ignore[type-var]


def load_recipe(params: Path, preset: str) -> Recipe:
    """Read one named preset of a `params.yaml`. Raises ConfigError."""
    presets = load_section(params, "presets")
    if preset not in presets:
        raise ConfigError(
            f"one of the presets {', '.join(sorted(presets))}",
            f"'{preset}'",
            f"Choose one of them or add it to {params}.",
        )
    recipe = from_mapping(Recipe, presets[preset], f"presets.{preset}")
    if recipe.model.sight != PLAIN:
        raise ConfigError(
            "no model.sight in a preset: what a model sees is in the dataset's card",
            f"one under 'presets.{preset}'",
            "Remove it.",
        )
    return recipe


def load_section(params: Path, section: str) -> Mapping[str, Any]:
    """One top-level mapping of a `params.yaml`. Raises ConfigError."""
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            "a parameter file", f"nothing at {params}", "Run from the project's folder."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"readable YAML in {params}", reason, "Mend or replace the file.") from error
    if not isinstance(content, Mapping) or not isinstance(content.get(section), Mapping):
        raise ConfigError(f"a mapping '{section}' in {params}", "none", "Restore it from version control.")
    return content[section]


def _converted(value: Any, kind: type, where: str, default: Any = None) -> Any:
    if value is None and type(None) in get_args(kind):
        return None
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"'{where}' to be a list", f"{value!r}", "Write [first, second].")
        return tuple(_converted(one, get_args(kind)[0], f"{where}.{at}") for at, one in enumerate(value))
    for one in (kind, *get_args(kind)):
        if hasattr(one, "__dataclass_fields__"):
            return from_mapping(one, value, where, default)
    if float in (kind, *get_args(kind)) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        name = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"'{where}' to be {name}", f"{value!r}", "Write a value of that type.")
    return value
