import numpy as np
import pytest

from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.relevance.cache import SUFFIX, ImageCache

KEY = {
    "layer_name": "features/9:0",
    "mode": "relevance",
    "r_range": (0, 8),
    "composite": "epsilon_plus_flat",
    "rf": False,
    "f_name": "get_max_reference",
    "plot_f_name": "vis_opaque_img",
}
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (5, 4 + i, 3), dtype=np.uint8) for i in range(3)]
HEATS = [RNG.standard_normal((5, 4)).astype(np.float32) for _ in range(3)]


def assert_equal(actual, expected):
    assert type(actual) is type(expected) and len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        if isinstance(one, list):
            assert_equal(one, other)
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_what_was_saved_is_found_and_the_rest_is_missing(tmp_path):
    cache = ImageCache(tmp_path / "cache")
    references = {7: PICTURES, 3: (PICTURES, HEATS), "12:1": []}
    cache.save(references, **KEY)
    found, missing = ImageCache(tmp_path / "cache").load([3, 8, 7, "12:1", 7, 9], **KEY)
    assert list(found) == [3, 7, "12:1"] and missing == [8, 9]
    for concept, expected in references.items():
        assert_equal(found[concept], expected)
    assert cache.has(7, **KEY) and not cache.has(8, **KEY)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("layer_name", "features.9"),
        ("mode", "activation"),
        ("r_range", (0, 7)),
        ("composite", None),
        ("rf", True),
        ("f_name", "get_stats_reference"),
        ("plot_f_name", "vis_img_heatmap"),
    ],
)
def test_all_that_they_were_made_with_counts(tmp_path, name, other):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES}, **KEY)
    assert cache.load([7], **KEY | {name: other}) == ({}, [7])


def test_numbers_of_numpy_are_numbers(tmp_path):
    cache = ImageCache(tmp_path)
    cache.save({np.int64(7): PICTURES}, **KEY)
    assert list(cache.load(np.array([7]), **KEY)[0]) == [7]
    assert cache.load(["7"], **KEY)[1] == ["7"]


def test_saving_again_replaces(tmp_path):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES}, **KEY)
    cache.save({7: PICTURES[:1]}, **KEY)
    assert_equal(cache.load([7], **KEY)[0][7], PICTURES[:1])
    assert len(list(tmp_path.iterdir())) == 1  # nothing is left of the first, nor of writing


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"no zip"])
def test_a_damaged_file_counts_as_missing_and_is_made_again(tmp_path, damage):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES, 8: PICTURES}, **KEY)
    file = next(tmp_path.glob(f"*{SUFFIX}"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(CraftWarning, match="cannot be read"):
        found, missing = cache.load([7, 8], **KEY)
    assert len(found) == len(missing) == 1
    cache.save({missing[0]: PICTURES}, **KEY)
    assert cache.load([7, 8], **KEY)[1] == []


def test_a_flipped_byte_is_noticed(tmp_path):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES}, **KEY)
    file = next(tmp_path.glob(f"*{SUFFIX}"))
    data = bytearray(file.read_bytes())
    data[data.index(b"0_0.npy") + 60] ^= 0xFF  # within the first picture
    file.write_bytes(data)
    with pytest.warns(CraftWarning, match="cannot be read"):
        assert cache.load([7], **KEY)[1] == [7]


def test_a_file_of_other_references_is_not_taken_for_these(tmp_path):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES}, **KEY)
    file = next(tmp_path.iterdir())
    data = file.read_bytes()
    cache.save({8: PICTURES}, **KEY)
    (other,) = set(tmp_path.iterdir()) - {file}
    other.write_bytes(data)
    with pytest.warns(CraftWarning, match="other references"):
        assert cache.load([8], **KEY)[1] == [8]


def test_clearing_leaves_other_files(tmp_path):
    cache = ImageCache(tmp_path)
    cache.save({7: PICTURES}, **KEY)
    (tmp_path / "notes.npz").write_bytes(b"mine")
    cache.clear()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.npz"]
    ImageCache(tmp_path / "never made").clear()


def test_what_cannot_be_kept_is_refused(tmp_path):
    cache = ImageCache(tmp_path)
    with pytest.raises(InputError, match="cannot be known again"):
        cache.load([7], **KEY | {"composite": object()})
    with pytest.raises(InputError, match="no array of numbers"):
        cache.save({7: [object()]}, **KEY)
    assert list(tmp_path.iterdir()) == []
