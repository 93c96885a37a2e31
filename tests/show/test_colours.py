import subprocess
import sys

import numpy as np
import pytest

from craft_onnx.show.colours import FAMILIAR, concept_colours, differences, hex_code, readable_on


@pytest.mark.parametrize(("k", "apart"), [(2, 0.15), (7, 0.076), (10, 0.076), (20, 0.076), (25, 0.067), (40, 0.049)])
def test_any_two_colours_can_be_told_apart(k, apart):
    """In OKLab, 0.02 is about a just noticeable difference; also for the colour-blind."""
    found = differences(concept_colours(k), concept_colours(k))
    assert found[~np.eye(k, dtype=bool)].min() >= apart


def test_the_palette_is_better_than_evenly_spaced_hues():
    hues = np.linspace(0, 1, 20, endpoint=False)
    rainbow = 255 * np.clip(np.abs((hues[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0, 1)
    ours, theirs = (differences(x, x)[~np.eye(20, dtype=bool)].min() for x in (concept_colours(20), rainbow))
    assert ours > 3 * theirs


def test_the_first_colours_stay_whatever_k():
    longest = concept_colours(300)
    assert [hex_code(colour).upper() for colour in longest[:7]] == list(FAMILIAR)
    for k in range(1, 40):
        assert np.array_equal(concept_colours(k), longest[:k])
    assert len(np.unique(longest, axis=0)) == 300


def test_there_are_colours_for_any_number_of_concepts():
    assert concept_colours(0).shape == (0, 3)
    many = concept_colours(6000)
    assert many.shape == (6000, 3) and many.dtype == np.uint8


def test_ottossons_reference_values():
    """Distances from black and white: https://bottosson.github.io/posts/oklab/ gives white (1, 0, 0)."""
    black, white, red = np.array([[0, 0, 0]]), np.array([[255, 255, 255]]), np.array([[255, 0, 0]])
    from craft_onnx.show.colours import _seen

    assert _seen(white)[0][0] == pytest.approx([1, 0, 0], abs=1e-6)
    assert _seen(red)[0][0] == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-4)
    assert differences(black, white)[0, 0] == pytest.approx(1, abs=1e-3)


def test_red_and_green_are_alike_to_the_colour_blind():
    red, green, blue = np.array([[200, 60, 40]]), np.array([[110, 110, 40]]), np.array([[40, 60, 200]])
    assert differences(red, green)[0, 0] < 0.07 < differences(red, blue)[0, 0]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (230, 159, 0), (0, 114, 178), (255, 0, 0), (0, 0, 255)])
def test_text_on_a_colour_has_the_better_contrast(colour):
    def contrast(a, b):
        x, y = sorted(
            sum(w * _literal_linear(c) for w, c in zip((0.2126, 0.7152, 0.0722), z, strict=True)) for z in (a, b)
        )
        return (y + 0.05) / (x + 0.05)

    ink = tuple(int(c) for c in readable_on(np.array(colour, np.uint8)))
    assert contrast(ink, colour) == max(contrast((0, 0, 0), colour), contrast((255, 255, 255), colour)) > 4.5


def _literal_linear(value):
    x = value / 255
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


def test_drawing_needs_nothing_of_ours_and_no_matplotlib():
    code = (
        "import sys, craft_onnx.show.overlay;"
        "print([m for m in sys.modules if m.split('.')[0] in ('matplotlib', 'onnxruntime', 'sklearn')"
        " or m.startswith('craft_onnx.') and not m.startswith('craft_onnx.show')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
