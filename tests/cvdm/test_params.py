"""Configuration from plain values: what is left out, and what is refused."""

import pytest

from cvdm.config import ModelConfig, NetworkConfig, Recipe
from cvdm.errors import ConfigError
from cvdm.params import from_mapping


def test_what_a_part_leaves_out_is_as_in_the_default_of_the_whole():
    """A wider denoiser is the default denoiser but for its width, whatever a network's own defaults are."""
    found = from_mapping(Recipe, {"model": {"denoiser": {"width": 24}}, "training": {"steps": 7}})
    default = ModelConfig().denoiser
    assert found.model.denoiser == NetworkConfig(24, default.levels, default.blocks, default.stem)
    assert default.stem != NetworkConfig().stem, "or this test would prove nothing"
    assert found.model.mean == ModelConfig().mean and found.training.steps == 7
    assert from_mapping(Recipe, {}) == Recipe()


def test_a_wrong_key_deep_inside_is_named_with_its_place():
    """Where it stands, and what is allowed there."""
    with pytest.raises(ConfigError, match=r"under 'model\.denoiser'; got unknown widht"):
        from_mapping(Recipe, {"model": {"denoiser": {"widht": 24}}})
