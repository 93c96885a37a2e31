"""Rules and composites against zennit's on the same weights, in float64; see tests/reference."""

import functools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from support.gradient_oracle import assert_close, evaluate
from support.precision import in_double
from support.seeded_weights import with_weights

from craft_onnx.graph.normalize import normalize
from craft_onnx.graph.reverse.gradients import GRADIENTS
from craft_onnx.graph.reverse.relevance.composites import COMPOSITES, LayerMapComposite
from craft_onnx.graph.reverse.relevance.matching import CONVOLUTIONS, DENSE
from craft_onnx.graph.reverse.relevance.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
)
from craft_onnx.graph.reverse.vjp import gradient_graph

RECORDED = np.load(Path(__file__).parents[2] / "reference" / "zennit.npz")
LOW, HIGH, EVERY = -3.0, 3.0, 2
# The same formulas in float64, in another order of summation, over as many layers as there are.
SAME, DEEP = 1e-9, 1e-5
RULES = {
    "epsilon": Epsilon(),
    "epsilon_no_bias": Epsilon(zero_params="bias"),
    "zplus": ZPlus(),
    "zplus_no_bias": ZPlus(zero_params="bias"),
    "alpha_beta": AlphaBeta(alpha=2, beta=1),
    "gamma": Gamma(gamma=0.25),
    "zbox": ZBox(low=LOW, high=HIGH),
    "wsquare": WSquare(),
    "flat": Flat(),
    "pass": Pass(),
}
SINGLE = [tuple(key.split("/")[1:]) for key in RECORDED if key.startswith("rule/") and key.split("/")[-1] in RULES]
NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "densenet121")


# Excitation backprop is about what convolutions and dense layers pass on: here all else passes on what it gets, so that
# relevance is conserved; there it has its derivative.
DERIVATIVES = [(kind, GRADIENTS.find(ir.node(kind, []))) for kind in ("Relu", "Clip", "BatchNormalization")]
OPTIONS = {
    "epsilon_gamma_box": {"low": LOW, "high": HIGH},
    "excitation_backprop": {"layer_map": DERIVATIVES},
}
# There, what could not be merged passes all on; here, what it adds takes its share.
UNMERGED = {"layer_map": [("BatchNormalization", Pass())]}


@functools.cache
def network(key):
    return normalize(in_double(ir.serde.deserialize_model(with_weights(RECORDED[f"{key}/model"].tobytes()))))


def relevance(model, rules, x, start):
    (image,) = model.graph.inputs
    return evaluate(gradient_graph(model, rules=rules), **{image.name: x, "cotangent": start})


@pytest.mark.parametrize(("operator", "name"), SINGLE)
def test_rule(operator, name):
    key = f"rule/{operator}"
    composite = LayerMapComposite([(CONVOLUTIONS | DENSE, RULES[name])])
    found = relevance(network(key), composite, RECORDED[f"{key}/x"], RECORDED[f"{key}/start"])
    assert_close(found, RECORDED[f"{key}/{name}"], SAME, name)


# The reference evaluator's Sigmoid calculates both of its forms for all numbers.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp", "ignore:invalid value encountered in divide")
@pytest.mark.parametrize("name", sorted({*COMPOSITES} - {"attn_lrp"}))  # zennit has none for transformers
@pytest.mark.parametrize("net", NETWORKS)
def test_composite(net, name):
    unmerged = UNMERGED if net == "densenet121" and name.startswith("epsilon") else {}
    rules = COMPOSITES[name](**OPTIONS.get(name, {}), **unmerged)
    found = relevance(network(f"network/{net}"), rules, RECORDED["network/x"], RECORDED["network/start"])
    assert_close(found[..., ::EVERY, ::EVERY], RECORDED[f"network/{net}/{name}"], DEEP, name)
