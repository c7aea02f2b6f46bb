"""Make the widefield inputs of a dataset whose card says `inputs: simulated` from its targets.

Each input is `cvdm.optics.simulate_widefield` of its target with a seed of its own, stored as uint16 in the
target's units: rounded, and clipped to [0, 65535], since a corrected camera image holds no negative values.
The same target, card and versions of numpy and scipy give the same pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cvdm.card import load_card
from cvdm.dataset import image_files
from cvdm.errors import DatasetError
from cvdm.images import read_image, write_tiff
from cvdm.optics import simulate_widefield


def simulate_dataset(root: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Write low/NAME.tif for each high/NAME.tif and return how many; progress(done, total) after each.

    Existing inputs are replaced, each as a whole. Raises DatasetError when the card does not say that the
    inputs are simulated (measured ones are never overwritten), ImageError and StorageError.
    """
    root = Path(root)
    card = load_card(root)
    if card.inputs != "simulated" or card.forward_model is None:
        raise DatasetError(
            "a card with inputs: simulated and a forward_model",
            f"inputs: {card.inputs} in {root}",
            "Leave measured inputs as they are, or name another folder.",
        )
    targets = image_files(root / "high", card)
    for done, (name, path) in enumerate(targets.items(), start=1):
        target = read_image(path).pixels
        low = simulate_widefield(target, card.forward_model, image_seed(card.forward_model.seed, name))
        write_tiff(root / "low" / f"{name}.tif", np.clip(np.rint(low), 0, 65535).astype(np.uint16))
        if progress is not None:
            progress(done, len(targets))
    return len(targets)


def image_seed(seed: int, name: str) -> int:
    """The random seed of one image: a hash of the model's seed and the image's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
