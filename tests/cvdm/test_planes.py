"""Restoring through files: the same bits as in memory, taken up again after any end, for any image."""

import errno
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from specimens import cells, make_checkpoint

from cvdm.config import SamplingConfig
from cvdm.errors import StorageError
from cvdm.planes import Folder, Position
from cvdm.posterior import posterior_of, reconstruct
from cvdm.region import Region

SAMPLING = SamplingConfig(samples=3, steps=2, seed=4, tile=32)
ONE_PIECE, EXACT, BLENDED = (replace(SAMPLING, tile=512), SAMPLING, replace(SAMPLING, halo=12))
TWO_DRAWS = 60_000
"""Pixels of two draws of the image with its border, and of no third."""
NAMES = ("mean", "std", "lower", "upper", "schedule_map", "regression_mean")


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint()


@pytest.fixture(scope="module")
def image():
    return cells(np.random.default_rng(0), 150)[:, :110]


def equal(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)


class Ended(Exception):
    """The end of a process, as far as the files are concerned."""


def ending_after(evaluations):
    left = iter(range(evaluations))

    def progress(done, total):
        if next(left, None) is None:
            raise Ended

    return progress


@pytest.mark.parametrize("solver", ["ancestral", "dpm-solver++", "angular-euler"])
@pytest.mark.parametrize("sampling", [ONE_PIECE, EXACT, BLENDED])
def test_files_give_the_same_bits_as_memory(checkpoint, image, tmp_path, sampling, solver):
    """However an image is cut."""
    sampling = replace(sampling, solver=solver)
    folder = Folder(tmp_path, "a")
    through = posterior_of(checkpoint, image, sampling=sampling, workspace=folder).reconstruction()
    assert equal(through, reconstruct(checkpoint, image, sampling=sampling))


@pytest.mark.parametrize(
    ("sampling", "pixels"),
    [(EXACT, 1), (BLENDED, 1), (EXACT, TWO_DRAWS), (replace(EXACT, samples=5), TWO_DRAWS)],
)
@pytest.mark.parametrize("evaluations", [1, 7, 20, 33])
def test_work_that_ended_is_taken_up(checkpoint, image, tmp_path, monkeypatch, sampling, pixels, evaluations):
    """The same bits as undisturbed; repeated at each end is one strip and the begun next one at most.

    Draw by draw, as for a large image, or two at once and one in the last batch.
    """
    monkeypatch.setattr("cvdm.field_of_view.PIXELS_AT_ONCE", pixels)
    undisturbed, needed = [], 0
    whole = posterior_of(
        checkpoint, image, sampling=sampling, progress=lambda *seen: undisturbed.append(seen)
    ).reconstruction()
    ends = 0
    while True:
        seen, end = [], ending_after(evaluations)

        def counted(done, total, *, seen=seen, end=end):
            seen.append((done, total))
            end(done, total)

        try:
            again = posterior_of(
                checkpoint, image, sampling=sampling, workspace=Folder(tmp_path, "a"), progress=counted
            )
            break
        except Ended:
            ends += 1
            needed += len(seen)
            assert ends < 500, "it gets no further"
        finally:
            evaluations += 1
    assert equal(again.reconstruction(), whole)
    assert seen[-1] == undisturbed[-1]
    columns = 3
    assert needed + len(seen) <= len(undisturbed) + ends * 2 * columns


def _restore_and_die(folder, image, evaluations):
    left = iter(range(evaluations))

    def die(done, total):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    posterior_of(make_checkpoint(), image, sampling=EXACT, workspace=Folder(folder, "a"), progress=die)


def test_a_killed_process_leaves_what_the_next_one_needs(checkpoint, image, tmp_path):
    """kill -9, with nothing closed or flushed."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_restore_and_die, args=(tmp_path, image, 25))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = Folder(tmp_path, "a")
    assert folder.position > Position(1, 0)
    through = posterior_of(checkpoint, image, sampling=EXACT, workspace=folder).reconstruction()
    assert equal(through, reconstruct(checkpoint, image, sampling=EXACT))


def test_what_is_mapped_a_few_rows_at_a_time_comes_back(tmp_path, monkeypatch):
    """Any region of an array, and any rows and columns of an image, at steps and from the end, too."""
    monkeypatch.setattr("cvdm.planes.MAPPED_PIXELS", 100)
    values = torch.arange(2 * 3 * 50 * 40.0).view(2, 3, 50, 40)
    planes = Folder(tmp_path, "a").planes("values", (2, 3, 60, 50))
    planes.write(Region(7, 57, 5, 45), values)
    assert torch.equal(planes.read(Region(8, 55, 9, 44)), values[..., 1:48, 4:39])
    pixels = values[0, 0].numpy()
    image = Folder(tmp_path, "a").image(
        "image", (50, 40), lambda write, _: write(Region(0, 50, 0, 40), pixels)
    )
    assert np.array_equal(image[::3, 5:30], pixels[::3, 5:30])
    assert np.array_equal(image[-7:, ::2], pixels[-7:, ::2])


def test_other_work_in_the_same_folder_begins_anew(checkpoint, image, tmp_path):
    """What another identity left is not taken for one's own, and neither is a damaged note."""
    posterior_of(checkpoint, image, sampling=EXACT, workspace=Folder(tmp_path, "a"))
    assert Folder(tmp_path, "a").position > Position(0, 0) == Folder(tmp_path, "b").position
    turned = np.ascontiguousarray(image[::-1])
    through = posterior_of(checkpoint, turned, sampling=EXACT, workspace=Folder(tmp_path, "b"))
    assert equal(through.reconstruction(), reconstruct(checkpoint, turned, sampling=EXACT))
    (tmp_path / "progress.json").write_text("{")
    assert Folder(tmp_path, "b").position == Position(0, 0)


def test_a_result_is_read_region_by_region(checkpoint, image, tmp_path):
    """Any part of it equals that part of the whole."""
    posterior = posterior_of(checkpoint, image, sampling=EXACT, workspace=Folder(tmp_path, "a"))
    whole, region = posterior.reconstruction(), Region(30, 95, 7, 110)
    part = posterior.reconstruction(region)
    for name in NAMES:
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[region.slices], rtol=1e-6)
    assert np.array_equal(posterior.estimate(region).upper, part.upper)


def test_a_full_disk_is_said_before_anything_is_written(checkpoint, image, tmp_path, monkeypatch):
    """Room is taken at once; without that, a write into a mapped file would kill the process."""

    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"MiB.*No space left"):
        posterior_of(checkpoint, image, sampling=EXACT, workspace=Folder(tmp_path, "a"))
