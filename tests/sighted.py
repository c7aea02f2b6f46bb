"""Datasets whose inputs are more than one plane: two channels, stacks, half the target's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import yaml
from specimens import CARD, cells

from cvdm.config import ModelConfig, NetworkConfig, Recipe, SamplingConfig, ScheduleConfig, TrainingConfig
from cvdm.images import write_tiff

NETWORK = NetworkConfig(width=8, levels=2, stem=1)
QUICK_RECIPE = Recipe(
    ModelConfig(mean=NETWORK, denoiser=NetworkConfig(width=4, levels=2), schedule=ScheduleConfig(width=4)),
    TrainingConfig(
        steps=120, batch=4, patch=32, warmup=10, ema=0.95, validate_every=120, checkpoint_every=120
    ),
    SamplingConfig(samples=2, steps=2, tile=64),
)
"""Learns in a few seconds whether there is something to learn."""
NAMES = ("dapi", "actin")


def write_channels(path: Path, channels: np.ndarray, names: tuple[str, ...] = NAMES, **facts: object) -> None:
    """An OME-TIFF (C, H, W) uint16 with named channels."""
    described = {"axes": "CYX", "Channel": {"Name": list(names)}, **facts}
    tifffile.imwrite(
        path, np.round(channels).astype(np.uint16), ome=True, photometric="minisblack", metadata=described
    )


def two_channels(root: Path, *, noise: float = 40.0, alone: bool = False, fields: int = 12) -> Path:
    """dapi shows the target's structure at half its brightness, actin (restored) has it under noise.

    alone: actin only, as a dataset of one channel.
    """
    rng = _begin(root, {} if alone else {"channels": list(NAMES), "channel": "actin"})
    for field in range(fields):
        clean = cells(rng, 64)
        actin = np.clip(clean + rng.normal(0, noise, clean.shape) + 200, 0, None)
        dapi = np.clip(40 + clean / 2 + rng.normal(0, 3, clean.shape), 0, None)
        name = f"f{field:02d}_c0"
        if alone:
            write_tiff(root / "low" / f"{name}.tif", np.round(actin).astype(np.uint16))
        else:
            write_channels(root / "low" / f"{name}.ome.tif", np.stack([dapi, actin]))
        target = clean + 200 + rng.normal(0, 1, clean.shape)
        write_tiff(root / "high" / f"{name}.tif", np.round(target).astype(np.uint16))
    return root


def stacks(root: Path, *, context: int = 1, planes: int = 5, fields: int = 8, noise: float = 40.0) -> Path:
    """Structure that is the same along z, noise of its own in each plane; without context, plane by plane."""
    rng = _begin(root, {"context": context} if context else {})
    for field in range(fields):
        clean = cells(rng, 64)
        low = np.clip(clean + 200 + rng.normal(0, noise, (planes, 64, 64)), 0, None)
        high = clean + 200 + rng.normal(0, 1, (planes, 64, 64))
        for side, pixels in (("low", low), ("high", high)):
            stored = np.round(pixels).astype(np.uint16)
            if context:
                path = root / side / f"f{field:02d}_c0.tif"
                tifffile.imwrite(path, stored, imagej=True, metadata={"axes": "ZYX"})
                continue
            for z, plane in enumerate(stored):
                write_tiff(root / side / f"f{field:02d}_c{z}.tif", plane)
    return root


def halved(root: Path, *, factor: int = 2, fields: int = 12, shift: int = 0, noise: float = 2.0) -> Path:
    """Inputs that are means over factor x factor pixels of sharp discs; shift: of the targets, in pixels."""
    small = {"hot_pixels": {"warn": None, "refuse": None}}  # a disc of a few pixels looks like one
    rng = _begin(root, {"factor": factor, "validation": small})
    size = 96
    for field in range(fields):
        clean = _sharp(rng, size)
        low = clean.reshape(size // factor, factor, size // factor, factor).mean((1, 3))
        low = np.clip(low + rng.normal(0, noise, low.shape), 0, None)
        high = np.clip(np.roll(clean, shift, axis=1) + rng.normal(0, noise / 4, clean.shape), 0, None)
        for side, pixels, pixel in (("low", low, 0.1), ("high", high, 0.1 / factor)):
            write_tiff(
                root / side / f"f{field:02d}_c0.tif", np.round(pixels).astype(np.uint16), pixel_size_um=pixel
            )
    return root


def card_with(root: Path, **changes: object) -> None:
    """Other values in a dataset's card."""
    card = yaml.safe_load((root / "card.yaml").read_text())
    (root / "card.yaml").write_text(yaml.safe_dump(card | changes))


def _begin(root: Path, keys: dict[str, object]) -> np.random.Generator:
    (root / "low").mkdir(parents=True)
    (root / "high").mkdir()
    (root / "card.yaml").write_text(CARD.format(task="test-cells", seed=2))
    card_with(root, **keys)
    return np.random.default_rng(0)


def _sharp(rng: np.random.Generator, size: int) -> np.ndarray:
    """Discs with edges of less than a pixel, 100..~600."""
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size), 100.0)
    for _ in range(40):
        row, column, radius = *rng.uniform(0, size, 2), rng.uniform(2, 5)
        image += rng.uniform(100, 300) / (1 + np.exp((np.hypot(rows - row, columns - column) - radius) / 0.3))
    return image
