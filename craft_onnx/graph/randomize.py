"""A model with the weights of some layers made random, to see what depends on them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from craft_onnx.errors import InputError
from craft_onnx.graph.names import layer_of
from craft_onnx.graph.values import constant

Randomness = Literal["shuffle", "normal"]
# Operator -> its inputs that are trained. The statistics of a BatchNormalization are not, and stay.
TRAINED: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
}


def weighted_layers(model: ir.Model) -> list[str]:
    """Names of the layers that have weights, from the logits back to the input, each once.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized.
    """
    return list(dict.fromkeys(layer_of(node.outputs[0]) for node in reversed(model.graph) if trained(node)))


def randomized(model: ir.Model, layers: Sequence[str], how: Randomness = "shuffle", seed: int = 0) -> ir.Model:
    """A copy of a model in which the weights of some layers are random.

    The random weights of a layer depend on the seed, its place and its shape alone, and not on the other layers asked
    for. A tensor that several layers share is random in all of them.

    Parameters
    ----------
    model : onnx_ir.Model
        Normalized; is not changed.
    layers : sequence of str
        Some of `weighted_layers`.
    how : "shuffle" or "normal"
        The numbers of each tensor in another order, or normal ones of its mean and standard deviation.
    seed : int
        Of the random numbers.

    Raises
    ------
    InputError
        If a layer is not there or has no weights, or `how` is neither.
    """
    if how not in _DRAWS:
        raise InputError(f"There is no randomness {how!r}.", f"Take one of {', '.join(_DRAWS)}.")
    copy = model.clone()
    known = weighted_layers(copy)
    if missing := [layer for layer in layers if layer not in known]:
        raise InputError(f"There is no layer {missing[0]!r} with weights.", f"Take some of {', '.join(known)}.")
    done: set[ir.Value] = set()
    for place, node in enumerate(copy.graph):
        if layer_of(node.outputs[0]) in layers:
            for position in trained(node):
                value = node.inputs[position]
                if value is not None and value not in done:
                    _replace(value, how, np.random.default_rng([seed, place, position]))
                    done.add(value)
    return copy


def trained(node: ir.Node) -> tuple[int, ...]:
    """Positions of a node's inputs that hold trained weights."""
    positions = TRAINED.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
    return tuple(i for i in positions if i < len(node.inputs) and _is_weight(node.inputs[i]))


def _is_weight(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind == "f" and array.size > 1


def _replace(value: ir.Value, how: Randomness, rng: np.random.Generator) -> None:
    weights = constant(value)
    assert weights is not None  # `trained` has seen it
    value.const_value = ir.tensor(_DRAWS[how](weights, rng).astype(weights.dtype), name=value.name)


def _shuffled(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(weights.ravel()).reshape(weights.shape)


def _normal(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(weights.mean(dtype=float), weights.std(dtype=float), weights.shape)


_DRAWS = {"shuffle": _shuffled, "normal": _normal}
