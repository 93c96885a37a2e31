"""What the benchmarks share: pinned threads, interleaved timing, a ResNet50 with random weights, its bundle."""

import os

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

torch.set_num_threads(THREADS)


def interleaved(sides: dict[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Median seconds of each side; every repeat runs all of them in turn, after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, stride_first: bool = False):
        super().__init__()
        out = 4 * width
        first, second = (stride, 1) if stride_first else (1, stride)
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, first, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, second, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        same = stride == 1 and channels == out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """He et al. 2015, table 1, with the stride in the 3x3 convolution, or as there in the first one."""

    def __init__(self, classes: int = 1000, stride_first: bool = False):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        channels, layers = 64, []
        for i, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(channels, width, 2 if block == 0 and i else 1, stride_first))
                channels = 4 * width
            layers.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.fc = nn.Linear(channels, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))

    def head(self, a: torch.Tensor) -> torch.Tensor:
        return self.fc(a.mean((2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def resnet50() -> ResNet50:
    """A ResNet50 with seeded random weights whose activations neither vanish nor explode."""
    torch.manual_seed(0)
    net = ResNet50()
    for module in net.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.body[-1].weight, 0.3)
    return net.eval()


def resnet50_bundle(folder: Path, side: int = 224, net: ResNet50 | None = None) -> Path:
    """The bundle of `resnet50`, or of another, for pictures of a side, cut before its pooling: by our own converter."""
    from craft_onnx.runtime.bundle import create_bundle
    from craft_onnx_converters import convert

    program = torch.export.export(
        net or resnet50(), (torch.zeros(2, 3, side, side),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / "resnet50.pt2")
    conversion = convert(folder / "resnet50.pt2", preprocessing={"preset": "torch"})
    create_bundle(conversion.model, ["layer4"], folder / "bundle")
    return folder / "bundle"
