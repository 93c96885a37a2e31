"""Training of the two demo models: ``python -m craft_onnx_models.birds.train``; needs PyTorch, minutes on a CPU.

Both models are plain Conv-ReLU networks with global average pooling and a linear head. One learns from pictures of the
shortcut world, the other from the control world; nothing else differs.
"""

import torch
from torch import nn

from craft_onnx.description import Preprocessing
from craft_onnx_models.birds.draw import CLASSES, SIZE, draw, pictures

TRAIN_SEED, TEST_SEED = 1_000_001, 1_000_002  # of pictures
RULE = Preprocessing(size=(SIZE, SIZE), scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def network() -> nn.Module:
    """The untrained network, logits of pictures (n, 3, 96, 96)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, kernel, stride in (
        (3, 16, 5, 2),
        (16, 32, 3, 2),
        (32, 48, 3, 1),
        (48, 64, 3, 1),
        (64, 64, 1, 1),
    ):
        layers += [nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2), nn.ReLU()]
    return Birdnet(nn.Sequential(*layers), 64)


class Birdnet(nn.Module):
    """Convolutions, the mean over space, one linear layer."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of pictures (n, 3, 96, 96)."""
        return self.head(self.pool(self.features(x)).flatten(1))


def dataset(seed: int, world: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, 3, 96, 96) uint8 and their classes (n,)."""
    birds = [draw(seed, index, world) for index in range(n)]
    images = torch.from_numpy(pictures(birds).transpose(0, 3, 1, 2).copy())
    return images, torch.tensor([bird.label for bird in birds])


def standardised(images: torch.Tensor) -> torch.Tensor:
    """The model's input from uint8 pictures, as `RULE` says."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (RULE.mean, RULE.std))
    return (images.float() * RULE.scale - mean) / std
