"""Convolutional networks that see a bounded neighbourhood and nothing else.

No layer takes statistics over space (no group, instance or batch norm), so a pixel's output depends
only on pixels within `receptive_radius()`; that is what makes tiled reconstruction exact. Training is
kept stable by what replaces norms in magnitude-preserving networks: filters of unit length, an
activation and residual sums scaled to preserve variance (Karras et al. 2024, arXiv 2312.02696).

Height and width of the input must be multiples of `stride`. Borders are zero-padded.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cvdm.config import NetworkConfig

SILU_GAIN = 1 / 0.596
"""1 / standard deviation of silu(n), n standard normal."""
RESIDUAL_SHARE = 0.3
"""Weight of the residual branch in a magnitude-preserving sum."""


class UnitConv(nn.Module):
    """Convolution whose filters are scaled to unit length on use, zero-padded to keep the size.

    What its input or output is to be multiplied with comes as `gain`, into the few filters, not many pixels.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.stride = stride
        self.padding = kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        scale = torch.linalg.vector_norm(self.weight, dim=(1, 2, 3), keepdim=True)
        filters = self.weight * (gain / (scale + 1e-6))
        return functional.conv2d(x, filters, stride=self.stride, padding=self.padding)


class OutputConv(nn.Module):
    """Plain 3 x 3 convolution with bias, starting at zero, so that a new network says nothing."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def silu(x: Tensor) -> Tensor:
    """Magnitude-preserving SiLU."""
    return functional.silu(x) * SILU_GAIN


class Block(nn.Module):
    """Two 3 x 3 convolutions added to their input, magnitude preserved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = UnitConv(channels, channels, 3)
        self.second = UnitConv(channels, channels, 3)
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = RESIDUAL_SHARE
        length = math.hypot(1 - a, a)
        # Under a name the first convolution's output would stay while the second one runs.
        h = functional.silu(self.first(functional.silu(x), SILU_GAIN * self.gain.view(-1, 1, 1, 1)))
        residual = self.second(h, SILU_GAIN * a / length)
        return torch.add(residual, x, alpha=(1 - a) / length)


class LocalConvNet(nn.Module):
    """Three 3 x 3 convolutions at half resolution, upsampled: the schedule's map from the observation."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.enter = UnitConv(4 * inputs + 1, width, 3)
        self.inner = UnitConv(width, width, 3)
        self.leave = OutputConv(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        coarse = with_constant(functional.pixel_unshuffle(x, 2))
        coarse = self.leave(silu(self.inner(silu(self.enter(coarse)))))
        return functional.interpolate(coarse, scale_factor=2, mode="nearest")

    def receptive_radius(self) -> int:
        return 3 * 2 + 1


class UNet(nn.Module):
    """Multi-resolution network; inputs (B, inputs, H, W) to (B, outputs, H, W), both at full resolution.

    `precision` and `recompute` say how it is evaluated (`cvdm.execution`) and are not part of its state.
    """

    precision = torch.float32
    """bfloat16: convolutions and activations by autocast; input, weights and output keep their type."""
    recompute = False
    """Whether the backward pass computes the activations within a level again, and only its input is kept."""

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.stride, self.stem, self.levels, self.blocks = (
            config.stride,
            config.stem,
            config.levels,
            config.blocks,
        )
        width, stem, blocks = config.width, config.stem, config.blocks
        widths = [width * 2**level for level in range(config.levels)]
        self.enter = UnitConv(inputs * stem**2 + 1, width, 3)
        self.down = nn.ModuleList(_stack(w, blocks) for w in widths)
        self.shrink = nn.ModuleList(UnitConv(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(UnitConv(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_stack(w, blocks) for w in widths[:-1])
        self.leave = OutputConv(width, outputs * stem**2)

    def forward(self, x: Tensor) -> Tensor:
        if self.precision == torch.float32:
            return self._evaluate(x)
        with torch.autocast(x.device.type, self.precision):
            return self._evaluate(x).to(x.dtype)

    def _evaluate(self, x: Tensor) -> Tensor:
        h = self.enter(with_constant(functional.pixel_unshuffle(x, self.stem)))
        skips = []
        for level in range(self.levels):
            h = self._through(self.down[level], h)
            if level < self.levels - 1:
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(self.levels - 1)):
            share = 1 / math.sqrt(2)
            h = functional.interpolate(self.grow[level](h, share), scale_factor=2, mode="nearest")
            h = torch.add(h, skips.pop(), alpha=share)
            h = self._through(self.up[level], h)
        return functional.pixel_shuffle(self.leave(silu(h)), self.stem)

    def _through(self, level: nn.Module, h: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(level, h, use_reentrant=False, preserve_rng_state=False)
        return level(h)

    def receptive_radius(self) -> int:
        """Pixels that an output pixel sees on each side, at most (the longest path, plus grid alignment)."""
        radius = 2 * self.stem  # the entering and the leaving convolution
        for level in range(self.levels):
            passes = 1 if level == self.levels - 1 else 2
            radius += passes * self.blocks * 2 * self.stem * 2**level
        return radius + self.stride  # cells of the coarsest grid may start up to one cell away


def with_constant(x: Tensor) -> Tensor:
    """Append a channel of ones, the bias of a network whose convolutions have none."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def _stack(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(blocks)))
