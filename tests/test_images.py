"""Truth by construction: images are written by code, with values that are known, and read back."""

import io
import os
import struct
import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelloop.errors import ImageError
from labelloop.images import (
    MAX_PIXELS,
    MIN_SIDE_PX,
    black_and_white,
    normalise,
    percentiles,
    read_image,
    read_numbers,
    render_8bit,
)

RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 256, (20, 24), np.uint8)
RGB = RNG.integers(0, 256, (20, 24, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 24), np.uint16)
STACK = RNG.integers(0, 65536, (3, 4, 2, 20, 24), np.uint16)  # T Z C Y X


def pil_bytes(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_bytes(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def smooth_rgb():
    """Colours that JPEG keeps within a few levels."""
    y, x = np.mgrid[0:20, 0:24]
    return np.stack([y * 8, x * 8, 255 - y * 8], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(pil_bytes(GRAY, "PNG"), GRAY, id="png-gray"),
        pytest.param(pil_bytes(RGB, "PNG"), RGB, id="png-rgb"),
        pytest.param(pil_bytes(DEEP, "PNG"), DEEP, id="png-16-bit"),
        pytest.param(pil_bytes(np.dstack([RGB, GRAY]), "PNG"), RGB, id="png-rgba"),
        pytest.param(pil_bytes(np.dstack([GRAY, GRAY]), "PNG"), GRAY, id="png-gray-and-alpha"),
        pytest.param(
            pil_bytes(Image.fromarray(GRAY > 99), "PNG"), (GRAY > 99).astype(np.uint8) * 255, id="png-1-bit"
        ),
        pytest.param(
            pil_bytes(Image.fromarray(GRAY % 5).convert("P"), "PNG", transparency=0),
            np.dstack([GRAY % 5] * 3),
            id="png-palette",
        ),
        pytest.param(tiff_bytes(GRAY), GRAY, id="tiff-gray"),
        pytest.param(tiff_bytes(RGB, photometric="rgb"), RGB, id="tiff-rgb"),
        pytest.param(
            tiff_bytes(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"),
            RGB,
            id="tiff-planar-rgb",
        ),
        pytest.param(tiff_bytes(DEEP, byteorder=">"), DEEP, id="tiff-big-endian"),
        pytest.param(tiff_bytes(DEEP.astype(np.int32) - 9), DEEP.astype(np.int32) - 9, id="tiff-int32"),
        pytest.param(tiff_bytes(DEEP.astype(np.float32)), DEEP.astype(np.float32), id="tiff-float"),
        pytest.param(
            tiff_bytes(DEEP, compression="lzw", predictor=True, tile=(16, 16)), DEEP, id="tiff-lzw-tiles"
        ),
        pytest.param(tiff_bytes(DEEP, bigtiff=True, compression="zlib"), DEEP, id="bigtiff-zlib"),
        pytest.param(tiff_bytes(GRAY, photometric="miniswhite"), 255 - GRAY, id="tiff-white-is-zero"),
        pytest.param(
            tiff_bytes(GRAY > 99, photometric="minisblack"),
            (GRAY > 99).astype(np.uint8) * 255,
            id="tiff-1-bit",
        ),
        pytest.param(pil_bytes(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB, id="tiff-cmyk"),
        pytest.param(
            pil_bytes(Image.fromarray(GRAY % 5).convert("P"), "TIFF"),
            np.dstack([GRAY % 5] * 3),
            id="tiff-palette",
        ),
        pytest.param(tiff_bytes(STACK, ome=True, metadata={"axes": "TZCYX"}), STACK[0, 0, 0], id="ome-tiff"),
        pytest.param(
            tiff_bytes(STACK, imagej=True, metadata={"axes": "TZCYX"}), STACK[0, 0, 0], id="imagej-hyperstack"
        ),
        pytest.param(
            tiff_bytes(STACK[0, :, 0], photometric="minisblack", metadata=None), STACK[0, 0, 0], id="pages"
        ),
    ],
)
def test_pixels_come_back_as_they_were_written(tmp_path, data, expected):
    path = tmp_path / "image.any"
    path.write_bytes(data)
    read = read_image(path)
    np.testing.assert_array_equal(read.pixels, expected)
    assert read.pixels.dtype == expected.dtype.newbyteorder("=")
    assert read.size_hw == expected.shape[:2]


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpeg_comes_back_nearly_as_it_was_written(tmp_path, mode):
    pixels = smooth_rgb()
    image = Image.fromarray(pixels).convert(mode)
    path = tmp_path / "image.jpg"
    path.write_bytes(pil_bytes(image, "JPEG", quality=95))
    expected = pixels if mode != "L" else np.asarray(image)
    read = read_image(path).pixels
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_as_its_exif_says(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image.jpg"
    path.write_bytes(pil_bytes(smooth_rgb(), "JPEG", exif=exif))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_page_and_a_channel_of_a_stack_are_the_ones_asked_for(tmp_path, kind, compression):
    path = tmp_path / "stack.tif"
    if kind == "imagej" and compression:
        pytest.skip("ImageJ stacks are not compressed")
    path.write_bytes(tiff_bytes(STACK, metadata={"axes": "TZCYX"}, compression=compression, **{kind: True}))
    for page, channel in [(0, 0), (0, 1), (5, 1), (11, 0), (11, -1)]:
        expected = STACK[page // 4, page % 4, max(channel, 0)]
        np.testing.assert_array_equal(read_image(path, page=page, channel=channel).pixels, expected)
    with pytest.raises(ImageError, match=r"no such page \(12, of 12 "):
        read_image(path, page=12)
    with pytest.raises(ImageError, match=r"no such channel \(2, of 2 "):
        read_image(path, channel=2)


@pytest.mark.parametrize(
    "data", [pil_bytes(RGB, "PNG"), tiff_bytes(RGB, photometric="rgb")], ids=["png", "tiff"]
)
def test_a_colour_is_a_channel_too(tmp_path, data):
    path = tmp_path / "image"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path, channel=2).pixels, RGB[..., 2])
    with pytest.raises(ImageError, match="no such channel"):
        read_image(path, channel=3)
    with pytest.raises(ImageError, match="no such page"):
        read_image(path, page=1)


def test_samples_that_are_no_colours_are_channels(tmp_path):
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_bytes(RGB, photometric="minisblack", planarconfig="contig"))
    np.testing.assert_array_equal(read_image(path).pixels, RGB[..., 0])
    np.testing.assert_array_equal(read_image(path, channel=1).pixels, RGB[..., 1])


@pytest.mark.parametrize(
    ("kind", "count", "value", "pixel_size_um"),
    [
        pytest.param(11, 1, struct.pack("<f", 20_000), 0.5, id="float"),
        pytest.param(3, 1, struct.pack("<HH", 20_000, 0), 0.5, id="short"),
        pytest.param(11, 1, struct.pack("<f", np.inf), None, id="infinite"),
        pytest.param(3, 2, struct.pack("<HH", 20_000, 0), None, id="by-zero"),
        pytest.param(1, 4, bytes(4), None, id="four-numbers"),
        pytest.param(2, 4, b"1/2\0", None, id="text"),
    ],
)
def test_a_resolution_of_another_type_does_not_spoil_an_image(tmp_path, kind, count, value, pixel_size_um):
    path = tmp_path / "x.tif"
    data = bytearray(tiff_bytes(GRAY, resolution=(1, 1), resolutionunit="CENTIMETER", metadata=None))
    path.write_bytes(data)
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages.first.tags["XResolution"].offset
    data[entry + 2 : entry + 12] = struct.pack("<HI", kind, count) + value
    path.write_bytes(data)
    assert read_image(path).pixel_size_um == pixel_size_um


@pytest.mark.parametrize(
    ("options", "pixel_size_um"),
    [
        pytest.param({"ome": True, "metadata": {"PhysicalSizeX": 0.65}}, 0.65, id="ome-default-unit"),
        pytest.param(
            {"ome": True, "metadata": {"PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm"}}, 0.65, id="ome-nm"
        ),
        pytest.param({"ome": True}, None, id="ome-silent"),
        pytest.param(
            {"imagej": True, "metadata": {"unit": "micron"}, "resolution": (4, 4)}, 0.25, id="imagej-micron"
        ),
        pytest.param(
            {"imagej": True, "metadata": {"unit": "mm"}, "resolution": (2000, 2000)}, 0.5, id="imagej-mm"
        ),
        pytest.param({"imagej": True, "metadata": {"unit": "pixel"}}, None, id="imagej-pixel"),
        pytest.param(
            {"imagej": True, "metadata": {"unit": "mm"}, "resolution": (20, 20)}, 50, id="imagej-mm-coarse"
        ),
        *(
            pytest.param(
                {"imagej": True, "metadata": {"unit": unit}, "resolution": (per_unit, per_unit)},
                None,
                id=f"imagej-{per_unit}-per-{unit}",
            )
            for unit, per_unit in (("inch", 72), ("inch", 300), ("in", 150), ("Inch", 96), ("cm", 118))
        ),
        pytest.param(
            {"imagej": True, "metadata": {"unit": "cm"}, "resolution": (20000, 20000)}, 0.5, id="imagej-cm"
        ),
        pytest.param({"resolution": (20000, 20000), "resolutionunit": 3}, 0.5, id="per-centimetre"),
        pytest.param({"resolution": (72, 72), "resolutionunit": 2}, None, id="72-dpi"),
        pytest.param({"resolution": (300, 300), "resolutionunit": 2}, None, id="300-dpi"),
        pytest.param({}, None, id="silent"),
    ],
)
def test_pixel_size_is_what_the_file_says(tmp_path, options, pixel_size_um):
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_bytes(DEEP, **options))
    assert read_image(path).pixel_size_um == (pixel_size_um and pytest.approx(pixel_size_um))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="zero-bytes"),
        pytest.param(b"stain,day\nDAPI,3\n", "not a PNG, JPEG or TIFF", id="text"),
        pytest.param(b"II*\0\0\0\0\0", "TIFF", id="tiff-of-0-pages"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "truncated", id="png-signature-alone"),
        pytest.param(pil_bytes(GRAY[:1, :1], "PNG"), "too small", id="1x1"),
        pytest.param(tiff_bytes(GRAY[: MIN_SIDE_PX - 1]), "too small", id="a-row-too-few"),
        pytest.param(tiff_bytes(np.full((9, 9), np.nan, np.float32)), "NaN", id="nan"),
        pytest.param(tiff_bytes(np.full((9, 9), np.inf, np.float64)), "NaN or infinite", id="inf"),
        pytest.param(tiff_bytes(np.ones((9, 9), np.complex64)), "not real", id="complex"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason_and_name(tmp_path, data, reason):
    path = tmp_path / "Größe 1 µm.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.value == str(path)


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(path)


def test_a_named_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="it is a pipe"):
        read_image(tmp_path / "pipe.png")


def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded(tmp_path):
    import struct
    import zlib

    side = int(MAX_PIXELS**0.5) + 9

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="too big"):
        read_image(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_twelve_thousand_pixels_a_side_are_read(tmp_path, kind):
    pixels = np.zeros((12000, 12000), np.uint8)
    pixels[11999, 5] = 9
    path = tmp_path / f"large.{kind}"
    path.write_bytes(pil_bytes(pixels, "PNG", compress_level=1) if kind == "png" else tiff_bytes(pixels))
    read = read_image(path).pixels
    assert read.shape == (12000, 12000)
    assert read[11999, 5] == 9


def test_one_page_of_a_large_stack_is_read_without_the_others(tmp_path):
    import tracemalloc

    path = tmp_path / "stack.tif"
    path.write_bytes(tiff_bytes(np.zeros((40, 256, 256), np.uint16), imagej=True, metadata={"axes": "ZYX"}))
    tracemalloc.start()
    read_image(path, page=39)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 256 * 256 * 2


FUZZED = {
    "png": pil_bytes(GRAY, "PNG", dpi=(72, 72)),
    "palette": pil_bytes(Image.fromarray(RGB).convert("P"), "PNG", transparency=0),
    "jpeg": pil_bytes(RGB, "JPEG", exif=Image.Exif()),
    "progressive": pil_bytes(RGB, "JPEG", progressive=True),
    "tiff": tiff_bytes(GRAY),
    "lzw": tiff_bytes(GRAY, compression="lzw", predictor=True),
    "jpeg-tiff": tiff_bytes(RGB, photometric="rgb", compression="jpeg"),
    "ome": tiff_bytes(STACK[0], ome=True, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.5}),
    "imagej": tiff_bytes(STACK[0], imagej=True, metadata={"axes": "ZCYX", "unit": "um"}, resolution=(2, 2)),
}


@pytest.mark.parametrize("name", FUZZED)
def test_a_file_cut_anywhere_is_read_whole_or_refused(tmp_path, name):
    data = FUZZED[name]
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = read_image(path).pixels
    for length in np.unique(np.linspace(0, len(data) - 1, 200).astype(int)):
        path.write_bytes(data[:length])
        try:
            read = read_image(path).pixels
        except ImageError:
            continue
        np.testing.assert_array_equal(read, whole)  # the page that is asked for lies before the cut


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(FUZZED)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    early=st.booleans(),
)
def test_changed_bytes_give_an_image_or_an_image_error(tmp_path, name, changes, early):
    data = bytearray(FUZZED[name])
    reach = min(len(data), 300) if early else len(data)
    for where, value in changes:
        data[int(where * reach)] = value
    path = tmp_path / "changed"
    path.write_bytes(bytes(data))
    for use in (read_image, read_numbers):
        try:
            use(path)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_reading_warns_of_nothing_and_says_nothing(tmp_path, capfd):
    data = pil_bytes(RGB, "JPEG")
    broken_exif = b"\xff\xe1\x00\x12Exif\0\0II*\0\xff\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(data[:2] + broken_exif + data[2:])
    (tmp_path / "b.tif").write_bytes(FUZZED["ome"][:-40])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(tmp_path.iterdir()):
            try:
                read_image(path)
            except ImageError:
                continue
    assert capfd.readouterr() == ("", "")


def test_a_tiff_that_claims_more_rows_than_it_holds_is_refused(tmp_path):
    data = bytearray(tiff_bytes(GRAY, metadata=None))
    path = tmp_path / "claims.tif"
    path.write_bytes(bytes(data))
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages.first.tags["ImageLength"]
        data[tag.valueoffset : tag.valueoffset + 4] = (9_000_000 if tag.dtype == 4 else 60_000).to_bytes(
            4, "little"
        )
    path.write_bytes(bytes(data))
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        read_image(path)


def test_numbers_of_a_palette_are_kept_as_labels(tmp_path):
    numbers = GRAY % 7
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([200, 10, 10, 0, 255, 0, 0, 0, 255] * 3)
    for kind in ("PNG", "TIFF"):
        path = tmp_path / f"labels.{kind}"
        path.write_bytes(pil_bytes(image, kind))
        np.testing.assert_array_equal(read_numbers(path), numbers)


@pytest.mark.parametrize(
    ("data", "planes"),
    [
        pytest.param(tiff_bytes(STACK[0, :, 0], photometric="minisblack"), 4, id="pages"),
        pytest.param(tiff_bytes(STACK[0, 0], imagej=True, metadata={"axes": "CYX"}), 2, id="imagej-channels"),
        pytest.param(tiff_bytes(STACK, ome=True, metadata={"axes": "TZCYX"}), 24, id="ome"),
        pytest.param(
            tiff_bytes(np.dstack([GRAY, GRAY]), photometric="minisblack", planarconfig="contig"),
            2,
            id="samples",
        ),
    ],
)
def test_labels_of_several_planes_are_refused(tmp_path, data, planes):
    path = tmp_path / "labels.tif"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"it has {planes} planes"):
        read_numbers(path)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff_bytes(GRAY[None, None], imagej=True, metadata={"axes": "ZCYX"}), id="imagej"),
        pytest.param(pil_bytes(Image.fromarray(np.dstack([GRAY, GRAY]), "LA"), "TIFF"), id="gray-and-alpha"),
        pytest.param(tiff_bytes(np.dstack([GRAY] * 3), photometric="rgb"), id="gray-as-rgb"),
    ],
)
def test_labels_of_one_plane_are_read_however_it_is_stored(tmp_path, data):
    path = tmp_path / "labels.tif"
    path.write_bytes(data)
    numbers = read_numbers(path)
    np.testing.assert_array_equal(numbers if numbers.ndim == 2 else numbers[..., 0], GRAY)


def test_a_jpeg_is_no_label_image(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(pil_bytes(GRAY, "JPEG"))
    with pytest.raises(ImageError, match="JPEG"):
        read_numbers(path)


def test_normalise_maps_low_to_0_and_high_to_1_and_clips():
    pixels = np.array([[0, 100], [150, 250]], np.uint16)
    out = normalise(pixels, 100.0, 200.0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.broadcast_to([[0, 0], [0.5, 1]], (3, 2, 2)), atol=1e-6)
    coloured = normalise(RGB, 0.0, 255.0)
    np.testing.assert_allclose(coloured, np.moveaxis(RGB, -1, 0) / 255, atol=1e-6)


def test_normalise_keeps_small_differences_on_a_large_offset():
    pixels = np.array([[1_000_000_000, 1_000_000_001]], np.int64).repeat(2, 0)
    np.testing.assert_array_equal(normalise(pixels, 1e9, 1e9 + 1)[0], [[0, 1], [0, 1]])


def test_a_flat_image_becomes_black_without_a_division_by_zero():
    flat = np.full((9, 9), 777, np.uint16)
    assert not normalise(flat, 777.0, 777.0).any()
    assert not render_8bit(flat).any()


def test_a_few_small_objects_on_a_background_of_one_value_are_seen():
    pixels = np.zeros((400, 400), np.uint16)
    pixels[10:30, 10:30] = 3000  # a quarter of a percent
    assert normalise(pixels, *percentiles(pixels, (0.5, 99.5)))[:, 15, 15].tolist() == [1, 1, 1]
    assert render_8bit(pixels)[15, 15] == 255


def test_percentiles_of_a_big_image_come_close_from_a_sample():
    ramp = np.linspace(0, 1, 3000 * 2000, dtype=np.float32).reshape(3000, 2000)
    assert percentiles(ramp, (0.5, 99.5)) == pytest.approx((0.005, 0.995), abs=2e-3)
    assert percentiles(GRAY, (0, 100)) == (GRAY.min(), GRAY.max())


@pytest.mark.parametrize(
    ("dtype", "limits"), [(np.uint8, (0, 255)), (np.uint16, (0, 65535)), (np.float32, (60, 180))]
)
def test_without_percentiles_black_and_white_are_the_ends_of_the_type_where_it_has_ends(dtype, limits):
    pixels = np.linspace(60, 180, 100).reshape(10, 10).astype(dtype)
    assert black_and_white(pixels, ()) == limits
    assert black_and_white(pixels, (0.0, 100.0)) == (60, 180)


def test_render_keeps_8_bit_and_stretches_the_rest():
    assert render_8bit(RGB) is RGB
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    eight = render_8bit(ramp)
    assert eight.dtype == np.uint8
    assert (eight.min(), eight.max()) == (0, 255)
    assert (np.diff(eight.astype(int).ravel()) >= 0).all()
    deep_rgb = render_8bit(RGB.astype(np.uint16) * 257)
    assert deep_rgb.shape == RGB.shape
    assert np.abs(deep_rgb.astype(int) - RGB).max() <= 4
