"""Gaussian noise as a pure function of (seed, draw, step, absolute pixel position).

A counter-based generator: the four numbers are mixed by the finaliser of SplitMix64 (Steele, Lea &
Flood 2014) and turned into normal deviates by Box-Muller. Nothing is consumed in order, so a pixel's
noise does not depend on the size of the image, on the tile that it lies in, or on other draws.

Draws 2k and 2k + 1 share a field with opposite signs (antithetic variates): a draw is an almost odd function
of its noise about the posterior mean, so in the mean of a pair the noise cancels and what is left is the
posterior's own mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_field(
    height: int,
    width: int,
    *,
    seed: int,
    draw: int,
    step: int,
    top: int = 0,
    left: int = 0,
    device: str = "cpu",
) -> Tensor:
    """Standard normal noise (1, 1, height, width) whose corner lies at row `top`, column `left`."""
    rows = torch.arange(top, top + height, device=device, dtype=torch.int64).view(-1, 1)
    columns = torch.arange(left, left + width, device=device, dtype=torch.int64).view(1, -1)
    stream = _mix(torch.tensor([seed], dtype=torch.int64, device=device))
    for word in (draw // 2, step):
        stream = _mix(stream + word + 1)
    key = _mix(_mix(stream + rows) + columns)
    radius = torch.sqrt(-2 * torch.log(_unit(key)))
    normal = radius * torch.cos(2 * math.pi * _unit(_mix(key + 1)))
    sign = 1 - 2 * (draw % 2)
    return sign * normal.float().view(1, 1, height, width)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64 on int64; products wrap, shifts are made logical."""
    z = z + _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _unit(bits: Tensor) -> Tensor:
    """The upper 53 bits as a float64 in (0, 1]."""
    return (_shift(bits, 11).double() + 1) * 2.0**-53


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
