"""Networks of Keras: built with weights that matter, and differentiated by TensorFlow itself."""

from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow
from numpy.typing import NDArray

from zoo.catalogue import Network
from zoo.weights import calibration, statistics, varied

Array = NDArray[Any]
_as_keras_has_it = keras.layers.Conv2D.convolution_op


def build(network: Network) -> Any:
    """The network, without its final Softmax."""
    if network.library == "trained":
        return _without_softmax(keras.saving.load_model(network.options["file"], compile=False))
    keras.utils.set_random_seed(0)
    net = _create(network)
    rng = np.random.default_rng(0)
    for weights in net.trainable_weights:
        found = varied(weights.numpy(), rng)
        if found is not None:
            weights.assign(found)
    _calibrate(net, network.shape)
    return net


def gradient(net: Any, x: Array, cotangent: Array, wide: bool) -> Array:
    """TensorFlow's derivative to x of the sum of logits times cotangent, in float32 or float64."""
    kind = "float64" if wide else "float32"
    net = _in_float64(net) if wide else net
    pictures = tensorflow.constant(x, kind)
    with tensorflow.GradientTape() as tape, mock.patch.object(keras.layers.Conv2D, "convolution_op", _convolution):
        tape.watch(pictures)
        target = tensorflow.reduce_sum(net(pictures, training=False) * tensorflow.constant(cotangent, kind))
    return tape.gradient(target, pictures).numpy()


def logits(net: Any, x: Array) -> Array:
    """The outputs."""
    return net(x, training=False).numpy()


def parameters(net: Any) -> int:
    """How many weights there are."""
    return net.count_params()


def _create(network: Network) -> Any:
    factory = getattr(keras.applications, network.name)
    return factory(weights=None, input_shape=network.shape, classifier_activation=None)


def _without_softmax(net: Any) -> Any:
    net.layers[-1].activation = keras.activations.linear
    return net


def _calibrate(net: Any, shape: tuple[int, ...]) -> None:
    """Give every BatchNormalization statistics of what comes to it from random pictures."""
    layer_type, rng = keras.layers.BatchNormalization, np.random.default_rng(3)
    call = layer_type.call

    def take(layer: Any, x: Any, **options: Any) -> Any:
        channels = np.moveaxis(x.numpy(), layer.axis, -1)
        mean, variance = statistics(channels.reshape(-1, channels.shape[-1]), rng)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
        return call(layer, x, **options)

    with mock.patch.object(layer_type, "call", take):
        net(calibration(shape), training=False)


def _convolution(layer: Any, x: Any, kernel: Any) -> Any:
    """TensorFlow's depthwise convolution where there is a group a channel: Keras asks XLA, which takes minutes."""
    if layer.groups == x.shape[-1] == layer.filters and layer.strides == layer.dilation_rate == (1, 1):
        wide = tensorflow.transpose(kernel, (0, 1, 3, 2))
        return tensorflow.nn.depthwise_conv2d(x, wide, (1, 1, 1, 1), layer.padding.upper())
    return _as_keras_has_it(layer, x, kernel)


def _in_float64(net: Any) -> Any:
    """The same network with wide weights; layers take the global policy when they are made from their configuration."""
    keras.config.set_floatx("float64")
    try:
        wide = keras.Model.from_config(_widened(net.get_config()))
    finally:
        keras.config.set_floatx("float32")
    wide.set_weights(net.get_weights())
    return wide


def _widened(config: Any) -> Any:
    """A configuration with every mention of float32 replaced."""
    if isinstance(config, dict):
        return {key: _widened(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_widened(value) for value in config)
    return "float64" if isinstance(config, str) and config == "float32" else config
