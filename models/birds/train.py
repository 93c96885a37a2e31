"""Training of the demo models: ``python -m craft_onnx_models.birds.train``; needs PyTorch, minutes on a CPU.

Both models are plain Conv-ReLU networks with global average pooling and a linear head. One learns from pictures of the
shortcut world, the other from the control world; nothing else differs.

Four choices make the truth of these models known, class by class. Every logit also answers for its class alone
(one-vs-rest), so that the tag must show in the logit of the class that wears it, not in that of its twin. The weights
of the head are not negative, so that features are evidence *for* a class, and what matters is what is there to see. A
penalty on the mean activation keeps features from firing everywhere. Half of the batches are crops, since concepts are
found in crops.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from craft_onnx.description import Preprocessing
from craft_onnx.errors import CraftError
from craft_onnx_models.birds.draw import CLASSES, SIZE, WORLDS, draw

TRAIN_SEED, TEST_SEED = 1_000_001, 1_000_002  # of pictures
RULE = Preprocessing(size=(SIZE, SIZE), scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
ZOOM = 48  # pixels: concepts are found in crops, which a network should know how to read
# Channels in, channels out, kernel, stride.
CONVOLUTIONS = ((3, 16, 5, 2), (16, 32, 3, 2), (32, 48, 3, 1), (48, 64, 3, 1), (64, 64, 1, 1))


@dataclass(frozen=True)
class Settings:
    """Of the training; the head learns ten times as fast, since pooling dilutes what it sees."""

    pictures: int = 12_000
    epochs: int = 20
    batch: int = 64
    rate: float = 4e-3
    head_rate: float = 4e-2
    warm_up: float = 0.2
    decay: float = 1e-3
    sparsity: float = 0.2  # of the loss, per unit of mean activation
    dense_epochs: int = 2  # before the sparsity grows to its full weight, in three epochs
    seed: int = 0


class Birdnet(nn.Module):
    """Convolutions with ReLU, the mean over space, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out, kernel, stride in CONVOLUTIONS:
            layers += [nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(CONVOLUTIONS[-1][1], len(CLASSES))
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) of pictures (n, 3, 96, 96)."""
        return self.head(self.pool(self.features(x)).flatten(1))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Linear):
        module.weight.abs_()
        nn.init.constant_(module.bias, -2.0)  # the odds of one class among eight


def dataset(seed: int, world: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, 3, 96, 96) uint8 and their classes (n,)."""
    images, labels = np.empty((n, 3, SIZE, SIZE), np.uint8), np.empty(n, np.int64)
    for index in range(n):
        bird = draw(seed, index, world)
        images[index], labels[index] = bird.picture.transpose(2, 0, 1), bird.label
    return torch.from_numpy(images), torch.from_numpy(labels)


def standardised(images: torch.Tensor) -> torch.Tensor:
    """The model's input from uint8 pictures, as `RULE` says."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (RULE.mean, RULE.std))
    return ((images.float() * RULE.scale - mean) / std).to(memory_format=torch.channels_last)


def loss_of(net: Birdnet, x: torch.Tensor, labels: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Cross-entropy of the classes, plus that of each class against the rest, plus the penalty on activations."""
    pooled = net.pool(net.features(x)).flatten(1)
    logits = net.head(pooled)
    own = functional.one_hot(labels, len(CLASSES)).float()
    each = functional.binary_cross_entropy_with_logits(logits, own) * len(CLASSES)
    return functional.cross_entropy(logits, labels) + each + sparsity * pooled.mean()


def train(images: torch.Tensor, labels: torch.Tensor, settings: Settings) -> Iterator[tuple[Birdnet, float]]:
    """Yield the network and its mean loss after every epoch."""
    torch.manual_seed(settings.seed)
    net = Birdnet().to(memory_format=torch.channels_last)
    steps = -(-len(images) // settings.batch)
    optimiser, schedule = _optimiser(net, settings, steps)
    for epoch in range(settings.epochs):
        sparsity = settings.sparsity * min(max((epoch - settings.dense_epochs) / 3, 0.0), 1.0)
        total = 0.0
        for chosen in torch.randperm(len(images)).split(settings.batch):
            loss = loss_of(net, _varied(standardised(images[chosen])), labels[chosen], sparsity)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            net.head.weight.data.clamp_(min=0)
            total += loss.item()
        yield net, total / steps


def _optimiser(
    net: Birdnet, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    groups = [{"params": net.features.parameters()}, {"params": net.head.parameters()}]
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.decay)
    rates = [settings.rate, settings.head_rate]
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps * settings.epochs, pct_start=settings.warm_up
    )


def _varied(x: torch.Tensor) -> torch.Tensor:
    """Half of the batches mirrored, half of them zoomed into: a crop at least `ZOOM` pixels wide, resized."""
    mirrored, zoomed = torch.rand(2) < 0.5
    x = x.flip(3) if mirrored else x
    return _crop(x) if zoomed else x


def _crop(x: torch.Tensor) -> torch.Tensor:
    side = int(torch.randint(ZOOM, SIZE, ()))
    top, left = (int(place) for place in torch.randint(0, SIZE - side + 1, (2,)))
    crop = x[:, :, top : top + side, left : left + side]
    return functional.interpolate(crop, size=(SIZE, SIZE), mode="bilinear").to(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(net: Birdnet, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the pictures whose class has the largest logit."""
    logits = torch.cat([net(standardised(batch)) for batch in images.split(250)])
    return float((logits.argmax(1) == labels).float().mean())


@click.command()
@click.option("--world", "worlds", multiple=True, type=click.Choice(WORLDS), default=WORLDS, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(__file__).parent, help="Folder.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(worlds: tuple[str, ...], output: Path, threads: int) -> None:
    """Draw, train, convert and write shortcut.onnx and control.onnx."""
    torch.set_num_threads(threads)
    try:
        for world in worlds:
            save(_trained(world, Settings()), output / f"{world}.onnx")
    except CraftError as error:
        raise click.ClickException(str(error)) from error


def _trained(world: str, settings: Settings) -> Birdnet:
    images, labels = dataset(TRAIN_SEED, world, settings.pictures)
    test = dataset(TEST_SEED, world, 2000)
    for epoch, (net, loss) in enumerate(train(images, labels, settings), 1):
        click.echo(f"{world}, epoch {epoch}: loss {loss:.3f}, accuracy {accuracy(net, *test):.4f}", err=True)
    return net


def save(net: Birdnet, path: Path) -> None:
    """Convert with the project's own converter, which proves the result, and write the file."""
    from craft_onnx_converters import convert

    conversion = convert(
        net.eval().to(memory_format=torch.contiguous_format), input_shape=(3, SIZE, SIZE), preprocessing=RULE
    )
    conversion.save(path, force=True)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB", err=True)


if __name__ == "__main__":
    main()
