"""Small Keras nets with trained-like statistics."""

import keras
import numpy as np
from keras import layers

INPUT_SHAPE = (16, 16, 3)


def plain(activation="softmax", extra=None):
    """Conv, BatchNormalization, ReLU, pooling and a Dense head."""
    x = inputs = keras.Input(INPUT_SHAPE, name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="bn_stem")(x)
    x = layers.Activation("relu", name="activation_1")(x)
    x = layers.Conv2D(8, 3, name="res5c_branch2c")(x)
    x = layers.BatchNormalization(name="bn5c_branch2c")(x)
    x = extra(x) if extra else x
    x = layers.Activation("relu", name="activation_49")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return trained(keras.Model(inputs, layers.Dense(5, activation=activation, name="fc1000")(x), name="tiny"))


def convnext():
    """What ConvNeXt adds: a depthwise convolution that Keras compiles with XLA, LayerNormalization, gelu by Erfc."""
    x = inputs = keras.Input(INPUT_SHAPE)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.5, 2.5], name="prestem")(x)
    x = layers.Conv2D(8, 4, strides=4, name="stem")(x)
    y = layers.Conv2D(8, 7, padding="same", groups=8, name="depthwise")(x)
    y = layers.LayerNormalization(epsilon=1e-6, name="layernorm")(y)
    y = layers.Activation("gelu", name="gelu")(layers.Dense(32, name="pointwise_1")(y))
    x = layers.Add()([x, layers.Dense(8, name="pointwise_2")(y)])
    return trained(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="convnext"))


def trained(model, seed=0):
    """The model with statistics like those of training."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_weights + [v for v in model.weights if "moving" in v.path]:
        noise = rng.standard_normal(variable.shape)
        positive = variable.path.endswith(("moving_variance", "gamma"))
        variable.assign(0.5 + np.abs(noise) if positive else 0.4 * noise)
    return model
