"""The code of a registered model, run by MLflow when it loads one; the model is a checkpoint directory.

    mlflow.pyfunc.load_model("models:/cvdm-TASK@champion").predict(pixels)

takes one image (H, W), or (C, H, W) for a model of several channels, float32 in the file's own units, and
returns (4, H, W) float32 in the same units, on the grid that the model restores to:
reconstruction, standard deviation, calibrated lower and upper bound, drawn as the model was calibrated.
"""

from __future__ import annotations

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

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Restore one image."""
        from cvdm.posterior import reconstruct

        result = reconstruct(self.checkpoint, model_input)
        return np.stack(list(result.channels().values()))


set_model(CheckpointModel())
