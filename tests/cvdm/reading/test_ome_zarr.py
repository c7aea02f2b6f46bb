"""OME-Zarr 0.4 and 0.5: axes, facts, codecs, shards, and folders that mean harm.

Folders without compression are written by hand, word by word of the specification; compressed and sharded
ones by the package zarr, which these tests need.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.reading import read_stack

ODD = Path(__file__).parents[2] / "data" / "odd"
REAL = tifffile.imread(ODD / "timelapse_5x100x64_uint16_noaxes.tif")  # (5, 100, 64) uint16
LIMIT = 10**6
KINDS = {"t": "time", "c": "channel"}


def needs_zarr():
    return pytest.importorskip("zarr", reason="the extra zarr is not installed")


def multiscale(axes, scale=None, unit="micrometer", **more):
    steps = [{"type": "scale", "scale": scale or [1.0] * len(axes)}]
    named = [
        {"name": a, "type": KINDS.get(a, "space")} | ({"unit": unit} if a in "zyx" else {}) for a in axes
    ]
    return {"axes": named, "datasets": [{"path": "0", "coordinateTransformations": steps}]} | more


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def by_hand(root, pixels, axes="zyx", *, image=None, array=None, chunks=None):
    """An uncompressed OME-Zarr 0.4, one chunk per plane; `image` and `array` overwrite header entries."""
    chunks = chunks or (1,) * (pixels.ndim - 2) + pixels.shape[-2:]
    header = {
        "zarr_format": 2,
        "shape": pixels.shape,
        "chunks": chunks,
        "dtype": pixels.dtype.str,
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    write_json(root / ".zgroup", {"zarr_format": 2})
    write_json(root / ".zattrs", {"multiscales": [multiscale(axes, version="0.4")]} | (image or {}))
    write_json(root / "0" / ".zarray", header | (array or {}))
    for place in np.ndindex(pixels.shape[:-2]):
        file = root / "0" / "/".join(map(str, (*place, 0, 0)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pixels[place].tobytes())
    return root


def by_zarr(root, pixels, zarr_format, axes="zyx", **options):
    """The same by the package zarr, in format 2 (OME-Zarr 0.4) or 3 (0.5)."""
    zarr = needs_zarr()
    group = zarr.open_group(root, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=pixels, **options)
    if zarr_format == 2:
        group.attrs["multiscales"] = [multiscale(axes, version="0.4")]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale(axes)]}
    return root


def test_axes_sizes_and_channels_come_from_the_multiscale(tmp_path):
    """Units become micrometres, the scale of the image multiplies that of its full resolution."""
    needs_zarr()
    facts = multiscale("tczyx", [2.0, 1.0, 500.0, 80.0, 50.0], unit="nanometer", version="0.4")
    facts["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 2, 1, 2]}]
    image = {"multiscales": [facts], "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}}
    pixels = REAL[:4].reshape(2, 2, 1, 100, 64)
    with read_stack(by_hand(tmp_path / "a", pixels, "tczyx", image=image), max_pixels=LIMIT) as stack:
        assert (stack.axes, stack.shape, stack.format) == ("TCYX", (2, 2, 100, 64), "OME-Zarr 0.4")
        assert stack.pixel_size_um == pytest.approx((0.08, 0.1))
        assert stack.z_step_um == pytest.approx(1.0)
        assert stack.channel_names == ("DAPI", "GFP")
        np.testing.assert_array_equal(stack.pixels, pixels[:, :, 0])
        assert stack.plane(2).index == {"T": 1, "C": 0}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "uint32", "int16", "float16", "float32", "float64"]
)
def test_every_type_of_number_is_read(tmp_path, zarr_format, dtype):
    """Type, full range and values are the array's."""
    pixels = (REAL % 120).astype(dtype)
    root = by_zarr(tmp_path / "a", pixels, zarr_format, chunks=(2, 64, 64))
    with read_stack(root, max_pixels=LIMIT) as stack:
        assert (stack.dtype, stack.format) == (dtype, f"OME-Zarr 0.{zarr_format + 2}")
        np.testing.assert_array_equal(stack.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize("shards", [None, (4, 64, 64)])
@pytest.mark.parametrize("codec", ["none", "GzipCodec", "BloscCodec", "ZstdCodec"])
def test_compressed_chunks_and_shards_of_format_3(tmp_path, codec, shards):
    """The plane iterator gives the pixels whatever the chunks are."""
    codecs = pytest.importorskip("zarr.codecs")
    compressors = None if codec == "none" else getattr(codecs, codec)()
    root = by_zarr(tmp_path / "a", REAL, 3, chunks=(2, 32, 64), shards=shards, compressors=compressors)
    with read_stack(root, max_pixels=LIMIT) as stack:
        for plane, real in zip(stack.planes(), REAL, strict=True):
            np.testing.assert_array_equal(plane.pixels, real)


@pytest.mark.parametrize("codec", ["Blosc", "Zlib", "GZip", "Zstd", "LZ4"])
def test_compressed_chunks_of_format_2(tmp_path, codec):
    """Every allowed compressor; a flat name for each chunk; big-endian numbers."""
    numcodecs = pytest.importorskip("numcodecs")
    options = {"chunks": (2, 64, 32), "compressors": getattr(numcodecs, codec)()}
    root = by_zarr(tmp_path / "a", REAL.astype(">u2"), 2, **options)
    with read_stack(root, max_pixels=LIMIT) as stack:
        np.testing.assert_array_equal(stack.pixels, REAL)


def test_bioformats2raw_folders_tell_what_its_xml_tells(tmp_path):
    """The single image inside is opened, and objective and wavelength come from the OME-XML beside it."""
    needs_zarr()
    by_hand(tmp_path / "a" / "0", REAL, "tyx")
    write_json(tmp_path / "a" / ".zattrs", {"bioformats2raw.layout": 3})
    (tmp_path / "a" / "OME").mkdir()
    (tmp_path / "a" / "OME" / "METADATA.ome.xml").write_text(
        '<OME><Instrument><Objective ID="O" LensNA="1.2"/></Instrument><Image><Pixels>'
        '<Channel ExcitationWavelength="561"/></Pixels></Image></OME>'
    )
    with read_stack(tmp_path / "a", max_pixels=LIMIT) as stack:
        assert (stack.numerical_aperture, stack.wavelengths_nm) == (1.2, (561.0,))
        np.testing.assert_array_equal(stack.pixels, REAL)
    by_hand(tmp_path / "a" / "1", REAL, "tyx")
    with pytest.raises(ImageError, match="several"):
        read_stack(tmp_path / "a", max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        ({"shape": [10**6, 10**6, 10**6]}, "at most"),
        ({"chunks": [1, 10**5, 10**5]}, "chunks of at most"),
        ({"chunks": [0, 100, 64]}, "positive sizes"),
        ({"shape": [5, -100, 64]}, "positive sizes"),
        ({"shape": [5, 100]}, "positive sizes"),
        ({"dtype": "<c8"}, "complex64"),
        ({"dtype": "|O"}, "type"),
        ({"dtype": [["a", "<u2"]]}, "type"),
        ({"compressor": {"id": "pickle"}}, "pickle"),
        ({"filters": [{"id": "pickle"}]}, "pickle"),
        ({"filters": [{"id": "json2"}], "dtype": "|O"}, "json2"),
        ({"compressor": {"id": "lzma"}}, "lzma"),
        ({"chunks": None}, "damaged"),
    ],
)
def test_array_headers_that_lie_or_run_code_are_refused(tmp_path, array, reason):
    """From the header alone, before any chunk is read and any memory taken."""
    root = by_hand(tmp_path / "a", REAL, array=array)
    tracemalloc.start()
    with pytest.raises(ImageError, match=reason):
        read_stack(root, max_pixels=LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 5 * 10**6
    tracemalloc.stop()


def test_a_pickle_in_a_chunk_is_never_loaded(tmp_path):
    """The refusal comes before the code in the chunk could run."""
    mark = tmp_path / "ran"
    root = by_hand(tmp_path / "a", REAL, array={"filters": [{"id": "pickle"}], "dtype": "|O"})
    (root / "0" / "0" / "0" / "0").write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises(ImageError, match="pickle"):
        read_stack(root, max_pixels=LIMIT)
    assert not mark.exists()


class Touch:
    """Unpickling one leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"multiscales": [multiscale("zyx", version="0.3")]}, "version 0.3"),
        ({"multiscales": [multiscale("zyx"), multiscale("zyx")]}, "with 2"),
        ({"multiscales": [multiscale("ayx", version="0.4")]}, "axes a, y, x"),
        ({"multiscales": [multiscale("yx", version="0.4")]}, "for 3 dimensions"),
        ({"multiscales": [multiscale("yxz", version="0.4")]}, "row by row"),
        ({"multiscales": [multiscale("zyx") | {"datasets": [{"path": "../../b/0"}]}]}, "leads out"),
        ({"multiscales": [multiscale("zyx") | {"datasets": [{"path": "/etc"}]}]}, "leads out"),
        ({"multiscales": [multiscale("zyx") | {"datasets": [{"path": "9"}]}]}, "without its array"),
        ({"multiscales": [multiscale("zyx") | {"datasets": []}]}, "damaged"),
        ({"multiscales": "many"}, "with 4"),
    ],
)
def test_image_headers_that_do_not_fit_are_refused(tmp_path, image, reason):
    """Versions, axes and paths are checked; none leads out of the folder."""
    by_hand(tmp_path / "b", REAL)
    with pytest.raises(ImageError, match=reason):
        read_stack(by_hand(tmp_path / "a", REAL, image=image), max_pixels=LIMIT)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    """Neither a chunk nor a header may be a link to a file elsewhere on this machine."""
    needs_zarr()
    secret = tmp_path / "secret"
    secret.write_bytes(REAL[0].tobytes())
    root = by_hand(tmp_path / "a", REAL)
    chunk = root / "0" / "2" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to(secret)
    with pytest.raises(ImageError, match="leads out"), read_stack(root, max_pixels=LIMIT) as stack:
        list(stack.planes())
    header = root / "0" / ".zarray"
    header.rename(tmp_path / "header")
    header.symlink_to(tmp_path / "header")
    with pytest.raises(ImageError, match="leads out"):
        read_stack(root, max_pixels=LIMIT)


def test_a_pipe_in_place_of_a_chunk_does_not_hang(tmp_path):
    """Only regular files are opened."""
    needs_zarr()
    root = by_hand(tmp_path / "a", REAL)
    chunk = root / "0" / "2" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(ImageError, match="which is none"), read_stack(root, max_pixels=LIMIT) as stack:
        list(stack.planes())


def test_chunks_that_unpack_to_more_or_less_than_they_say_are_refused(tmp_path):
    """A bomb takes no memory; a short or oversized chunk file is damage."""
    needs_zarr()
    root = by_hand(tmp_path / "a", REAL, array={"compressor": {"id": "zlib", "level": 1}})
    for at, plane in enumerate(REAL):
        (root / "0" / str(at) / "0" / "0").write_bytes(zlib.compress(plane.tobytes()))
    with read_stack(root, max_pixels=LIMIT) as stack:
        np.testing.assert_array_equal(stack.pixels, REAL)
    chunk = root / "0" / "0" / "0" / "0"
    for bad in (zlib.compress(bytes(2 * 10**7)), zlib.compress(b"short"), b"no zlib", bytes(10**6)):
        chunk.write_bytes(bad)
        tracemalloc.start()
        with pytest.raises(ImageError), read_stack(root, max_pixels=LIMIT) as stack:
            list(stack.planes())
        assert tracemalloc.get_traced_memory()[1] < 10**7
        tracemalloc.stop()


def test_an_image_without_a_chunk_and_a_folder_without_an_image_are_refused(tmp_path):
    """An interrupted copy is not an image of zeros; a plate and any folder are named."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no image of OME-Zarr"):
        read_stack(tmp_path / "empty", max_pixels=LIMIT)
    write_json(tmp_path / "plate" / ".zattrs", {"plate": {}})
    with pytest.raises(ImageError, match="a plate"):
        read_stack(tmp_path / "plate", max_pixels=LIMIT)
    by_hand(tmp_path / "a", REAL[:0])
    write_json(
        tmp_path / "a" / "0" / ".zarray",
        json.loads((tmp_path / "a/0/.zarray").read_text()) | {"shape": [5, 100, 64], "chunks": [1, 100, 64]},
    )
    with pytest.raises(ImageError, match="no chunks"):
        read_stack(tmp_path / "a", max_pixels=LIMIT)


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    """Nothing else of the package needs zarr."""
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.delitem(sys.modules, "cvdm.reading.zarr_store", raising=False)
    with pytest.raises(ImageError, match=r"cvdm-platform\[zarr\]"):
        read_stack(by_hand(tmp_path / "a", REAL), max_pixels=LIMIT)


def test_damage_raises_nothing_but_an_image_error(tmp_path):
    """Bytes changed at random in headers and compressed chunks give pixels or an ImageError."""
    root = by_zarr(tmp_path / "a", REAL[:2, :40, :40], 3, chunks=(1, 40, 40), shards=(2, 40, 40))
    rng = np.random.default_rng(0)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(len(whole))] if rng.random() < 0.2 else damaged)
            try:
                with read_stack(root, max_pixels=LIMIT) as stack:
                    assert stack.pixels.shape == stack.shape
            except ImageError:
                continue
        path.write_bytes(whole)
