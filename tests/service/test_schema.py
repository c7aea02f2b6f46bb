"""What a client may ask."""

from __future__ import annotations

import pytest

from cvdm.config import SamplingConfig
from service.errors import ParameterError
from service.schema import Limits, Order, read_order

LIMITS = Limits(max_samples=64, max_steps=200)


def test_no_fields_leave_every_choice_open():
    """A bare upload asks for the champion with the model's own sampling."""
    order = read_order({"samples": "", "version": "champion"}, LIMITS)
    assert order == Order()
    assert order.sampling(SamplingConfig(samples=3, steps=7, seed=11)) == SamplingConfig(
        samples=3, steps=7, seed=11
    )


def test_a_version_may_be_an_alias():
    """`previous` is handed on, as the command line takes it; `champion` is what no version means."""
    assert read_order({"version": "previous"}, LIMITS) == Order(version="previous")
    assert read_order({"version": "champion"}, LIMITS) == Order()


def test_given_fields_replace_the_models_own():
    """Samples, steps and seed change the sampling, and nothing else of it."""
    order = read_order({"task": "a", "version": "3", "samples": "4", "steps": "5", "seed": "0"}, LIMITS)
    assert (order.task, order.version) == ("a", 3)
    default = SamplingConfig(samples=8, steps=10, seed=9, tile=64)
    assert order.sampling(default) == SamplingConfig(samples=4, steps=5, seed=0, tile=64)


@pytest.mark.parametrize(
    "fields",
    [
        {"samples": "1"},
        {"samples": "65"},
        {"samples": "four"},
        {"samples": "4.0"},
        {"samples": "٤"},
        {"steps": "0"},
        {"steps": "201"},
        {"steps": "1_0"},
        {"seed": "-1"},
        {"seed": str(2**63)},
        {"version": "0"},
        {"version": "latest"},
        {"tile": "64"},
        {"x" * 500: "1"},
    ],
)
def test_what_is_out_of_range_is_refused_by_name(fields):
    """The message names the field, quotes what came, and stays short."""
    with pytest.raises(ParameterError) as caught:
        read_order(fields, LIMITS)
    assert next(iter(fields))[:10] in str(caught.value)
    assert len(str(caught.value)) < 400
