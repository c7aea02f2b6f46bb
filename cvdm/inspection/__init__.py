"""Measures of microscopy images for the data gate: what an image or a pair is like, in numbers.

Nothing here judges. A measure takes pixels and gives a number, or None where the image allows no statement;
thresholds and verdicts are the caller's.
"""
