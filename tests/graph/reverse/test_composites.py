"""Composites from names, files and descriptions, and back."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import run

from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.composites import (
    COMPOSITES,
    BetaSmooth,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    MixedComposite,
    NameLayerMapComposite,
    SpecialFirstLayerMapComposite,
)
from craft_onnx.graph.reverse.relevance.description import RULES, describe
from craft_onnx.graph.reverse.relevance.files import composite_from, composite_of, read_composite
from craft_onnx.graph.reverse.relevance.matching import Named
from craft_onnx.graph.reverse.relevance.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, ZBox
from craft_onnx.graph.reverse.vjp import gradient_graph

TOML = """
composite = "epsilon_plus"
zero_params = "bias"
stabilizer = 1e-5

[[rows]]
layers = ["features.0", "features.2"]
rule = "gamma"
gamma = 0.1

[[rows]]
operators = "Gemm"
rule = "alpha_beta"
alpha = 3
beta = 2

[[rows]]
operators = ["Conv", "Gemm"]
first = true
rule = "zbox"
low = [[[-1.0]], [[-2.0]]]
high = 2
"""


def test_a_file_says_the_same_in_both_languages(tmp_path):
    (tmp_path / "own.toml").write_text(TOML)
    found = read_composite(tmp_path / "own.toml")
    assert isinstance(found, EpsilonPlus) and found.zero_params == "bias" and found.stabilizer == 1e-5
    (named, gamma), (gemm, alpha_beta), (first, zbox) = found.layer_map
    assert named == Named(("features.0", "features.2")) and gamma == Gamma(gamma=0.1)
    assert gemm.names == {"Gemm"} and alpha_beta == AlphaBeta(alpha=3, beta=2)
    assert first.matches.names == {"Conv", "Gemm"} and zbox == ZBox(low=np.array([[[-1]], [[-2]]]), high=2)
    (tmp_path / "own.JSON").write_text(json.dumps(describe(found)))
    assert composite_of(str(tmp_path / "own.JSON")) == composite_of(tmp_path / "own.toml") == found


OPTIONS = {"epsilon_gamma_box": {"low": np.full((3, 1, 1), -1.5), "high": 2.0}}


@pytest.mark.parametrize("name", COMPOSITES)
def test_descriptions_are_read_back(name):
    made = COMPOSITES[name](
        layer_map=[("Gemm", Epsilon(epsilon=1e-3)), (Named(("a",)), Pass())], **OPTIONS.get(name, {})
    )
    described = describe(made)
    assert described["composite"] == name and len(described["rows"]) == 2
    again = composite_from(json.loads(json.dumps(described)))
    assert describe(again) == described and type(again) is type(made)
    assert describe(COMPOSITES[name](**OPTIONS.get(name, {}))) != described


def test_descriptions_of_rows_alone():
    maps = [
        SpecialFirstLayerMapComposite([("Gemm", Epsilon())], [("Conv", Flat())]),
        NameLayerMapComposite([("a", Gamma(gamma=1))], [("Conv", Flat())]),
        MixedComposite([LayerMapComposite([("Conv", Flat())]), LayerMapComposite([("Gemm", Pass())])]),
    ]
    for one in maps:
        described = describe(one)
        assert described["composite"] == "rows" and len(described["rows"]) == 2
        assert describe(composite_from(described)) == described
    assert len({json.dumps(describe(one)) for one in maps}) == len(maps)


def test_a_first_map_is_described():
    made = EpsilonPlus(first_map=[("Conv", Flat())])
    assert describe(made)["rows"] == [{"first": True, "operators": ["Conv"], "rule": "flat"}]


def test_functions_are_named_and_not_read_back():
    described = describe(LayerMapComposite([(lambda node: True, GRADIENTS.find(ir.node("Relu", [])))]))
    assert all("." in described["rows"][0][key] for key in ("matches", "rule"))
    with pytest.raises(InputError, match="no rule"):
        composite_from(described)
    assert describe(GRADIENTS) == {"composite": "gradient"}


def test_composites_compare_by_what_they_do():
    """Graphs are kept by composite: equal ones share them."""
    low = np.array([-1.0, 0])
    assert EpsilonGammaBox(low=low, high=1) == EpsilonGammaBox(low=low.copy(), high=1.0)
    assert EpsilonGammaBox(low=low, high=1) != EpsilonGammaBox(low=low, high=2)
    assert hash(ZBox(low=low)) == hash(ZBox(low=low.copy()))


def test_names_and_options():
    assert composite_of("gradient") is GRADIENTS
    assert composite_of("beta_smooth", beta_smooth=5.0) == BetaSmooth(beta_smooth=5.0)
    assert composite_of(EpsilonPlusFlat()) == EpsilonPlusFlat() == composite_of({"composite": "epsilon_plus_flat"})


@pytest.mark.parametrize(
    ("given", "options", "problem"),
    [
        ("epsilon", {}, r"no rule set 'epsilon'\. Take one of gradient, epsilon_plus"),
        (
            "epsilon_plus",
            {"gama": 1},
            r"'epsilon_plus' has no option 'gama'\. It has: epsilon, stabilizer, zero_params",
        ),
        ("gradient", {"gama": 1}, r"no composite 'gradient' that takes gama"),
        ("epsilon_gamma_box", {}, r"lacks an option: .*'low' and 'high'"),
        (EpsilonPlus(), {"epsilon": 1}, r"epsilon cannot be given beside"),
        ({"composite": "epsilon_plus", "zero_params": "weight"}, {}, "zero_params='weight'"),
        ({"rows": []}, {}, "no 'composite'"),
    ],
)
def test_mistakes(given, options, problem):
    with pytest.raises(InputError, match=problem):
        composite_of(given, **options)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({}, "is no list"),
        ([1], r"no rule 1\. Take one of epsilon"),
        ([{"rule": "gama"}], "no rule 'gama'"),
        ([{"rule": "gamma"}], "neither layers nor operators"),
        ([{"rule": "gamma", "layers": ["a"], "operators": ["Conv"]}], "both layers"),
        ([{"rule": "gamma", "layers": 3}], "layers = 3 is no list"),
        ([{"rule": "gamma", "operators": ["Convolution"]}], "no operator 'Convolution'"),
        ([{"rule": "gamma", "layers": ["a"], "gama": 1}], "'gamma' has no option"),
    ],
)
def test_mistakes_in_rows(rows, problem):
    with pytest.raises(InputError, match=problem):
        composite_from({"composite": "rows", "rows": rows})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.toml", "composite = ", r"a\.toml is no TOML: "),
        ("a.json", "{", r"a\.json is no JSON: "),
        ("a.json", "[]", r"a\.json: It has no 'composite'"),
        ("a.toml", 'composite = "none"\nepsilon = 1', r"a\.toml: There is no composite 'none'"),
        ("a.yaml", "", r"a\.yaml is neither"),
    ],
)
def test_mistakes_in_files(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=problem):
        read_composite(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        composite_of("not_there.toml")


def test_rows_of_a_file_come_first():
    text = """<ir_version: 10, opset_import: ["" : 18]> g (float[n, 2] x) => (float[n, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}> { h = Gemm(x, w)  y = Gemm(h, w) }"""
    feeds = {"x": np.float32([[1, -2]]), "cotangent": np.float32([[1, 1]])}

    def relevance(rules):
        return run(gradient_graph(ir.from_onnx_text(text), rules=rules), **feeds)

    rows = [{"layers": ["h"], "rule": "flat"}]
    found = relevance(composite_of({"composite": "epsilon_plus", "rows": rows}))
    np.testing.assert_array_equal(found, relevance(EpsilonPlus(layer_map=[(Named(("h",)), Flat())])))
    assert not np.allclose(found, relevance(EpsilonPlus()))


def test_every_rule_has_a_name():
    for name, kind in RULES.items():
        rows = [{"operators": ["Conv"], "rule": name}]
        assert isinstance(composite_from({"composite": "rows", "rows": rows}).layer_map[0][1], kind)
