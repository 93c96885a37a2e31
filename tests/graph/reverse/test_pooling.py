"""Gradients of pooling."""

import numpy as np
import pytest
import torch.nn.functional as F
from support.gradient_oracle import check_node

RNG = np.random.default_rng(7)


def distinct(*shape):
    """Numbers whose differences are far above the step of a finite difference: no ties, no kinks."""
    return (RNG.permutation(np.prod(shape)).reshape(shape) - np.prod(shape) / 2) / 10


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation", "ceil"),
    [(2, 2, 0, 1, 0), (3, 2, 1, 1, 0), (3, 1, 1, 1, 0), (3, 2, 0, 1, 1), (2, 3, 0, 1, 0), (3, 2, 1, 2, 1)],
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool(rank, kernel, stride, pad, dilation, ceil):
    check_node(
        "MaxPool",
        [distinct(2, 3, *(9, 8, 7)[:rank])],
        {
            "kernel_shape": [kernel] * rank,
            "strides": [stride] * rank,
            "pads": [pad] * 2 * rank,
            "dilations": [dilation] * rank,
            "ceil_mode": ceil,
        },
        torch=lambda x: (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1](
            x, kernel, stride, pad, dilation, bool(ceil)
        ),
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "ceil", "include"),
    [
        (2, 2, 0, 0, 0),
        (3, 1, 1, 0, 0),
        (3, 1, 1, 0, 1),
        (3, 2, 1, 0, 0),
        (3, 2, 1, 1, 0),
        (3, 2, 1, 1, 1),
        (2, 3, 0, 0, 0),
    ],
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_average_pool(rank, kernel, stride, pad, ceil, include):
    check_node(
        "AveragePool",
        [distinct(2, 3, *(9, 8, 7)[:rank])],
        {
            "kernel_shape": [kernel] * rank,
            "strides": [stride] * rank,
            "pads": [pad] * 2 * rank,
            "ceil_mode": ceil,
            "count_include_pad": include,
        },
        torch=lambda x: (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1](
            x, kernel, stride, pad, bool(ceil), bool(include)
        ),
    )


def test_global_average_pool():
    check_node("GlobalAveragePool", [distinct(2, 3, 4, 5)], torch=lambda x: x.mean((2, 3), keepdim=True))
