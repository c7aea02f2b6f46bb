"""What is known of the test fields and both models beside their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.shadow import ShadowSummary

Strata = Mapping[str, Mapping[str, str]]
"""By kind of stratum, for instance `session`, the label of every field."""


@dataclass(frozen=True)
class Background:
    """Looks, learned fields and strata; the gate cannot tell them from scores."""

    looks: int = 1
    """Candidates judged on these test fields so far, this one included."""
    learned: frozenset[str] | None = frozenset()
    """Fields that shaped the candidate's weights; None where that is not on record."""
    learned_by_champion: frozenset[str] | None = frozenset()
    """The same of the champion."""
    strata: Strata = field(default_factory=dict)
    shadow: ShadowSummary | None = None
    """How the candidate did beside the champion on users' images; None where it never ran in its shadow."""
