"""Conditional Variational Diffusion Models for microscopy: restoration with calibrated uncertainty.

This package is the science alone. It knows no experiment tracker, no orchestrator and no server;
time, randomness, paths and devices come in as arguments, and importing it does nothing.
"""
