import threading
from typing import ClassVar

import numpy as np
import pytest

from craft_onnx.errors import InputError
from craft_onnx.runtime.crops import Crops, ResizedCrops, grid_corners, random_corners, stream_crops


def _images(n=3, height=40, width=52, channels=3, layout="NCHW", dtype=np.float32):
    rng = np.random.default_rng(0)
    shape = (n, channels, height, width) if layout == "NCHW" else (n, height, width, channels)
    return (255 * rng.random(shape)).astype(dtype)


def _literal_crops(images, patch):
    """The two loops of the method's description, channels first."""
    stride = int(0.8 * patch)
    height, width = images.shape[2:]
    found = []
    for image in images:
        for i in range((height - patch) // stride + 1):
            for j in range((width - patch) // stride + 1):
                y, x = i * stride, j * stride
                found.append(image[:, y : y + patch, x : x + patch])
    return np.array(found)


def _literal_bilinear(image, size):
    """(C, H, W), half-pixel centres, the edge repeated, one output pixel at a time."""
    _, height, width = image.shape
    out = np.empty((image.shape[0], *size))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = image[:, y0, x0] * (1 - (x - x0)) + image[:, y0, x1] * (x - x0)
            bottom = image[:, y1, x0] * (1 - (x - x0)) + image[:, y1, x1] * (x - x0)
            out[:, i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def test_three_hundred_images_give_the_known_number_of_crops():
    assert len(grid_corners(256, 256, 80)) == 9
    images = np.broadcast_to(np.zeros((1, 3, 256, 256), np.float32), (300, 3, 256, 256))
    assert Crops.grid(images, 80).shape == (2700, 3, 80, 80)


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(40, 52, 16), (33, 33, 33), (64, 20, 7), (9, 9, 2), (61, 97, 20), (50, 50, 9)]
)
def test_grid_crops_are_the_methods(height, width, patch):
    images = _images(2, height, width)
    assert np.array_equal(np.asarray(Crops.grid(images, patch)), _literal_crops(images, patch))


def test_channels_last_crops_are_the_same():
    images = _images()
    last = Crops.grid(images.transpose(0, 2, 3, 1), 16, "NHWC")
    assert last.shape == (36, 16, 16, 3)
    assert np.array_equal(np.asarray(last).transpose(0, 3, 1, 2), np.asarray(Crops.grid(images, 16)))


def test_crops_index_like_an_array():
    crops = Crops.grid(_images(), 16)
    whole = np.asarray(crops)
    assert whole.shape == crops.shape and whole.dtype == crops.dtype == np.float32
    for key in (0, -1, np.int64(5), slice(2, 9, 3), slice(None), [4, 4, -2], [], np.arange(36) % 5 == 0, np.array([7])):
        assert np.array_equal(crops[key], whole[key])
    assert np.array_equal(np.stack(list(crops)), whole)
    assert np.asarray(crops, dtype=np.float64).dtype == np.float64
    with pytest.raises(IndexError):
        crops[36]


def test_an_origin_says_where_a_crop_was_cut():
    images = _images()
    crops = Crops.random(images, 16, per_image=4, random_state=3)
    for i, crop in enumerate(crops):
        image, y, x = crops.origin(i)
        assert np.array_equal(crop, images[image, :, y : y + 16, x : x + 16])
    assert crops.origin(-1) == crops.origin(len(crops) - 1)


def test_random_crops_follow_their_seed_and_reach_every_corner():
    images = _images()
    first, again, other = (np.asarray(Crops.random(images, 16, random_state=seed)) for seed in (0, 0, 1))
    assert first.shape == (30, 3, 16, 16)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    corners = random_corners(5, 4, 3, 500, np.random.default_rng(0))
    assert {tuple(corner) for corner in corners.tolist()} == {(y, x) for y in range(3) for x in range(2)}


@pytest.mark.parametrize("patch", [41, 100])
def test_a_patch_larger_than_the_images_is_refused_with_both(patch):
    with pytest.raises(InputError, match=rf"patch size {patch} .*40x52.* at most 40"):
        Crops.grid(_images(), patch)
    with pytest.raises(InputError, match=rf"patch size {patch}"):
        Crops.random(_images(), patch)


def test_other_impossible_requests_are_refused():
    with pytest.raises(InputError, match="patch size is 0"):
        grid_corners(8, 8, 0)
    with pytest.raises(InputError, match="no images"):
        Crops.grid(np.zeros((0, 3, 8, 8)), 4)
    with pytest.raises(InputError, match=r"\(8, 8\)"):
        Crops.grid(np.zeros((2, 8, 8)), 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_streamed_crops_are_resized_with_half_pixel_centres(channels, layout):
    images = _images(channels=channels, layout=layout)
    crops = Crops.grid(images, 16, layout)
    batches = list(stream_crops(crops, (24, 30), batch_size=5))
    assert [len(batch) for batch in batches] == [5] * 7 + [1]
    streamed = np.concatenate(batches)
    cut = np.asarray(crops)
    if layout == "NHWC":
        streamed, cut = streamed.transpose(0, 3, 1, 2), cut.transpose(0, 3, 1, 2)
    expected = np.array([_literal_bilinear(crop, (24, 30)) for crop in cut[::6]])
    assert np.abs(streamed[::6] - expected).max() < 255 * 1e-6  # float32


@pytest.mark.parametrize("batch_size", [1, 7, 8, 36, 100])
def test_every_batch_size_streams_the_same_crops_in_order(batch_size):
    crops = Crops.grid(_images(), 16)
    batches = list(stream_crops(crops, (16, 16), batch_size))
    assert np.array_equal(np.concatenate(batches), np.asarray(crops))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_a_baked_models_crops_stay_uint8():
    images = _images(layout="NHWC", dtype=np.uint8)
    (batch,) = stream_crops(Crops.grid(images, 20, "NHWC"), (24, 24), 100)
    assert batch.dtype == np.uint8
    expected = _literal_bilinear(images[0, :20, :20].transpose(2, 0, 1).astype(float), (24, 24)).transpose(1, 2, 0)
    assert np.abs(batch[0] - expected).max() <= 0.5001


def test_bilinear_agrees_with_torch():
    torch = pytest.importorskip("torch")
    images = _images(1, 80, 80)
    (batch,) = stream_crops(Crops.grid(images, 80), (224, 224), 4)
    expected = torch.nn.functional.interpolate(torch.from_numpy(images), (224, 224), mode="bilinear").numpy()
    assert np.abs(batch - expected).max() < 255 * 1e-5


class _Counting:
    """Makes one image at a time, and remembers how many were asked for."""

    def __init__(self, n, size=64):
        self.n, self.size, self.made = n, size, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError(i)
        self.made += 1
        return np.full((3, self.size, self.size), i, np.float32)


def test_images_are_made_once_and_only_a_little_ahead():
    images = _Counting(200)
    stream = stream_crops(Crops.grid(images, 64), (8, 8), batch_size=2)
    images.made = 0
    assert next(stream)[:, 0, 0, 0].tolist() == [0, 1]
    assert images.made <= 16
    rest = np.concatenate(list(stream))[:, 0, 0, 0]
    assert rest.tolist() == list(range(2, 200)) and images.made == 200


def test_crops_of_one_image_make_it_once():
    images = _Counting(4)
    crops = Crops.grid(images, 16)
    images.made = 0
    np.asarray(crops)
    assert images.made == 4


class _Failing(_Counting):
    def __getitem__(self, i):
        if i == 5:
            raise InputError("picture 5 is broken.")
        return super().__getitem__(i)


def test_what_an_image_raises_reaches_the_consumer():
    with pytest.raises(InputError, match="picture 5 is broken"):
        list(stream_crops(Crops.grid(_Failing(9), 64), (8, 8), 1))


def test_an_abandoned_stream_leaves_no_threads():
    before = threading.active_count()
    stream = stream_crops(Crops.grid(_Counting(50), 16), (8, 8), 4)
    next(stream)
    stream.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_selected_crops_are_those_of_the_indices(layout):
    images = np.random.default_rng(0).random((4, 3, 20, 24) if layout == "NCHW" else (4, 20, 24, 3)).astype(np.float32)
    crops = Crops.grid(images, 8, layout)
    chosen = crops.select([1, 2, 11, len(crops) - 1])
    assert np.array_equal(np.asarray(chosen), np.asarray(crops)[[1, 2, 11, -1]])
    assert chosen.origin(2) == crops.origin(11) and chosen.shape == (4, *crops.shape[1:])
    twice = chosen.select([0, 3])
    assert np.array_equal(twice[1], crops[len(crops) - 1])
    batches = np.concatenate(list(stream_crops(chosen, (16, 12), 3)))
    assert np.array_equal(batches, np.concatenate(list(stream_crops(crops, (16, 12), 5)))[[1, 2, 11, -1]])
    resized = ResizedCrops(chosen, (16, 12))
    assert len(resized) == 4 and all(np.array_equal(resized[i], batches[i]) for i in range(4))


def test_images_without_chosen_crops_are_not_made():
    class Lazy(list):
        asked: ClassVar[set] = set()

        def __getitem__(self, index):
            self.asked.add(index)
            return super().__getitem__(index)

    chosen = Crops.grid(Lazy(np.zeros((5, 3, 16, 16), np.float32)), 8).select([0, 13])
    Lazy.asked.clear()
    list(stream_crops(chosen, (8, 8), 4))
    assert Lazy.asked == {0, chosen.origin(1)[0]}
