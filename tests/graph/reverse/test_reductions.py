"""Gradients of reductions."""

import numpy as np
import pytest
import torch
from support.gradient_oracle import check_node

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 4, 5))
AXES = [(2, 3), (-1,), (1,), (0, -2), None]


def by_torch(name):
    def function(x, axes, keepdims):
        axes = tuple(range(x.ndim)) if axes is None else axes
        return {"ReduceSum": torch.sum, "ReduceMean": torch.mean}[name](x, axes, keepdims)

    return function


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", ["ReduceSum", "ReduceMean"])
def test_reductions(name, axes, keepdims):
    check_node(
        name,
        [X, None if axes is None else np.array(axes)],
        {"keepdims": keepdims},
        torch=lambda x, *_: by_torch(name)(x, axes, bool(keepdims)),
    )
