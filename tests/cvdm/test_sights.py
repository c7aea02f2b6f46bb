"""Models that see more than one plane: what they see helps, and their results are those of any model."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from sighted import NAMES, QUICK_RECIPE, card_with, halved, stacks, two_channels, write_channels
from specimens import TINY_RECIPE, cells, make_checkpoint

from cvdm import restoration
from cvdm.build import build_checkpoint, golden_input
from cvdm.checkpoint import load_checkpoint, save_checkpoint, verify_golden
from cvdm.config import SamplingConfig
from cvdm.dataset import load_dataset
from cvdm.errors import CheckpointError, ImageError
from cvdm.inspection.registration import register
from cvdm.measuring import evaluate
from cvdm.metrics import psnr, target_range
from cvdm.normalisation import Normalisation
from cvdm.observation import Observation
from cvdm.posterior import posterior_of, reconstruct
from cvdm.reading import read_stack
from cvdm.region import Region
from cvdm.restoration import disk_bytes, evaluations_of, restore_file
from cvdm.sight import Sight
from cvdm.suitability import doubts_of_file, doubts_of_image
from cvdm.training import train
from cvdm.upsampling import Upsampled
from cvdm.validation import validation_crops

SAMPLING = SamplingConfig(samples=2, steps=2, seed=4, tile=32)
TWO, HALF, NEAR = Sight(NAMES, "actin"), Sight(factor=2), Sight(context=1)
LONGER = {"steps": 300, "validate_every": 300}
ALL = Sight(NAMES, "actin", context=1, factor=3)


def model_of(sight: Sight):
    """Untrained, with everything that a trained one has."""
    made = make_checkpoint(recipe=TINY_RECIPE.seeing(sight))
    own = Normalisation("dataset", 0.0, 200.0)
    return replace(made, normalisation=replace(own, others=(own,) * (sight.channel_count - 1)))


def trained(root, tmp_path, **training):
    recipe = replace(QUICK_RECIPE, training=replace(QUICK_RECIPE.training, **training))
    state = tmp_path / f"{root.name}.pt"
    dataset = load_dataset(root)
    *_, last = train(dataset, recipe, state_path=state)
    return dataset, recipe, state, last.validation


def built(dataset, recipe, state):
    return build_checkpoint(dataset, recipe, state, git_commit=None, created="2026-01-01T00:00:00+00:00")


@pytest.mark.slow
def test_a_second_channel_teaches_what_the_first_does_not_show(tmp_path):
    """Training is far better with dapi and actin than with actin alone, whose noise hides the target; what it
    comes to is a checkpoint that proves itself and beats its baselines."""
    dataset, recipe, state, both = trained(two_channels(tmp_path / "both", noise=80.0), tmp_path, **LONGER)
    alone_root = two_channels(tmp_path / "alone", noise=80.0, alone=True)
    *_, alone = trained(alone_root, tmp_path, **LONGER)
    assert both.psnr > alone.psnr + 2 and both.crps < 0.8 * alone.crps
    checkpoint = build_checkpoint(
        dataset, recipe, state, git_commit=None, created="2026-01-01T00:00:00+00:00"
    )
    assert checkpoint.sight == TWO and len(checkpoint.normalisation.others) == 1
    save_checkpoint(tmp_path / "checkpoint", checkpoint, golden_input(dataset))
    loaded = load_checkpoint(tmp_path / "checkpoint")
    verify_golden(tmp_path / "checkpoint", loaded)
    assert loaded.sight == TWO and loaded.normalisation == checkpoint.normalisation
    result = evaluate(loaded, dataset, "test")
    best = max(np.mean(list(result.baselines[name]["psnr_fit"].values())) for name in ("input", "best-blur"))
    assert result.mean("psnr_fit") > best + 1
    card_with(dataset.root, channel="dapi")
    with pytest.raises(CheckpointError, match="a model that sees what the card"):
        evaluate(loaded, load_dataset(dataset.root), "test")


@pytest.mark.slow
def test_neighbours_help_where_structure_goes_on_and_noise_does_not(tmp_path):
    """Planes of one structure with noise of their own: three see more than one."""
    *_, near = trained(stacks(tmp_path / "near"), tmp_path, **LONGER)
    *_, alone = trained(stacks(tmp_path / "alone", context=0), tmp_path, **LONGER)
    assert near.psnr > alone.psnr + 0.5 and near.crps < 0.95 * alone.crps


def test_super_resolution_beats_interpolation_in_place(tmp_path):
    """After a short training sharper than cubic interpolation, and where the target is; of targets that lie a
    pixel further, a pixel further."""
    root = halved(tmp_path / "half")
    dataset, recipe, state, validation = trained(root, tmp_path, **LONGER)
    crops = validation_crops(dataset)
    cubic = np.mean([psnr(crop.low, crop.high, target_range(crop.high)) for crop in crops])
    assert validation.psnr > cubic + 0.5
    checkpoint = build_checkpoint(
        dataset, recipe, state, git_commit=None, created="2026-01-01T00:00:00+00:00"
    )
    means = [reconstruct(checkpoint, crop.observation, sampling=SAMPLING).mean for crop in crops]
    assert [mean.shape for mean in means] == [crop.high.shape for crop in crops] == [(96, 96)] * len(crops)
    for mean, crop in zip(means, crops, strict=True):
        found, moved = register(mean, crop.high), register(mean, np.roll(crop.high, 1, axis=1))
        assert found.shift_px < 0.15 and abs(moved.dx - 1) < 0.15


@pytest.mark.parametrize("sight", [TWO, HALF, NEAR, ALL], ids=["channels", "factor", "context", "all"])
def test_through_files_and_in_any_tiles_the_result_is_the_same(sight, tmp_path, monkeypatch):
    """Bit for bit through a folder, up to rounding with other tiles; the place restored first is what its
    observation alone comes to, and none is left out."""
    rng, model = np.random.default_rng(0), model_of(sight)
    channels = np.stack([cells(rng, 40)[:, :30] for _ in range(sight.channel_count)])
    pixels = np.stack([np.roll(channels, z, axis=2) for z in range(3)]) if sight.context else channels
    axes = ("Z" if sight.context else "") + ("C" if sight.channels else "") + "YX"
    pixels = pixels.reshape(*(3,) * sight.context, *pixels.shape[-3:])
    pixels = pixels if sight.channels else pixels.reshape(*pixels.shape[:-3], *pixels.shape[-2:])
    source = tmp_path / "image.tif"
    tifffile.imwrite(source, pixels.astype(np.uint16), ome=True, metadata={"axes": axes})
    results, asked = [], []
    for name, most, tile in (("held", 2**23, 512), ("mapped", 0, 512), ("tiled", 0, 32)):
        monkeypatch.setattr(restoration, "PIXELS_IN_MEMORY", most)
        monkeypatch.setattr("cvdm.region.BAND_PIXELS", 1000)
        target, done = tmp_path / f"{name}.ome.tif", []
        sampling = replace(SAMPLING, tile=tile)
        restore_file(
            model, source, target, sampling, annotations={}, progress=lambda *at, done=done: done.append(at)
        )
        with read_stack(source, max_pixels=10**6) as stack:
            assert done[-1] == (evaluations_of(model, stack, sampling),) * 2
            need = disk_bytes(sight, stack.axes, stack.shape)
        results.append(tifffile.imread(target))
        asked.append(need)
    height, width = 40 * sight.factor, 30 * sight.factor
    assert results[0].shape == ((3,) if sight.context else ()) + (4, height, width)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[2], results[0], atol=2e-3)
    order = [channels[number].astype(np.uint16) for number in sight.order]
    if sight.context:
        seen = tuple(tuple(np.roll(one, z, axis=1) for z in (0, 0, 1)) for one in order)
    else:
        seen = tuple((one,) for one in order)
    first = results[0][0] if sight.context else results[0]
    alone = reconstruct(model, Observation(seen, sight.factor), sampling=replace(SAMPLING, tile=512))
    np.testing.assert_allclose(first[0], alone.mean, atol=1e-3)
    assert asked[0] > 4 * 4 * height * width


def test_every_input_counts(tmp_path):
    """Another second channel, another neighbour: another result. A part read alone is a part of the whole."""
    model, rng = model_of(ALL), np.random.default_rng(1)
    planes = [[cells(rng, 24) for _ in range(3)] for _ in range(2)]
    known = posterior_of(model, Observation(tuple(map(tuple, planes)), 3), sampling=SAMPLING)
    before = known.estimate().mean
    region = Region(5, 50, 11, 40)
    np.testing.assert_array_equal(known.estimate(region).mean, before[region.slices])
    for channel in range(2):
        for plane in range(3):
            changed = [list(one) for one in planes]
            changed[channel][plane] = changed[channel][plane][::-1]
            other = reconstruct(model, Observation(tuple(map(tuple, changed)), 3), sampling=SAMPLING)
            assert np.abs(other.mean - before).max() > 1e-3, (channel, plane)


def test_results_say_what_they_are(tmp_path):
    """Pixel size by the factor, one set of channels with the restored one's wavelength, extent along z."""
    rng = np.random.default_rng(0)
    facts = {f"PhysicalSize{axis}": 0.3 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    excited = {"ExcitationWavelength": [561, 405], "ExcitationWavelengthUnit": ["nm", "nm"]}
    described = {"axes": "CYX", "Channel": {"Name": ["Actin", "DAPI"], **excited}, **facts}
    pixels = np.stack([cells(rng, 32), cells(rng, 32)])
    tifffile.imwrite(tmp_path / "in.tif", pixels.astype(np.uint16), ome=True, metadata=described)
    sight = Sight(NAMES, "actin", factor=3)
    restore_file(model_of(sight), tmp_path / "in.tif", tmp_path / "out.tif", SAMPLING, annotations={})
    with read_stack(tmp_path / "out.tif", max_pixels=10**6) as stack:
        assert stack.shape == (4, 96, 96) and stack.pixel_size_um == pytest.approx((0.1, 0.1))
        assert stack.channel_names == ("reconstruction", "uncertainty_std", "lower", "upper")
        assert stack.wavelengths_nm == (561.0,) * 4


def test_a_file_of_other_channels_is_refused(tmp_path):
    """Before any work, with the channels that the model sees; so is one that is too bright in any channel."""
    rng, model = np.random.default_rng(0), model_of(TWO)
    write_channels(tmp_path / "in.tif", np.stack([cells(rng, 32)] * 2), ("dapi", "tubulin"))
    with pytest.raises(ImageError, match=r"dapi, actin; got in.tif with 2 .dapi, tubulin."):
        restore_file(model, tmp_path / "in.tif", tmp_path / "out.tif", SAMPLING, annotations={})
    with pytest.raises(ImageError, match="in channel dapi"):
        reconstruct(model, np.stack([50 * cells(rng, 32), cells(rng, 32)]), sampling=SAMPLING)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_doubts_name_the_channel():
    """An empty second channel; pixels are compared on the grid of the input."""
    model, rng = model_of(TWO), np.random.default_rng(0)
    seen = Observation.of(np.stack([np.full((40, 40), 9.0), cells(rng, 40)]), TWO)
    (doubt,) = doubts_of_image(model, seen, 255.0, "a.tif")
    assert "a.tif, dapi, 9 everywhere" in doubt.actual


def test_one_plane_gives_a_model_with_context_doubts(tmp_path):
    """It is restored, as its own neighbour, but not silently."""
    tifffile.imwrite(tmp_path / "one.tif", np.zeros((32, 32), np.uint8))
    with read_stack(tmp_path / "one.tif", max_pixels=10**6) as stack:
        (doubt,) = doubts_of_file(model_of(NEAR), stack, "one.tif", stack.axes)
        assert "along Z" in doubt.expected
        assert doubts_of_file(model_of(Sight()), stack, "one.tif", stack.axes) == []


def test_a_plain_model_is_what_it_was():
    """Names and shapes of its weights do not know of channels, context or factor."""
    plain, half, two = (
        {name: tuple(one.shape) for name, one in model_of(sight).model.state_dict().items()}
        for sight in (Sight(), HALF, TWO)
    )
    assert plain == half and plain.keys() == two.keys()
    assert plain["denoiser.enter.weight"][1] == 6 * 4 + 1 and two["denoiser.enter.weight"][1] == 7 * 4 + 1
    pixels = cells(np.random.default_rng(0), 20)
    fine = np.asarray(Upsampled(pixels, 2)[:, :])
    ours = reconstruct(model_of(HALF), pixels, sampling=SAMPLING)
    same = reconstruct(model_of(Sight()), fine, sampling=SAMPLING)
    np.testing.assert_array_equal(ours.mean, same.mean)
