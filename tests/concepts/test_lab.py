"""A teaching notebook written for Xplique's CraftTorch, line by line, on few pictures and a small network.

Only the import line is another one. g, h and the images are PyTorch's; h is the notebook's freshly initialised layer.
"""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from craft_onnx import Craft, DisplayImportancesOrder
from craft_onnx.runtime.crops import Crops

torch = pytest.importorskip("torch")
nn = torch.nn
PICTURES, CHANNELS, CLASSES = 6, 48, 20
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class SmallResNet(nn.Module):
    """The children of a ResNet50, smaller: eight of them make 8 x 8 feature maps of 256 x 256 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [8, 8, 16, 32, CHANNELS]
        for i in range(4):
            convolution = nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 if i == 0 else 2, padding=1)
            setattr(self, f"layer{i + 1}", nn.Sequential(convolution, nn.BatchNorm2d(widths[i + 1]), nn.ReLU()))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(CHANNELS, CLASSES)


def photographs():
    """uint8 RGB, not square, as the notebook's file has them."""
    rng = np.random.default_rng(0)
    coarse = rng.random((PICTURES, 3, 6, 7), np.float32)
    smooth = nn.functional.interpolate(torch.tensor(coarse), (300, 340), mode="bicubic").clamp(0, 1)
    return (255 * smooth.numpy()).astype(np.uint8).transpose(0, 2, 3, 1)


def transf(picture):
    """Resize(256), CenterCrop(256), ToTensor, Normalize."""
    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    pixels = torch.tensor(picture).permute(2, 0, 1)[None] / 255
    size = (round(height * scale), round(width * scale))
    resized = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - 256) // 2, (size[1] - 256) // 2
    return (resized[:, top : top + 256, left : left + 256] - MEAN[:, None, None]) / STD[:, None, None]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The notebook up to its fit: every name it defines."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SmallResNet().to(device)
    g = nn.Sequential(*(list(model.children())[:8]))
    h = nn.Sequential(
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Dropout(p=0.0, inplace=False),
        nn.Linear(in_features=CHANNELS, out_features=CLASSES, bias=True),
        nn.Identity(),
    )
    h = h.to(device)
    rabbit_class = 13
    path = tmp_path_factory.mktemp("lab") / "rabbit.npz"
    np.savez(path, photographs())
    images = np.load(path)["arr_0"].astype(np.uint8)
    images_preprocessed = torch.stack([transf(img) for img in images], 0)
    images_preprocessed = images_preprocessed.to(device)
    craft = Craft(
        input_to_latent_model=g,
        latent_to_logit_model=h,
        number_of_concepts=10,
        patch_size=80,
        batch_size=64,
        device=device,
    )
    crops, crops_u, concept_bank_w = craft.fit(images_preprocessed, class_id=rabbit_class)
    importances = craft.estimate_importance()
    yield locals()
    torch.set_num_threads(threads)


def test_shapes(lab):
    """300 pictures give crops (2700, 3, 80, 80), U (2700, 10), W (10, 2048): nine crops a picture, ten concepts."""
    n = 9 * PICTURES
    assert tuple(lab["images_preprocessed"].shape) == (PICTURES, 3, 256, 256)
    shapes = lab["crops"].shape, lab["crops_u"].shape, lab["concept_bank_w"].shape
    assert shapes == ((n, 3, 80, 80), (n, 10), (10, CHANNELS))
    assert Crops.grid(np.zeros((300, 3, 256, 256), np.uint8), 80).shape == (2700, 3, 80, 80)
    assert np.asarray(lab["crops"]).dtype == np.float32


def test_crops_and_activations_are_pytorchs(lab):
    """As CraftTorch makes them: unfold, interpolate, g, mean; but for g's mode, which it leaves as it is."""
    unfold, resize = nn.functional.unfold, nn.functional.interpolate
    patches = unfold(lab["images_preprocessed"], kernel_size=80, stride=64).transpose(1, 2).reshape(-1, 3, 80, 80)
    assert np.array_equal(np.asarray(lab["crops"]), patches.cpu().numpy())
    assert lab["g"].training
    with torch.no_grad():
        a = lab["g"].eval()(resize(patches, size=(256, 256), mode="bilinear", align_corners=False))
    lab["g"].train()
    a = a.mean(dim=(2, 3)).cpu().numpy()
    residual = np.linalg.norm(a - lab["crops_u"] @ lab["concept_bank_w"]) / np.linalg.norm(a)
    # OpenCV resizes as PyTorch does, to 7e-6 of a pixel's range; the activations are of order 0.1.
    assert residual == pytest.approx(lab["craft"].factorisation_.relative_error, abs=1e-4)


def test_importances(lab):
    importances = lab["importances"]
    assert importances.shape == (10,) and np.isfinite(importances).all()
    # h is pooling and a linear layer, which is seen: nothing is sampled.
    assert lab["craft"].importance_.exact and importances.sum() == pytest.approx(1)


def test_plots(lab):
    craft, images_preprocessed = lab["craft"], lab["images_preprocessed"]
    figures = [
        craft.plot_image_concepts(images_preprocessed[2].cpu()),
        craft.plot_image_concepts(images_preprocessed[2].cpu(), display_importance_order=DisplayImportancesOrder.LOCAL),
        craft.plot_concepts_importances(),
        craft.plot_concepts_crops(nb_crops=10, nb_most_important_concepts=5),
        craft.plot_concept_attribution_maps(images_preprocessed[0:20].cpu(), nb_most_important_concepts=5),
    ]
    assert all(isinstance(figure, Figure) and figure._repr_png_()[:4] == b"\x89PNG" for figure in figures)
    assert len(figures[2].axes[0].patches) == 10 and len(figures[3].subfigs) == 5
    shown = [image.get_array().shape for ax in figures[4].axes for image in ax.images]
    assert shown == [(256, 256, 3)] * PICTURES
    pyplot = sys.modules.get("matplotlib.pyplot")  # figures that pyplot does not know need not be closed
    assert pyplot is None or not pyplot.get_fignums()
