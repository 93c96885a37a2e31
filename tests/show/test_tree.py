import numpy as np
import pytest

from craft_onnx.show.tree import LEAST, MOST, Node, concept_tree


def _node(title, weight, children=(), crops=2):
    pixels = np.full((8, 8, 3), 200, np.uint8)
    return Node(title, f"importance {weight}", weight, np.array([230, 159, 0], np.uint8), [pixels] * crops, children)


@pytest.fixture
def nodes():
    return [
        _node("a", 0.75, [_node("a0", 1.0), _node("a1", 0.0, [_node("a10", 0.5)])]),
        _node("costs $5 or $6", 0.25),
    ]


def test_every_concept_has_its_text_and_crops(nodes):
    figure = concept_tree("class 6", nodes)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    titles = ["a", "a0", "a1", "a10", r"costs \$5 or \$6"]
    assert texts[0] == "class 6" and texts[1::2] == titles and len(axes.images) == 10
    figure.canvas.draw()  # no dollar sign starts a formula


def test_branches_are_as_wide_as_concepts_are_important(nodes):
    (axes,) = concept_tree("class 6", nodes).axes
    widths = [patch.get_linewidth() for patch in axes.patches if not patch.get_fill()]
    assert widths == pytest.approx([LEAST + (MOST - LEAST) * w for w in (0.75, 1.0, 0.0, 0.5, 0.25)])


def test_nothing_lies_on_anything_else_or_outside(nodes):
    figure = concept_tree("class 6", nodes)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axes.patches if patch.get_fill()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
    for image in axes.images:
        inside = image.get_window_extent()
        assert any(box.x0 <= inside.x0 and inside.x1 <= box.x1 and box.y0 <= inside.y0 for box in boxes)


def test_long_titles_lose_their_middle(nodes):
    long = "Concept 12 at /model/features/stage_4/block_2/activation/HardSwish_output_0"
    figure = concept_tree("class 6", [_node(long, 0.5), *nodes])
    figure.canvas.draw()
    (axes,) = figure.axes
    box = [patch for patch in axes.patches if patch.get_fill()][1]  # the first is that of the class
    title = axes.texts[1]
    assert (
        title.get_text().startswith("Concept 12") and title.get_text().endswith("_output_0") and "…" in title.get_text()
    )
    inside = box.get_window_extent()
    for text in axes.texts[1:]:
        assert text.get_window_extent().width <= inside.width


def test_a_class_of_one_concept_without_crops_is_drawn():
    figure = concept_tree("class 0", [_node("only", 1.0, crops=0)])
    assert not figure.axes[0].images
