"""A look at a model in training: pictures for people, the schedule as numbers as well."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np

from cvdm.images import write_ome_tiff
from cvdm.reading import Metadata
from cvdm.validation import Validation
from flows.easel import Order


def snapshot_files(step: int, validation: Validation) -> dict[str, bytes]:
    """Numbers of one validation by their path among the artifacts."""
    name = f"{step:07d}"
    curves = (json.dumps(asdict(validation.schedule)) + "\n").encode()
    maps = {
        f"schedule/maps/{panel.field}-{name}.ome.tif": _map_file(panel.schedule_map)
        for panel in validation.panels
    }
    return {f"schedule/curves-{name}.json": curves, **maps}


def snapshot_pictures(step: int, validation: Validation) -> list[Order]:
    """Its pictures."""
    name, at = f"{step:07d}", f"step {step}"
    orders = [
        Order(
            f"schedule/curves-{name}.png",
            "schedule_curves",
            {"curves": validation.schedule, "title": f"Schedule at {at}"},
        ),
        Order(
            f"schedule/map-{name}.png",
            "schedule_maps",
            {"panels": validation.panels, "title": f"Schedule of the validation fields at {at}"},
        ),
    ]
    for panel in validation.panels:
        images = {"low": panel.low, "mean": panel.mean, "high": panel.high, "std": panel.std}
        title = f"Validation field {panel.field} at {at}"
        path = f"panels/validation-{panel.field}-{name}.png"
        orders.append(Order(path, "image_panel", {**images, "title": title}))
    return orders


def _map_file(time_map: np.ndarray) -> bytes:
    target = io.BytesIO()
    planes = [{"time_of_equal_signal_and_noise": time_map}]
    write_ome_tiff(target, planes, metadata=Metadata(), annotations={})
    return target.getvalue()
