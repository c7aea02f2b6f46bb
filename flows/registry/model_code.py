"""The code of a registered model, run by MLflow when it loads one; the model itself is a checkpoint directory.

    mlflow.pyfunc.load_model("models:/cvdm-TASK@champion").predict(pixels)

takes one image (H, W) float32 in the file's own units and returns (4, H, W) float32 in the same units:
reconstruction, standard deviation, calibrated lower and upper bound. Optional params: samples, steps, seed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class CheckpointModel(PythonModel):
    """A checkpoint that proves itself on its golden pair before it answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read and verify the checkpoint. Raises CheckpointError."""
        from cvdm.checkpoint import load_checkpoint, verify_golden

        directory = Path(context.artifacts["checkpoint"])
        self.checkpoint = load_checkpoint(directory)
        verify_golden(directory, self.checkpoint)

    def predict(self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Restore one image."""
        from cvdm.posterior import reconstruct

        sampling = replace(self.checkpoint.recipe.sampling, **(params or {}))
        result = reconstruct(self.checkpoint, np.asarray(model_input), sampling=sampling)
        return np.stack(list(result.channels().values()))


set_model(CheckpointModel())
