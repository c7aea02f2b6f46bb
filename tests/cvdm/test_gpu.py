"""What only a CUDA device can show: `pytest -m gpu`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from specimens import WINNING_RECIPE, cells, make_checkpoint

from cvdm.checkpoint import GOLDEN_TOLERANCE, load_checkpoint, save_checkpoint, verify_golden
from cvdm.config import SamplingConfig
from cvdm.dataset import load_dataset
from cvdm.posterior import reconstruct
from cvdm.training import train
from cvdm.training_state import read_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that PyTorch can use"),
]

SAMPLING = SamplingConfig(samples=4, steps=5, tile=64)


@pytest.fixture
def on_both(tmp_path):
    """The same checkpoint on CPU and GPU."""
    save_checkpoint(tmp_path / "model", make_checkpoint(), cells(np.random.default_rng(7), 64))
    return {device: load_checkpoint(tmp_path / "model", device=device) for device in ("cpu", "cuda")}


def test_a_compiled_training_in_bf16_learns(cells_dataset, tmp_path):
    """The regression error falls, everything stays finite, and what is stored is fp32."""
    training = replace(
        WINNING_RECIPE.training, steps=100, validate_every=100, precision="bf16", compile=True, recompute=True
    )
    recipe, state = replace(WINNING_RECIPE, training=training), tmp_path / "state.pt"
    steps = list(train(load_dataset(cells_dataset), recipe, state_path=state, device="cuda"))
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)
    first, last = (np.mean([s.losses["mean"] for s in part]) for part in (steps[:10], steps[-10:]))
    assert last < 0.7 * first
    assert {value.dtype for value in read_state(state)["average"].values()} == {torch.float32}


def test_gpu_and_cpu_agree(on_both, tmp_path):
    """Every quantity of a reconstruction, to the tolerance of a golden replay, which passes too."""
    pixels = cells(np.random.default_rng(3), 150)
    cpu, gpu = (reconstruct(on_both[device], pixels, sampling=SAMPLING) for device in ("cpu", "cuda"))
    span = 2 * on_both["cpu"].normalisation.scale_of(pixels).half_range
    for name in ("mean", "std", "lower", "upper", "regression_mean"):
        difference = np.abs(getattr(cpu, name) - getattr(gpu, name)).max()
        assert difference <= GOLDEN_TOLERANCE * span, name
    verify_golden(tmp_path / "model", on_both["cuda"])


def test_the_same_request_twice_gives_the_same_pixels(on_both):
    """Bit for bit, on one device."""
    pixels = cells(np.random.default_rng(3), 150)
    one, other = (reconstruct(on_both["cuda"], pixels, sampling=SAMPLING) for _ in range(2))
    assert np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)


def test_activations_are_channels_last_on_a_gpu(on_both):
    """cuDNN keeps the weights' format, too."""
    model, formats = on_both["cuda"].model, []
    for name, module in model.named_modules():
        if name.endswith((".first", ".second")):
            module.register_forward_hook(
                lambda _, __, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    model.condition(torch.randn(2, 1, 64, 64, device="cuda"))
    assert formats and all(formats)
