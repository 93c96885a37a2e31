import pytest

from craft_onnx.attribution.tokens import patch_grid, prefix_tokens

SIZES = [(224, 224), (240, 320), (384, 128), (518, 518), (256, 176)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [8, 14, 16, 32])
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_grids_of_vision_transformers(size, patch, prefix):
    rows, columns = size[0] // patch, size[1] // patch
    found = prefix_tokens(rows * columns + prefix, size)
    assert found == prefix and patch_grid(rows * columns, size) == (rows, columns)


@pytest.mark.parametrize("size", [(16, 16), (12, 30), (30, 12), (17, 23)])
def test_a_grid_is_one_that_some_patch_gives(size):
    # Patches in steps of a hundredth of a pixel stand for those of any size.
    given = {
        rows * columns: (rows, columns)
        for s in range(100, 100 * min(size) + 1)
        if (rows := 100 * size[0] // s) * (columns := 100 * size[1] // s) <= 40
    }
    for count in range(1, 41):
        assert patch_grid(count, size) == given.get(count)


def test_patches_that_cover_the_picture_go_before_those_that_do_not():
    assert patch_grid(8, (16, 24)) == (2, 4) and patch_grid(8, (16, 24), exact=True) is None
    assert prefix_tokens(9, (16, 24)) == 3  # 2 x 3 of 8 pixels, and not 2 x 4 of 6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_tokens_before_the_patches_are_fewer(count):
    assert prefix_tokens(count, (224, 224)) in (0, None)


@pytest.mark.parametrize("count", [190, 195, 202, 250])
def test_no_grid(count):
    assert prefix_tokens(count, (224, 224)) is None
