"""Sub-concepts against the rule that chooses crops, planted truth, and closed forms."""

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.nnls import nnls
from craft_onnx.concepts.recursion import has_one_support, strongest
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx.runtime.model import SplitModel, load

SETTINGS = {"number_of_concepts": 4, "batch_size": 16, "patch_size": 16}
CUTS = ("Relu_3", "Relu_1")


@pytest.fixture(scope="module")
def bundle(make_model, tmp_path_factory):
    """Cut after both ReLUs, the later one first."""
    return create_bundle(make_model("mlp"), CUTS, tmp_path_factory.mktemp("recursion") / "bundle")


@pytest.fixture(scope="module")
def parent(bundle, images):
    craft = Craft(SplitModel(bundle), **SETTINGS)
    craft.fit(images, class_id=2)
    craft.estimate_importance()
    return craft


@pytest.fixture(scope="module")
def sub(parent):
    return parent.decompose(1, "Relu_1", number_of_concepts=3, quantile=0.8)


@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.9])
def test_the_crops_are_those_at_or_above_the_quantile(parent, quantile):
    sub = parent.decompose(1, "Relu_1", number_of_concepts=2, quantile=quantile)
    u = parent.crops_u_[:, 1]
    chosen = u >= np.percentile(u, 100 * quantile)
    assert np.array_equal(np.asarray(sub.crops_), np.asarray(parent.crops_)[chosen])
    assert len(sub.crops_u_) == chosen.sum() == sub.evidence_["n_crops"]


def test_a_tie_at_the_quantile_is_in():
    assert strongest(np.array([0, 1, 2, 2, 2.0]), 0.5).tolist() == [2, 3, 4]


def test_the_sub_concepts_factorise_the_earlier_layer(parent, sub, weights, small_net, images):
    chosen = parent.crops_u_[:, 1] >= np.quantile(parent.crops_u_[:, 1], 0.8)
    earlier = Craft(lambda x: small_net.convolve(x, *weights["conv1"]), number_of_concepts=3, patch_size=16)
    a, _ = earlier._pooled_activations(earlier._cut(images, "NCHW"), "NCHW")
    expected = nnls(a[chosen], sub.concept_bank_)
    # Convolutions in numpy and in onnxruntime differ by float32 rounding.
    np.testing.assert_allclose(sub.crops_u_, expected, atol=1e-4 * expected.max())
    assert (sub.parent_.craft, sub.parent_.concept, sub.class_id_) == (parent, 1, 2)
    assert sub in parent.children
    assert np.array_equal(sub.images_[5], np.stack(list(sub.images_))[5]) and sub.images_[5].shape == (3, 48, 40)


def test_the_class_sees_sub_concepts_through_its_own_half(sub, bundle):
    u = np.random.default_rng(0).random((3, *sub.positions_, 3)).astype(np.float32)
    a = np.moveaxis(u @ sub.concept_bank_, -1, 1)
    expected = SplitModel(bundle, cut="Relu_1").h(np.ascontiguousarray(a))[:, 2]
    np.testing.assert_allclose(sub.head_(u), expected, rtol=1e-4, atol=1e-4)


def test_the_parent_sees_sub_concepts_through_the_segment(parent, sub, weights, small_net):
    u = np.random.default_rng(0).random((3, *sub.positions_, 3)).astype(np.float32)
    a = small_net.convolve(np.moveaxis(u @ sub.concept_bank_, -1, 1), *weights["conv2"])
    expected = nnls(a.mean(axis=(2, 3)), parent.concept_bank_)[:, 1]
    np.testing.assert_allclose(sub.parent_head_(u), expected, rtol=1e-4, atol=1e-4)
    assert not sub.parent_head_.linear and sub.segment_.error < 1e-5


def test_importances_for_parent_and_class_are_kept_apart(sub):
    for_parent = sub.estimate_parent_importance(nb_design=32)
    for_class = sub.estimate_importance(nb_design=32)
    assert np.array_equal(sub.parent_importance_.values, for_parent) and for_parent.shape == (3,)
    assert np.array_equal(sub.importance_.values, for_class) and not np.allclose(for_class, for_parent)
    local = sub.estimate_parent_importance(np.stack([sub.images_[0]]), nb_design=32)
    assert not np.array_equal(local, for_parent) and np.array_equal(sub.parent_importance_.values, for_parent)


def test_a_sub_concept_is_decomposed_again(make_model, images, tmp_path):
    bundle = create_bundle(make_model("conv"), ["Relu_5", "Relu_3", "Relu_1"], tmp_path / "bundle")
    craft = Craft(SplitModel(bundle), **SETTINGS)
    craft.fit(images, class_id=2)
    first = craft.decompose(0, "Relu_3", 3, quantile=0.5)
    second = first.decompose(2, "Relu_1", 2, quantile=0.5)
    chosen = first.crops_u_[:, 2] >= np.quantile(first.crops_u_[:, 2], 0.5)
    assert np.array_equal(np.asarray(second.crops_), np.asarray(first.crops_)[chosen])
    assert second.parent_.craft is first and second.parent_.craft.parent_.craft is craft
    assert second.estimate_parent_importance(nb_design=16).shape == (2,)
    assert first.children == [second] and craft.children == [first]


def _planted(relu):
    """Images of flat colour whose two first channels are sub-features which the later layer sums, and a third one."""
    rng = np.random.default_rng(0)
    images = np.zeros((60, 3, 16, 16), np.float32)
    kinds = np.arange(60) % 3
    for image, kind in zip(images, kinds, strict=True):
        image[kind] = rng.uniform(0.5, 1)
    early = np.array([[2, 0, 0, 1, 0], [0, 3, 0, 0, 0], [0, 0, 1, 0, 2]], np.float32)  # the planted sub-features
    late = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [0, 1]], np.float32)

    def g_early(x):
        return np.einsum("nchw,cd->ndhw", x, early)

    def segment(a):
        return np.maximum(np.einsum("nchw,cd->ndhw", a, late), 0 if relu else -np.inf)

    def h(a):
        return a.mean(axis=(2, 3)) @ np.array([[1.0], [-0.5]], np.float32)

    return images, early, g_early, segment, h


def test_two_planted_sub_features_that_the_later_layer_sums_are_found():
    images, early, g, segment, h = _planted(relu=True)
    craft = Craft(lambda x: segment(g(x)), h, number_of_concepts=2, patch_size=16)
    craft.fit(images)
    # One concept for both of the first two colours: the later layer cannot tell them apart.
    concept = int(craft.crops_u_[0].argmax())
    assert (craft.crops_u_[1] > 0.1)[concept] and not (craft.crops_u_[2] > 0.1)[concept]
    sub = craft.decompose(concept, g, 2, quantile=0.5, segment=segment)
    cosines = sub.concept_bank_ @ (early / np.linalg.norm(early, axis=1, keepdims=True)).T
    # Both are found, each once, and the third colour is in neither.
    assert sorted(cosines[:, :2].argmax(axis=1)) == [0, 1]
    assert (cosines[:, :2].max(axis=1) > 1 - 1e-5).all() and (cosines[:, 2] < 0.5).all()
    # Each crop holds one of the two, which then is all of its parent; the share of crops is its importance.
    share = (sub.crops_u_ > 0.1).mean(axis=0)
    # Designs are sampled: 256 points give one factor's index of 1 to within 2 %.
    np.testing.assert_allclose(sub.estimate_parent_importance(), share, rtol=0.02)
    np.testing.assert_allclose(sub.estimate_importance(), share, rtol=0.02)
    assert sub.parent_importance_.contributions.min() > 0


def _affine_bundle(folder):
    """conv1, Relu (early), a convolution with weights of sums (late), pooling, Gemm: the segment is linear."""
    import onnx
    import onnx_ir as ir
    from onnx import TensorProto, helper, numpy_helper

    from craft_onnx.description import Description, Preprocessing
    from craft_onnx.graph.load import write_description

    rng = np.random.default_rng(0)
    first = np.zeros((4, 3, 1, 1), np.float32)
    first[:3, :, 0, 0] = np.eye(3)
    first[3] = 1 / 3
    second = np.zeros((2, 4, 1, 1), np.float32)
    second[0, :2, 0, 0] = 1, 0.5
    second[1, 2:, 0, 0] = 1, 0.25
    dense = rng.normal(size=(3, 2)).astype(np.float32)
    tensors = {"first": first, "second": second, "dense": dense}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["conv"], name="conv"),
        helper.make_node("Relu", ["conv"], ["early"], name="early"),
        helper.make_node("Conv", ["early", "second"], ["late"], name="late"),
        helper.make_node("GlobalAveragePool", ["late"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "dense"], ["y"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip  # names and arrays side by side
    opset = helper.make_opsetid("", 18)
    proto = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset], ir_version=10))
    model = ir.from_proto(proto)
    write_description(model, Description(preprocessing=Preprocessing(size=(8, 8), scale=1 / 255)))
    return create_bundle(model, ["late", "early"], folder), second[:, :, 0, 0]


def test_importance_for_the_parent_is_the_closed_form_on_a_linear_segment(tmp_path):
    bundle, late = _affine_bundle(tmp_path / "bundle")
    images = np.random.default_rng(1).random((20, 3, 8, 8), np.float32)
    craft = Craft(SplitModel(bundle), number_of_concepts=2, patch_size=8)
    craft.fit(images)
    craft.concept_bank_ = np.eye(2, dtype=np.float32)  # one concept a channel: the least squares are the channels
    sub = craft.decompose(0, "early", 3, quantile=0)
    found = sub.estimate_parent_importance()
    assert sub.parent_importance_.exact and sub.segment_.affine
    u = sub.transform(np.stack(list(sub.images_))).mean(axis=(1, 2))
    contributions = u * (sub.concept_bank_ @ late[0])
    expected = contributions**2 / (contributions**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected.mean(axis=0), rtol=1e-5)  # float32
    np.testing.assert_allclose(sub.parent_importance_.contributions, contributions.mean(axis=0), rtol=1e-5)
    sub.exact = False
    sampled = sub.estimate_parent_importance(nb_design=1024)
    np.testing.assert_allclose(sampled, found, atol=0.01)


def test_one_support_is_told_from_several():
    w = np.array([[1.0, 0, 0], [1, 1, 0]])
    assert has_one_support(np.array([[1.0, 0, 0], [2, 1, 0]]), w)
    # (0, 1, 0) takes the second concept alone; with the first row that is no longer the least squares solution.
    assert not has_one_support(np.array([[1.0, 0, 0], [0, 1, 0]]), w)
    assert has_one_support(np.zeros((2, 3)), w)


def test_a_concept_in_few_crops_takes_all_and_says_so():
    u = np.zeros(100)
    u[:5] = 1
    with pytest.warns(CraftWarning, match=r"in 5 of 100 crops: the quantile 0.9 is 0, all are taken.\nTake .* 0.950"):
        assert len(strongest(u, 0.9)) == 100
    assert len(strongest(u, 0.96)) == 5


def test_mistakes_are_told_in_two_sentences(parent, sub, images, small_net, weights):
    for arguments, said in [
        ((7, "Relu_1"), "There is no concept 7. Concepts go from 0 to 3."),
        ((0, "layer9"), "The bundle is not cut at 'layer9'. It is cut at Relu_3, Relu_1."),
        ((0, "Relu_3"), "The concepts are at 'Relu_3' themselves. Other cuts of the bundle: Relu_1."),
        ((0, "Relu_1", 5, 1.5), "There is no quantile 1.5. Give a number from 0 to 1."),
        ((0, "Relu_1", 12, 0.99), "12 concepts cannot be found in 2 crops with 12 channels."),
    ]:
        with pytest.raises(InputError) as error:
            parent.decompose(*arguments)
        assert str(error.value).startswith(said)
    with pytest.raises(InputError, match="does not come behind"):
        sub.decompose(0, "Relu_3", 2, 0.5)
    positions = Craft(parent.halves_.model, number_of_concepts=4, patch_size=16, crops=None)
    positions.fit(images[:2], class_id=2)
    with pytest.raises(InputError, match="no crops to decompose"):
        positions.decompose(0, "Relu_1")
    apart = Craft(small_net.first_half(weights), small_net.second_half(weights, "mlp"), **SETTINGS)
    apart.fit(images)
    with pytest.raises(InputError, match="were given apart, which have no layer 'Relu_1'"):
        apart.decompose(0, "Relu_1")
    alone = apart.decompose(0, lambda x: small_net.convolve(x, *weights["conv1"]), 2)
    with pytest.raises(InputError, match="What lies between the layers is not known"):
        alone.estimate_parent_importance()
    with pytest.raises(InputError, match="What lies between the layers is not known"):
        alone.estimate_importance()
    with pytest.raises(InputError, match="no concept was decomposed"):
        parent.estimate_parent_importance()


def test_an_onnx_file_is_cut_at_any_earlier_layer(make_model, images, tmp_path):
    from craft_onnx.graph.load import save

    save(make_model("linear"), tmp_path / "model.onnx")
    craft = Craft(load(tmp_path / "model.onnx", cut="Relu_3"), **SETTINGS)
    craft.fit(images, class_id=2)
    sub = craft.decompose(0, "Relu_1", 3)
    assert sub.estimate_parent_importance(nb_design=16).shape == (3,)


def test_the_tree_starts_at_the_class_and_shows_what_was_decomposed(parent, sub):
    sub.estimate_parent_importance(nb_design=16)
    sub.estimate_importance(nb_design=16)
    parent.children_ = [sub]
    # Asked of either, the tree is the same; it shows the decomposed concept however unimportant it is.
    for craft in (parent, sub):
        texts = [text.get_text() for text in craft.plot_concept_tree(nb_most_important_concepts=1).axes[0].texts]
        shown = [text for text in texts if text.startswith("Concept")]
        assert texts[0] == "class 2" and "Concept 1 at Relu_3" in shown
        assert sum("Relu_1" in text for text in shown) == 1
    values = sub.parent_importance_.values
    assert any(f"concept 1: {values.max():.2f}" in text for text in texts)
