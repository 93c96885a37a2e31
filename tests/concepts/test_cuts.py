"""The same class at several cuts: measures, matches, and the layer that represents a concept best."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from matplotlib.figure import Figure

import craft_onnx as co
from craft_onnx.concepts.cut_comparison import RULE, CutComparison
from craft_onnx.concepts.cut_matching import SAME, area_means, correlations, similarities
from craft_onnx.concepts.cut_measures import CutMeasures, effective_number, importance_shares, removed
from craft_onnx.concepts.cuts import common_grid, compare_crafts, compare_cuts
from craft_onnx.concepts.fidelity import ConceptCurve
from craft_onnx.concepts.stability import Stability
from craft_onnx.errors import InputError, NotFittedError
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 3, "patch_size": 16, "batch_size": 16, "nb_design": 16}
CUTS = ["Relu_3", "Relu_1"]
SQUARE = 8  # side of the planted patches of colour, pixels


def colours(count=24, seed=0):
    """Images (n, 3, 32, 32): red, green and blue squares on black, each in half of the images, each in its own cell."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 3, 32, 32), np.float32)
    for image in images:
        for plane, place in enumerate(rng.permutation(16)[:3]):
            if rng.random() < 0.5:
                y, x = SQUARE * (place // 4), SQUARE * (place % 4)
                image[plane, y : y + SQUARE, x : x + SQUARE] = rng.uniform(0.5, 1)
    return images


def early(x):
    """Red, green and blue in channels of their own, at half the resolution."""
    return np.repeat(x.reshape(len(x), 3, 16, 2, 16, 2).mean(axis=(3, 5)), 2, axis=1)


def between(a):
    """Red alone and red with green; blue is lost."""
    pooled = a.reshape(len(a), 6, 8, 2, 8, 2).mean(axis=(3, 5))
    red, green = pooled[:, 0:1], pooled[:, 2:3]
    return np.concatenate([red, red, green, 0.1 * green], axis=1)


def late_head(a):
    """Class 1 is red less a little green, class 0 nothing."""
    means = a.mean(axis=(2, 3))
    return np.stack([np.zeros(len(a)), 60 * means[:, 0] - 5 * means[:, 2]], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def planted():
    """A comparison of an early layer that has blue, and a late one that has not."""
    images, settings = colours(), {"patch_size": SQUARE, "data_format": "NCHW", "nb_design": 16}
    crafts = {
        "late": co.Craft(lambda x: between(early(x)), late_head, number_of_concepts=2, **settings),
        "early": co.Craft(early, lambda a: late_head(between(a)), number_of_concepts=3, **settings),
    }
    for craft in crafts.values():
        craft.fit(images, class_id=1)
    return compare_crafts(crafts, repeats=2)


def colour_of(craft, concept):
    """Which plane is the brightest in the best crop of a concept."""
    return int(craft.best_crops(concept, 1)[0].sum(axis=(0, 1)).argmax())


@pytest.fixture(scope="module")
def folder(make_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cuts") / "bundle"
    create_bundle(make_model("mlp"), CUTS, path)
    return path


@pytest.fixture(scope="module")
def compared(folder, images):
    return compare_cuts(folder, images, 2, repeats=2, **SETTINGS)


def test_the_effective_number_by_hand():
    assert effective_number(np.array([0.25] * 4)) == pytest.approx(4, rel=1e-12)
    assert effective_number(np.array([1.0, 0, 0])) == 1
    # -(1/2 log 1/2 + 2 * 1/4 log 1/4) = 3/2 log 2
    assert effective_number(np.array([0.5, 0.25, 0.25])) == pytest.approx(2**1.5, rel=1e-12)
    assert effective_number(np.zeros(3)) == 0
    assert importance_shares(np.array([3.0, -0.1, 1.0])).tolist() == [0.75, 0, 0.25]
    assert importance_shares(np.zeros(2)).tolist() == [0, 0]


def test_correlations_are_those_of_a_literal_loop():
    rng = np.random.default_rng(0)
    u, others = rng.random((50, 3)), rng.random((50, 4))
    others[:, 3] = 0.1
    found = correlations(u, others)
    for i, j in np.ndindex(3, 3):
        assert found[i, j] == pytest.approx(np.corrcoef(u[:, i], others[:, j])[0, 1], abs=1e-12)
    assert found[:, 3].tolist() == [0, 0, 0]
    assert np.allclose(correlations(u, 3 * u + 7).diagonal(), 1, rtol=1e-12)


def test_cells_are_means_of_the_area_that_they_cover():
    maps = np.random.default_rng(1).random((2, 5, 6, 3)).astype(np.float32)
    fine = maps.repeat(3, axis=1).repeat(4, axis=2)  # 15 x 24: cells of 5 x 6 for a grid of 3 x 4
    literal = np.array(
        [[fine[:, 5 * y : 5 * y + 5, 6 * x : 6 * x + 6].mean(axis=(1, 2)) for x in range(4)] for y in range(3)]
    )
    assert np.allclose(area_means(maps, (3, 4)), np.moveaxis(literal, 2, 0), atol=1e-6)
    assert np.allclose(area_means(maps, (5, 6)), maps, atol=1e-6)


def test_similarity_is_the_mean_over_crops_and_positions():
    rng = np.random.default_rng(2)
    u, v, maps, others = rng.random((9, 2)), rng.random((9, 3)), rng.random((4, 2, 2, 2)), rng.random((4, 2, 2, 3))
    for i, j in np.ndindex(2, 3):
        crops = np.corrcoef(u[:, i], v[:, j])[0, 1]
        places = np.corrcoef(maps[..., i].ravel(), others[..., j].ravel())[0, 1]
        assert similarities((u, v), (maps, others))[i, j] == pytest.approx((crops + places) / 2, abs=1e-6)
        assert similarities((u, v), None)[i, j] == pytest.approx(crops, abs=1e-12)
        assert similarities(None, (maps, others))[i, j] == pytest.approx(places, abs=1e-6)


def test_what_is_taken_out_leaves_nothing_negative_where_nothing_was():
    assert removed(np.array([3.0, 1.0]), np.array([1.0, 2.0])).tolist() == [2, 0]
    assert removed(np.array([3.0, -1.0]), np.array([1.0, 2.0])).tolist() == [2, -3]


def test_a_concept_of_one_layer_is_seen_there_alone(planted):
    late, first = planted.crafts["late"], planted.crafts["early"]
    blue = [i for i in range(3) if colour_of(first, i) == 2]
    assert len(blue) == 1 and planted.seen_once == {"late": [], "early": blue}
    for match in planted.matched("late"):
        own, other = match.seen
        assert (own.cut, own.concept, own.similarity) == ("late", match.concept, 1)
        assert colour_of(first, other.concept) == colour_of(late, match.concept)
        assert other.same and other.similarity > 0.9
    (lost,) = [match for match in planted.matched("early") if match.concept == blue[0]]
    assert not lost.seen[0].same and lost.best == "early"


def test_effects_are_those_of_a_literal_loop(planted):
    images = colours()
    for cut, g, h in (
        ("late", lambda x: between(early(x)), late_head),
        ("early", early, lambda a: late_head(between(a))),
    ):
        craft, a = planted.crafts[cut], g(images)
        u, w = craft.transform(images), craft.concept_bank_
        for i, found in enumerate(planted.measures[cut].effects):
            part = np.moveaxis(u[..., i : i + 1] * w[i], -1, 1)
            assert found == pytest.approx((h(a) - h(np.maximum(a - part, 0)))[:, 1].mean(), abs=1e-4)
        rebuilt = h(np.moveaxis(u @ w, -1, 1))
        assert planted.measures[cut].logit_error == pytest.approx(np.abs(h(a) - rebuilt)[:, 1].mean(), abs=1e-4)
        assert planted.measures[cut].logit == pytest.approx(h(a)[:, 1].mean(), abs=1e-4)


def test_the_best_is_what_the_rule_says(planted, compared):
    for comparison in (planted, compared):
        errors = {cut: m.logit_error / (m.shares @ m.stability.similarities) for cut, m in comparison.measures.items()}
        assert comparison.best == min(errors, key=errors.get)
        for cut in comparison.measures:
            for match in comparison.matched(cut):
                sign = np.sign(comparison.measures[cut].effects[match.concept])
                seen = {one.cut: sign * one.effect * one.stability for one in match.seen if one.similarity >= SAME}
                assert cut in seen and match.best == max(seen, key=seen.get)


def measured(cut, error, similarities, effects, shares):
    """Measures by hand, of as many concepts as there are effects."""
    found = np.array(similarities)
    stable = Stability(found, found[None], np.arange(len(found))[None], found < 0.9, 0.9, 10)
    curve = ConceptCurve(np.zeros(3), np.zeros((1, 3)), np.zeros(1), np.arange(len(found)), True)
    return CutMeasures(cut, 0.1, 9.0, 5.0, error, curve, curve, stable, np.array(shares), np.array(effects))


def test_the_rule_by_hand():
    one = measured("one", 4.0, [0.5, 1.0], [3.0, -1.0], [0.8, 0.2])
    other = measured("other", 5.0, [1.0, 0.9], [2.0, 0.5], [0.5, 0.5])
    assert one.penalised_error == pytest.approx(4 / 0.6) and other.penalised_error == pytest.approx(5 / 0.95)
    assert one.strengths.tolist() == [1.5, -1.0]
    like = np.array([[0.7, 0.1], [0.4, 0.45]])
    found = CutComparison({}, {"one": one, "other": other}, {("one", "other"): like, ("other", "one"): like.T})
    assert found.best == "other" and "other" in found.reason
    # 0 and 0 are the same, 2 * 1 is more than 3 * 0.5; the others are like nothing, whatever their effects.
    assert [(match.concept, match.best) for match in found.matched("one")] == [(0, "other"), (1, "one")]
    assert [(match.concept, match.best) for match in found.matches] == [(1, "other"), (0, "other")]
    assert found.seen_once == {"one": [1], "other": [1]}
    against = {
        ("one", "other"): 1 - like,
        ("other", "one"): 1 - like.T,
    }  # 1 and 0 are alike, but work against each other
    assert CutComparison({}, found.measures, against).matched("one")[1].best == "one"
    assert found.matched("one")[1].to_json()["seen"][1] == {
        "cut": "other", "concept": 1, "similarity": 0.45, "same": False,
        "importance": 0.5, "effect": 0.5, "stability": 0.9, "strength": 0.45,
    }  # fmt: skip  # as it is read


def test_matches_begin_with_the_most_important_concept(compared):
    importances = compared.crafts[compared.best].importance_.values
    assert [match.concept for match in compared.matches] == importances.argsort()[::-1].tolist()
    assert all(match.cut == compared.best and len(match.seen) == 2 for match in compared.matches)


def test_measures_are_those_of_each_craft(compared, folder, images):
    assert list(compared.crafts) == list(compared.measures) == CUTS
    for row, cut in zip(compared.rows(), CUTS, strict=True):
        alone = co.Craft(SplitModel(co.load(folder).bundle, cut=cut), **SETTINGS)
        alone.fit(images, 2)
        alone.estimate_importance()
        craft, model = compared.crafts[cut], alone.halves_.model
        rebuilt = model.h(np.moveaxis(alone.transform(images) @ alone.concept_bank_, -1, 1))[:, 2]
        own = model.predict(images)[:, 2]
        assert row["logit_error"] == pytest.approx(np.abs(own - rebuilt).mean(), rel=1e-4) and row["logit_error"] > 0.01
        assert row["reconstructed_logit"] == pytest.approx(rebuilt.mean(), rel=1e-4)
        assert np.array_equal(craft.concept_bank_, alone.concept_bank_)
        assert row["deletion"] == pytest.approx(alone.deletion().area, rel=1e-5)
        assert row["insertion"] == pytest.approx(alone.insertion().area, rel=1e-5)
        assert row["stability"] == alone.stability(repeats=2).similarities.mean()
        assert row["relative_error"] == alone.factorisation_.relative_error
        shares = alone.importance_.values / alone.importance_.values.sum()
        assert row["effective_concepts"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_table_and_json(compared):
    head, *lines = compared.table()
    assert [line.split()[0] == "*" for line in lines] == [cut == compared.best for cut in CUTS]
    assert len({len(line) for line in (head, *lines)}) == 1
    found = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    assert found["best"] == compared.best and found["rule"] == RULE and compared.best in compared.reason
    assert [row["cut"] for row in found["cuts"]] == CUTS and len(found["matches"]) == 3


def test_an_onnx_file_is_cut_where_it_is_asked(make_model, images, tmp_path, compared):
    path = tmp_path / "net.onnx"
    ir.save(make_model("mlp"), path)
    found = compare_cuts(path, images, 2, CUTS, repeats=2, **SETTINGS)
    assert found.to_json() == compared.to_json()
    again = compare_cuts(co.load(path), images[:6], 2, CUTS, repeats=1, **SETTINGS)
    assert list(again.crafts) == CUTS


def test_surf_where_it_is_asked_for(compared):
    crafts = compared.crafts
    found = compare_crafts(crafts, repeats=1, surf=True)
    assert found.rows()[0]["surf"]["mae"] == crafts[CUTS[0]].surf(repeats=1).mae
    assert "surf" not in compared.rows()[0]


def test_positions_in_place_of_crops(folder, images):
    found = compare_cuts(folder, images, 2, repeats=1, **{**SETTINGS, "crops": None})
    maps = [area_means(craft.coeffs_u_, (7, 7)) for craft in found.crafts.values()]
    assert np.allclose(found.similarities[tuple(CUTS)], similarities(None, tuple(maps)), atol=1e-4)


def test_the_grid_is_that_of_the_coarsest_cut(compared):
    assert common_grid(list(compared.crafts.values())) == (7, 7)


def test_the_figure_shows_curves_bars_and_crops(compared):
    figure = compared.plot(nb_most_important_concepts=2, nb_crops=3)
    assert isinstance(figure, Figure)
    curves = figure.axes[0].lines
    assert np.allclose(curves[0].get_ydata(), compared.measures[CUTS[0]].deletion.mean)
    assert np.allclose(curves[2].get_ydata(), compared.measures[CUTS[0]].logit)
    errors = [bar.get_height() for bar in figure.axes[2].patches]
    assert np.allclose(errors, [row["logit_error"] for row in compared.rows()])
    assert len(figure.axes[-1].images) == 2 * 2 * 3
    texts = [text.get_text() for text in figure.axes[-1].texts]
    assert f"{compared.best} (best)" in texts
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (["Relu_1"], "Relu_1 alone"),
        ([], "No cut alone"),
        (["Relu_1", "Relu_3", "Relu_1"], "named twice"),
        (["Relu_1", "Relu_9"], "not cut at 'Relu_9'"),
    ],
)
def test_cuts_that_cannot_be_compared(folder, images, cuts, message):
    with pytest.raises(InputError, match=message):
        compare_cuts(folder, images, 2, cuts, **SETTINGS)


def test_signed_activations_are_refused_before_anything_is_fitted(make_model, images, tmp_path, monkeypatch):
    create_bundle(make_model("linear"), ["Relu_3", "conv1_0"], tmp_path / "bundle")
    monkeypatch.setattr(co.Craft, "fit", lambda *_: pytest.fail("fitted"))
    with pytest.raises(InputError, match=r"At the cut conv1_0: .*egative"):
        compare_cuts(tmp_path / "bundle", images, 2, **SETTINGS)


def test_a_callable_has_no_cuts(images):
    with pytest.raises(InputError, match="has no cuts"):
        compare_cuts(lambda x: x, images)


def test_fits_that_cannot_be_compared(planted, images):
    late = planted.crafts["late"]
    other = co.Craft(early, lambda a: late_head(between(a)), number_of_concepts=3, patch_size=SQUARE)
    with pytest.raises(NotFittedError):
        compare_crafts({"late": late, "early": other})
    other.fit(colours(12), class_id=1)
    with pytest.raises(InputError, match=r"12 images of class 1 .* and 24 images of class 1"):
        compare_crafts({"late": late, "early": other})
    with pytest.raises(InputError, match="late alone"):
        compare_crafts({"late": late})
    with pytest.raises(InputError, match="'layer9' was not compared"):
        planted.matched("layer9")
