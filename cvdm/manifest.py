"""The manifest of a prepared dataset: what training depends on, in one small file to hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cvdm.dataset import SPLITS, Dataset
from cvdm.patches import read_images
from cvdm.storage import replacing


def write_manifest(dataset: Dataset, path: Path) -> dict[str, Any]:
    """Read every pair, write the manifest and return it. Raises DatasetError, ImageError."""
    dataset.require_splits()
    for pair in dataset.pairs:
        read_images(pair)
    manifest = {
        "task": dataset.card.task,
        "digest": dataset.digest,
        "pairs": len(dataset.pairs),
        "fields": {split: list(dataset.fields(split)) for split in SPLITS},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest
