"""JSON that every reader takes: the standard has no NaN and no Infinity, so they are written as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain_json(document: Any) -> str:
    """A document of plain values as indented JSON; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
