"""What measures share: percentiles, and pixels in fewer bytes."""

from __future__ import annotations

import numpy as np
import pytest

from cvdm.inspection.blocks import median, percentiles
from cvdm.inspection.intensity import intensity
from cvdm.inspection.numeric_range import shortened


@pytest.mark.parametrize("length", [1, 2, 5, 1000])
def test_percentiles_and_medians_are_numpys(length):
    values = np.random.default_rng(length).normal(size=length)
    assert percentiles(values, 0, 1, 37.5, 99, 100) == pytest.approx(
        np.percentile(values, (0, 1, 37.5, 99, 100)), rel=1e-12
    )
    assert median(values) == pytest.approx(np.median(values), rel=1e-12)


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [(0, 1, "uint8"), (3, 255, "uint8"), (0, 256, "uint16"), (0, 65535, "uint16")],
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "float64"])
def test_whole_numbers_are_kept_in_fewer_bytes(dtype, lowest, highest, expected):
    image = np.random.default_rng(0).integers(lowest, highest + 1, (8, 8)).astype(dtype)
    image[0, :2] = lowest, highest
    short = shortened(image)
    assert short.dtype == expected
    assert np.array_equal(short, image)


@pytest.mark.parametrize("odd", [-1.0, 0.5, 65536.0, 1e30])
def test_other_values_stay_as_they_are(odd):
    image = np.zeros((4, 4), np.float32)
    image[1, 1] = odd
    assert shortened(image) is image


@pytest.mark.parametrize("shape", [(32, 33), (31, 33)])
def test_use_of_the_range_is_the_same_in_any_type(shape):
    image = np.random.default_rng(1).poisson(40, shape).clip(0, 255).astype(np.float32)
    found = [intensity(image.astype(dtype), full_range=255) for dtype in ("float32", "uint16", "uint8")]
    assert found[0] == found[1] == found[2]
