import io
import struct
import warnings
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.headers import read_header
from craft_onnx.runtime.pictures import Pictures, open_pictures

FORMATS = ("png", "jpg", "webp", "bmp", "gif", "tiff")


def _picture(height=30, width=47, seed=0):
    """Smooth, so that lossy formats keep it."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def _write(path, picture, **options):
    from PIL import Image

    Image.fromarray(picture).save(path, **options)
    return path


def _exif(orientation):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_is_read_as_rgb(tmp_path, extension):
    picture = _picture()
    path = _write(tmp_path / f"a.{extension}", picture, **({"quality": 95} if extension in ("jpg", "webp") else {}))
    with path.open("rb") as file:
        header = read_header(file)
    assert (header.height, header.width) == (30, 47)
    (read,) = open_pictures(path)
    assert read.shape == (30, 47, 3) and read.dtype == np.uint8
    assert np.abs(read.astype(int) - picture).mean() < {"jpg": 4, "webp": 4, "gif": 12}.get(extension, 1e-9)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_all_kinds_of_webp_tell_their_size(tmp_path, lossless, alpha):
    picture = np.dstack([_picture(), np.full((30, 47), 200, np.uint8)])[..., : 3 + alpha]
    path = _write(tmp_path / "a.webp", picture, lossless=lossless, exif=_exif(1) if alpha else b"")
    with path.open("rb") as file:
        assert (read_header(file).height, read_header.__name__) == (30, "read_header")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path, extension, orientation):
    from PIL import Image, ImageOps

    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(extension, {})
    path = _write(tmp_path / f"a.{extension}", _picture(), exif=_exif(orientation), **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    (read,) = open_pictures(path)
    assert read.shape == expected.shape
    assert np.abs(read - expected).max() <= 4  # two JPEG decoders


@pytest.mark.parametrize("extension", ["png", "tiff", "webp"])
def test_alpha_is_laid_on_white(tmp_path, extension):
    colour, opacity = _picture(), np.linspace(0, 255, 47).astype(np.uint8)[None].repeat(30, 0)
    path = _write(
        tmp_path / f"a.{extension}",
        np.dstack([colour, opacity]),
        **({"lossless": True, "exact": True} if extension == "webp" else {}),
    )
    (read,) = open_pictures(path)
    a = opacity[..., None] / 255
    assert np.abs(read - (colour * a + 255 * (1 - a))).max() <= (
        1.5 if extension == "tiff" else 0.5001
    )  # rounded twice


@pytest.mark.parametrize("extension", ["png", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_becomes_rgb_and_sixteen_bits_eight(tmp_path, extension, dtype):
    grey = np.linspace(0, np.iinfo(dtype).max, 30 * 47).reshape(30, 47).astype(dtype)
    cv2.imwrite(str(tmp_path / f"a.{extension}"), grey)
    (read,) = open_pictures(tmp_path / f"a.{extension}")
    assert np.abs(read - grey[..., None] * (255 / np.iinfo(dtype).max)).max() <= 0.5001
    cv2.imwrite(str(tmp_path / f"b.{extension}"), np.dstack([grey, grey // 2, 0 * grey]))
    (read,) = open_pictures(tmp_path / f"b.{extension}")
    assert np.abs(read[..., 2] - grey * (255 / np.iinfo(dtype).max)).max() <= 0.5001
    assert read[..., 0].max() == 0


def test_palettes_bits_and_cmyk_are_read(tmp_path):
    from PIL import Image

    picture = Image.fromarray(_picture())
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("1").save(tmp_path / "bits.png")
    picture.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    picture.convert("CMYK").save(tmp_path / "print.tiff")
    for name, read in zip(["bits.png", "palette.png", "print.jpg", "print.tiff"], open_pictures(tmp_path), strict=True):
        expected = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        assert np.abs(read - expected).mean() < 2, name


def test_a_folder_is_read_in_order_with_the_folders_in_it(tmp_path):
    for name in ("b.png", "a.PNG", "sub/deep/c.jpg", "sub/a.bmp", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), _picture())
    for name in ("notes.txt", ".DS_Store", "sub/labels.csv"):
        (tmp_path / name).write_text("no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = open_pictures(tmp_path)
    assert pictures.names == ["a.PNG", "b.png", "sub/a.bmp", "sub/deep/c.jpg"]
    assert len(pictures) == len(list(pictures)) == 4 and pictures.skipped == []


def test_symbolic_links_are_followed_but_not_for_ever(tmp_path):
    (tmp_path / "data").mkdir()
    cv2.imwrite(str(tmp_path / "data" / "a.png"), _picture())
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "given").symlink_to(tmp_path / "data")
    assert open_pictures(tmp_path / "given").names == ["a.png"]


def test_globs_files_and_lists_of_all(tmp_path):
    for name in ("a.png", "b.png", "c.bmp"):
        cv2.imwrite(str(tmp_path / name), _picture())
    (tmp_path / "a.txt").write_text("")
    assert open_pictures(str(tmp_path / "[ab].*")).names == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    mixed = open_pictures([tmp_path / "c.bmp", str(tmp_path / "b*"), _picture(5, 6), np.zeros((2, 4, 4, 3), np.uint8)])
    assert [picture.shape[:2] for picture in mixed] == [(30, 47), (30, 47), (5, 6), (4, 4), (4, 4)]
    assert mixed.names[2:] == ["picture 2", "picture 3", "picture 4"]
    assert open_pictures(mixed) is mixed


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((2, 5, 6, 3), [(5, 6)] * 2),
        ((2, 5, 6, 1), [(5, 6)] * 2),
        ((4, 5, 6), [(5, 6)] * 4),
        ((5, 6, 3), [(5, 6)]),
        ((5, 6), [(5, 6)]),
    ],
)
def test_arrays_of_pictures(tmp_path, shape, sizes):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", pictures=array, labels=np.zeros(4, int))
    sources = [array, tmp_path / "a.npy"] + ([tmp_path / "a.npz"] if len(shape) > 2 else [])
    for source in sources:
        read = list(open_pictures(source))
        assert [picture.shape for picture in read] == [(*size, 3) for size in sizes]
        assert np.array_equal(np.array(read).ravel()[:: 1 if shape[-1] == 3 else 3], array.ravel())


def test_a_npy_is_not_loaded_whole(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8, 3), np.uint8))
    pictures = open_pictures(tmp_path / "a.npy")
    assert isinstance(pictures.entries[0].pixels.base, np.memmap)
    assert pictures.names[1] == "a.npy[1]"


def test_subsets_are_pictures_again():
    pictures = open_pictures(np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(3, 3))
    assert [p.max() for p in pictures[1:3]] == [1, 2]
    assert [p.max() for p in pictures[[4, 0]]] == [4, 0]
    assert [p.max() for p in pictures[np.array([True, False, False, False, True])]] == [0, 4]
    assert len(pictures[[]]) == 0 and pictures[-1].max() == 4


def _gigantic_png(path):
    """A valid header of 60000x60000 pixels, and nothing to back it."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def test_bad_pictures_among_good_ones_are_skipped_with_a_count(tmp_path):
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"good{i}.png"), _picture(seed=i))
    _gigantic_png(tmp_path / "huge.png")
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "half.jpg").write_bytes(cv2.imencode(".jpg", _picture(200, 300))[1].tobytes()[:900])
    with pytest.warns(CraftWarning, match=r"4 of 8 pictures are skipped: .*and 1 more") as caught:
        pictures = open_pictures(tmp_path)
    assert len(caught) == 1
    assert len(list(pictures)) == len(pictures) == 4
    reasons = dict(pictures.skipped)
    assert reasons["huge.png"] == "60000x60000 pixels, the limit is 100000000"
    assert reasons["half.jpg"] == "a truncated jpeg"
    assert set(reasons) == {"huge.png", "text.jpg", "empty.png", "half.jpg"}


def _damaged_png(path):
    """Header and end are there; the pixels in between are not."""
    data = bytearray(cv2.imencode(".png", _picture())[1].tobytes())
    start = data.index(b"IDAT") + 8
    data[start : start + 200] = bytes(200)
    path.write_bytes(bytes(data))


def test_damage_that_only_decoding_finds_is_skipped_then(tmp_path, capfd):
    cv2.imwrite(str(tmp_path / "a.png"), _picture())
    _damaged_png(tmp_path / "b.png")
    cv2.imwrite(str(tmp_path / "c.png"), _picture())
    pictures = open_pictures(tmp_path)
    with pytest.warns(CraftWarning, match="1 of 3 pictures is skipped: b.png") as caught:
        assert [i for i, _ in pictures.readable()] == [0, 2]
    assert len(caught) == 1 and [name for name, _ in pictures.skipped] == ["b.png"]
    assert len(list(pictures)) == 2  # said once
    with pytest.raises(InputError, match=r"b\.png cannot be read: a damaged png"):
        pictures[1]
    assert "grfmt" not in capfd.readouterr().err


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, extension, part):
    path = _write(tmp_path / f"a.{extension}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(InputError, match="cannot be read"):
        open_pictures(path)[0]


def test_a_jpeg_with_a_trailer_is_whole(tmp_path):
    path = _write(tmp_path / "motion.jpg", _picture())
    path.write_bytes(path.read_bytes() + bytes(100_000))
    assert len(list(open_pictures(path))) == 1


def test_the_limit_holds_for_every_source(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), _picture(30, 47))
    for source in (tmp_path, _picture(30, 47)):
        assert len(open_pictures(source, max_pixels=1410)) == 1
        with pytest.raises(InputError, match="47x30 pixels, the limit is 1409"):
            open_pictures(source, max_pixels=1409)


def test_when_all_are_unreadable_the_first_reasons_are_given(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"None of the 5 pictures can be read: 0\.jpg \(neither PNG.* and 2 more"):
        open_pictures(tmp_path)
    _damaged_png(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png cannot be read"):
        list(open_pictures(tmp_path / "x.png"))


@pytest.mark.parametrize("name", ["nowhere.png", "nowhere", "text.png", "a.npy", "a.npz"])
def test_a_single_file_that_cannot_be_read_is_an_error(tmp_path, name):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "a.npy").write_text("no array")
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(InputError, match=name):
        open_pictures(tmp_path / name)


def test_empty_sources_are_errors(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds no pictures"):
        open_pictures(tmp_path)
    with pytest.raises(InputError, match=r"matches .* is a picture \(1 matches\)"):
        open_pictures(str(tmp_path / "*.txt"))
    for empty in ([], np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(InputError, match="No pictures were given"):
            open_pictures(empty)
    with pytest.raises(InputError, match="int holds no pictures"):
        open_pictures(3)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((2, 8, 8, 3)), "float64, not uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\)"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path, array, match):
    np.save(tmp_path / "a.npy", array)
    for source in (array, tmp_path / "a.npy"):
        with pytest.raises(InputError, match=match):
            open_pictures(source)


def test_pickles_are_never_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=name):
            open_pictures(tmp_path / name)


def test_an_archive_must_hold_one_array_of_pictures(tmp_path):
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "two.npz", a=picture, b=picture)
    with pytest.raises(InputError, match="2 and not one"):
        open_pictures(tmp_path / "two.npz")
    bomb = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        bomb, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 10**4, 3)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", bomb.getvalue())
    with pytest.raises(InputError, match="too large for an archive"):
        open_pictures(tmp_path / "bomb.npz")


def test_random_bytes_never_do_worse_than_value_error():
    """Headers of every format, then noise: parsers end, and only with ValueError."""
    rng = np.random.default_rng(0)
    starts = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe1",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"BM",
        b"GIF89a",
        b"II*\0",
        b"MM\0+",
        b"II+\0\x08\0\0\0",
    ]
    refused = 0
    for trial in range(2000):
        noise = rng.integers(0, 256, rng.integers(0, 80), np.uint8).tobytes()
        try:
            header = read_header(io.BytesIO(starts[trial % len(starts)] + noise))
            assert header.height > 0 and header.width > 0
        except ValueError:
            refused += 1
    assert 500 < refused < 2000


def test_pictures_are_a_sequence():
    pictures = open_pictures(np.zeros((3, 4, 4, 3), np.uint8))
    assert isinstance(pictures, Pictures) and len(pictures) == 3
    with pytest.raises(IndexError):
        pictures[3]
