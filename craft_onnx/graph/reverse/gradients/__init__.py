"""The derivatives of ONNX's operators."""

from craft_onnx.graph.reverse.gradients import (
    activations,
    arithmetic,
    convolution,
    einsum,
    indexing,
    layout,
    matmul,
    normalization,
    padding,
    pooling,
    quantization,
    reductions,
    resize,
    slicing,
)
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.graph.values import operators

# Piecewise constant, drawn at random, or not about the values at all.
STOPS = operators(
    "Shape Size NonZero Range ConstantOfShape EyeLike OneHot ArgMax ArgMin "
    "Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsNaN IsInf "
    "Sign Floor Ceil Round Hardmax Bernoulli Multinomial RandomNormalLike RandomUniformLike "
    "BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor"
)

GRADIENTS = Rules(
    "gradient",
    {
        **arithmetic.RULES,
        **activations.RULES,
        **matmul.RULES,
        **einsum.RULES,
        **convolution.RULES,
        **pooling.RULES,
        **reductions.RULES,
        **layout.RULES,
        **padding.RULES,
        **resize.RULES,
        **slicing.RULES,
        **indexing.RULES,
        **normalization.RULES,
        **quantization.RULES,
    },
    STOPS,
)
gradient_rule = GRADIENTS.rule
