"""A look at a model in training, as files: pictures for people, the schedule as numbers as well."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np

from cvdm.images import write_ome_tiff
from cvdm.reading import Metadata
from cvdm.validation import Validation
from flows import pictures, schedule_pictures


def snapshot_files(step: int, validation: Validation) -> dict[str, bytes]:
    """Pictures and numbers of one validation by their path among the artifacts."""
    curves, name, at = validation.schedule, f"{step:07d}", f"step {step}"
    files = {
        f"schedule/curves-{name}.png": schedule_pictures.schedule_curves(curves, f"Schedule at {at}"),
        f"schedule/curves-{name}.json": (json.dumps(asdict(curves)) + "\n").encode(),
        f"schedule/map-{name}.png": schedule_pictures.schedule_maps(
            validation.panels, f"Schedule of the validation fields at {at}"
        ),
    }
    for panel in validation.panels:
        files[f"schedule/maps/{panel.field}-{name}.ome.tif"] = _map_file(panel.schedule_map)
        files[f"panels/validation-{panel.field}-{name}.png"] = pictures.image_panel(
            panel.low, panel.mean, panel.high, panel.std, title=f"Validation field {panel.field} at {at}"
        )
    return files


def _map_file(time_map: np.ndarray) -> bytes:
    target = io.BytesIO()
    planes = [{"time_of_equal_signal_and_noise": time_map}]
    write_ome_tiff(target, planes, metadata=Metadata(), annotations={})
    return target.getvalue()
