"""Record what zennit computes, in float64, rule by rule and for composites on whole networks; see README.md."""

import io
import warnings

import numpy as np
import onnx
import torch
import torch_net
from support.seeded_weights import seeded, without_weights
from torch import nn
from zoo.catalogue import import_torchvision

models = import_torchvision().models  # zennit imports it too, and cannot where it was built for another PyTorch

import zennit.composites  # noqa: E402
import zennit.rules  # noqa: E402
from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import NamedMergeBatchNorm, SequentialMergeBatchNorm  # noqa: E402
from zennit.layer import Sum  # noqa: E402
from zennit.torchvision import VGGCanonizer  # noqa: E402
from zennit.types import Convolution, Linear  # noqa: E402

# Divides the channels of each network; some have fewer layers, too, so that a test runs them in float64.
NARROW = {"vgg16": 16, "resnet50": 16, "mobilenet_v2": 8, "densenet121": 8}
# MobileNetV2's factor of expansion, channels, blocks and stride; at most two blocks.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 2, 1), (6, 160, 2, 2), (6, 320, 1, 1)]
SIDE, CLASSES = 64, 5
LOW, HIGH = -3.0, 3.0
EVERY = 2  # one pixel in four is kept
RULES = {
    "epsilon": zennit.rules.Epsilon(),
    "epsilon_no_bias": zennit.rules.Epsilon(zero_params="bias"),
    "zplus": zennit.rules.ZPlus(),
    "zplus_no_bias": zennit.rules.ZPlus(zero_params="bias"),
    "alpha_beta": zennit.rules.AlphaBeta(alpha=2, beta=1),
    "gamma": zennit.rules.Gamma(gamma=0.25),
    "zbox": zennit.rules.ZBox(low=LOW, high=HIGH),
    "wsquare": zennit.rules.WSquare(),
    "flat": zennit.rules.Flat(),
    "pass": zennit.rules.Pass(),
}
# The size of one input, and the layer; `Pass` only where input and output have the same size.
OPERATORS = {
    "linear": ((6,), lambda: nn.Linear(6, 4)),
    "conv": ((3, 6, 5), lambda: nn.Conv2d(3, 4, 3, padding=1)),
    "conv_strided": ((3, 7, 6), lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=1)),
    "conv_grouped": ((4, 5, 5), lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=(2, 1), padding=1)),
    "conv_depthwise": ((3, 5, 5), lambda: nn.Conv2d(3, 3, 3, groups=3, padding=1)),
    "conv_without_bias": ((3, 5, 5), lambda: nn.Conv2d(3, 4, 3, bias=False)),
    "conv_transpose": ((3, 4, 4), lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1)),
}


def rows(name, *shape):
    """Numbers that follow from a name."""
    return np.random.default_rng(sum(name.encode())).standard_normal(shape)


def relevance(module, composite, x, start):
    """Of the inputs, where that of the outputs is given."""
    with Gradient(model=module, composite=composite) as attributor:
        return attributor(torch.tensor(x), torch.tensor(start))[1].detach().numpy()


def exported(module, shape):
    """The module in ONNX, its weights taken out."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (torch.zeros(2, *shape),), dynamo=True, optimize=False, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    program.save(content)
    return np.frombuffer(without_weights(onnx.ModelProto.FromString(content.getvalue())), np.uint8)


def fill(module):
    """Give a module the weights that follow from their names."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.tensor(seeded(name, tuple(tensor.shape))))
    return module.eval()


def single_rules():
    """Every rule on every operator."""
    values = {}
    for operator, (shape, layer) in OPERATORS.items():
        module = fill(nn.Sequential(layer()))
        values[f"rule/{operator}/model"] = exported(module, shape)
        x = rows(operator, 2, *shape)
        start = rows(f"{operator} start", *module(torch.tensor(x, dtype=torch.float32)).shape)
        values |= {f"rule/{operator}/x": x, f"rule/{operator}/start": start}
        for name, rule in RULES.items():
            if name != "pass" or start.shape == x.shape:
                composite = zennit.composites.LayerMapComposite([((Convolution, Linear), rule)])
                values[f"rule/{operator}/{name}"] = relevance(module.double(), composite, x, start)
    return values


def narrow(module, divisor):
    """Layers with fewer channels, in place; three of the input and the classes stay."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            setattr(parent, name, _narrowed(layer, divisor))
    return module


def _narrowed(layer, divisor):
    def fewer(channels):
        return channels if channels == 3 else max(1, channels // divisor)

    if isinstance(layer, nn.Conv2d):
        inputs, outputs = fewer(layer.in_channels), fewer(layer.out_channels)
        groups = inputs if layer.groups > 1 else 1
        return nn.Conv2d(
            inputs, outputs, layer.kernel_size, layer.stride, layer.padding, groups=groups, bias=layer.bias is not None
        )
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(fewer(layer.num_features), eps=0)  # zennit 0.5.1 counts it twice where it merges
    if isinstance(layer, nn.Linear):
        return nn.Linear(fewer(layer.in_features), CLASSES if layer.out_features == 1000 else fewer(layer.out_features))
    return type(layer)() if isinstance(layer, (nn.ReLU, nn.ReLU6)) else layer  # not in place


class Residual(nn.Module):
    """Two branches, their sum a module, for which zennit has a rule; what is exported has the usual sum."""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut, self.sum = body, shortcut, Sum()

    def forward(self, x):
        one, other = self.shortcut(x), self.body(x)
        return one + other if torch.compiler.is_exporting() else self.sum(torch.stack([one, other], -1))


def vgg16():
    net = narrow(models.vgg16(weights=None), NARROW["vgg16"])
    net.avgpool, net.classifier[0] = nn.AdaptiveAvgPool2d(2), nn.Linear(4 * 32, 256)
    return net, [VGGCanonizer()]


def bottleneck(block):
    """Each ReLU a module of its own: zennit's BetaSmooth keeps what the last call of one saw."""
    parts = [block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU(), block.conv3, block.bn3]
    return nn.Sequential(Residual(nn.Sequential(*parts), block.downsample or nn.Identity()), nn.ReLU())


def resnet50():
    net = narrow(models.ResNet(models.resnet.Bottleneck, [2, 2, 3, 2]), NARROW["resnet50"])
    stages = [nn.Sequential(*map(bottleneck, stage)) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)]
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    return nn.Sequential(*stem, *stages, net.avgpool, nn.Flatten(), net.fc), [SequentialMergeBatchNorm()]


def mobilenet_v2():
    net = narrow(models.MobileNetV2(inverted_residual_setting=STAGES), NARROW["mobilenet_v2"])
    blocks = [
        Residual(one.conv, nn.Identity()) if getattr(one, "use_res_connect", False) else one for one in net.features
    ]
    pooled = nn.Sequential(nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)
    return pooled, [SequentialMergeBatchNorm()]


def densenet121():
    """What follows another layer directly is merged by name: in the order of definition others do, too."""
    net = narrow(models.DenseNet(block_config=(2, 4, 6, 4)), NARROW["densenet121"])
    pooled = nn.Sequential(net.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)
    layers = [name.removesuffix(".conv1") for name, _ in pooled.named_modules() if name.endswith(".conv1")]
    pairs = [([f"{layer}.conv1"], f"{layer}.norm2") for layer in layers]
    return pooled, [NamedMergeBatchNorm([(["0.conv0"], "0.norm0"), *pairs])]


def composites(canonizers):
    """All that zennit registers; its rectifiers do not count ReLU6, ours do."""
    bounds = {"low": LOW, "high": HIGH}
    capped = {
        "guided_backprop": [(nn.ReLU6, zennit.rules.ReLUGuidedBackprop())],
        "deconvnet": [(nn.ReLU6, zennit.rules.ReLUDeconvNet())],
    }
    for name, kind in zennit.composites.COMPOSITES.items():
        more = {"layer_map": capped[name]} if name in capped else {}
        yield name, kind(canonizers=canonizers, **more, **(bounds if name == "epsilon_gamma_box" else {}))


def networks():
    """Every composite on every network."""
    values = {"network/x": rows("x", 1, 3, SIDE, SIDE), "network/start": rows("start", 1, CLASSES)}
    for build in (vgg16, resnet50, mobilenet_v2, densenet121):
        module, canonizers = build()
        fill(module)
        key = f"network/{build.__name__}"
        values[f"{key}/model"] = exported(module, (3, SIDE, SIDE))
        module.double()
        for name, composite in composites(canonizers):
            found = relevance(module, composite, values["network/x"], values["network/start"])
            values[f"{key}/{name}"] = found[..., ::EVERY, ::EVERY].astype(np.float32)
    return values


if __name__ == "__main__":
    torch_net.write("zennit", ("zennit", "torch", "torchvision"), single_rules() | networks())
