"""Measurements of microscopy image pairs for the data gate: numbers that say how noisy, sharp, registered and
comparable two images are. Pure functions of pixels that never judge: thresholds and verdicts are elsewhere.
"""
