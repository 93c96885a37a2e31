"""A small vision transformer and a small ConvNeXt in plain PyTorch, as bundles: their activations are signed."""

import warnings

import torch
from support.torch_families import ConvNeXtBlock, Encoder
from torch import nn

from craft_onnx.description import Description, Preprocessing
from craft_onnx.graph.load import load, write_description
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx.runtime.proof import normalize_proven


class SmallViT(nn.Module):
    """Patches of 8 pixels of pictures (N, 3, 48, 64), a class token and registers before them, three encoders."""

    def __init__(self, registers=0, width=24):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.tokens = nn.Parameter(torch.randn(1, 1 + registers, width))
        self.positions = nn.Parameter(0.3 * torch.randn(1, 1 + registers + 6 * 8, width))
        self.blocks = nn.Sequential(*[Encoder(width, 3) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def embedded(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.tokens.expand(x.shape[0], -1, -1), patches], 1) + self.positions

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embedded(x)))[:, 0])


class SmallConvNeXt(nn.Module):
    """A stem, two blocks whose output is signed, and a LayerNorm behind the pooling."""

    def __init__(self, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(width) for _ in range(2)])
        for block in self.blocks:
            nn.init.ones_(block.scale)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


def bundle_of(net, cuts, folder, size=(48, 64)):
    """The bundle of a network from (N, 3, H, W) in 0..1 to logits, in a new folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, which change from version to version
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            net.eval(), (torch.zeros(2, 3, *size),), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    path = folder / "net.onnx"
    program.save(path)
    model, _ = normalize_proven(load(path))
    write_description(model, Description(preprocessing=Preprocessing(size=size, scale=1 / 255)))
    return create_bundle(model, cuts, folder / "bundle")
