"""The data gate: measure every pair, judge the measurements, say what is wrong in words.

features     the row of one pair
measuring    files to rows, in parallel
comparing    what a pair is like beside the others
quantities   measured numbers that have thresholds
policy       the thresholds
checks       rules and their words
expectations the Great Expectations suite
report       verdict, refusals and warnings
"""

from __future__ import annotations

from flows.validation.policy import ValidationPolicy, load_validation_policy
from flows.validation.report import Finding, ValidationError, ValidationReport, judge, validate_dataset

__all__ = [
    "Finding",
    "ValidationError",
    "ValidationPolicy",
    "ValidationReport",
    "judge",
    "load_validation_policy",
    "validate_dataset",
]
