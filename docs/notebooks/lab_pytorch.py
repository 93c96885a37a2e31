# %% [markdown]
# # A lab on CRAFT, with PyTorch
#
# A university lab on concept-based explanation asks its students for this: take 300 pictures of a class, cut a
# ResNet50 in two, find ten concepts in crops of 80 pixels, say how much each matters, and look at them. It is written
# for Xplique's `CraftTorch`. Here it runs line by line; only the import line of CRAFT is another one.
#
# The second half shows what the lab's results mean. Its `h` is a **freshly initialised** linear layer, so that its
# importances explain a head that was never trained. A split that is proven, `h(g(x)) = f(x)`, prevents exactly that.
#
# The lab's pictures are rabbits from a server. Here they are 300 views of one photograph, Chelsea the cat by Stefan
# van der Walt (CC0, part of scikit-image), turned, mirrored and zoomed into. For your own pictures, set `IMAGES` to a
# file like the lab's `rabbit.npz`. `RESNET50` is a file of weights: torchvision's `resnet50-0676ba61.pth`, or a Keras
# ResNet50 of 2016, as in this run. Without one the weights are random: all cells run, and the concepts mean nothing.

# %%
import os

import cv2
import numpy as np
import torch
import torch.nn as nn
from resnet50 import resnet50

IMAGES = None  # or a file such as "rabbit.npz"
COUNT = 300  # views of the photograph
SOME = 60  # of them, in the second half
CLASS = 285  # "Egyptian cat" of ImageNet; 330 are the lab's rabbits
RESNET50 = os.environ.get("RESNET50")

# %%
# Check the device you are using is cuda
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
device

# %%
# The modules of torchvision's resnet50, written out in resnet50.py
model = resnet50(RESNET50)
model = model.to(device)
[(name, type(child).__name__) for name, child in model.named_children()]

# %%
# Cut the model in two part, g and h

# g is our 'input_to_latent'
g = nn.Sequential(*(list(model.children())[:8]))

# h is our 'latent_to_logit'
torch.manual_seed(0)
h = nn.Sequential(
    nn.AdaptiveAvgPool2d((1, 1)),
    nn.Flatten(),
    nn.Dropout(p=0.0, inplace=False),
    nn.Linear(in_features=2048, out_features=1000, bias=True),
    nn.Identity(),
)
h = h.to(device)
print(h)


# %%
# The lab's transformations: Resize(256), CenterCrop(256), ToTensor(), Normalize(mean, std)
def transf(picture):
    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    size = round(height * scale), round(width * scale)
    pixels = torch.tensor(picture).permute(2, 0, 1)[None] / 255
    resized = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - 256) // 2, (size[1] - 256) // 2
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return (resized[:, top : top + 256, left : left + 256] - mean[:, None, None]) / std[:, None, None]


def views(count):
    """One photograph, seen in many ways: uint8 (count, 270, 300, 3)."""
    from skimage import data

    photograph, rng = data.chelsea(), np.random.default_rng(0)
    seen = []
    for _ in range(count):
        turn = cv2.getRotationMatrix2D((225, 150), rng.uniform(-15, 15), rng.uniform(1.0, 1.6))
        turn[:, 2] += np.array([150, 135]) - (225, 150) + rng.uniform(-30, 30, 2)
        view = cv2.warpAffine(photograph, turn, (300, 270), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        seen.append(view[:, ::-1] if rng.random() < 0.5 else view)
    return np.stack(seen)


# %%
# loading some images of rabbits ! (or of a cat)
images = views(COUNT) if IMAGES is None else np.load(IMAGES)["arr_0"].astype(np.uint8)

images_preprocessed = torch.stack([transf(img) for img in images], 0)
images_preprocessed = images_preprocessed.to(device)
images_preprocessed.shape

# %% [markdown]
# ## Fitting CRAFT: crops and concepts

# %%
from craft_onnx import Craft

# Instanciate CRAFT
craft = Craft(
    input_to_latent_model=g,
    latent_to_logit_model=h,
    number_of_concepts=10,
    patch_size=80,
    batch_size=64,
    device=device,
)

# now we can start fit the concept using our images
crops, crops_u, concept_bank_w = craft.fit(images_preprocessed, class_id=CLASS)
crops.shape, crops_u.shape, concept_bank_w.shape

# %% [markdown]
# Nine crops a picture, ten coefficients a crop, ten directions among 2048 channels: the lab's shapes. The crops are
# not in memory; `numpy.asarray(crops)` makes them. `g` ran in evaluation mode, whatever mode it was in.

# %%
importances = craft.estimate_importance()
importances.round(3)

# %%
# Plot the attribution map for 1 image, and the concepts associated to
# the class around it, ordered by global importance
craft.plot_image_concepts(images_preprocessed[min(21, len(images) - 1)].cpu())

# %%
# Plot the importance values.
craft.plot_concepts_importances()

# %%
# Let's inspect those concepts by showing the 10 best crops for each concept.
# Limit the display to the 5 most important concepts.
craft.plot_concepts_crops(nb_crops=10, nb_most_important_concepts=5)

# %%
# Display the attribution map for 20 images.
# Limit the display to the 5 most important concepts.
craft.plot_concept_attribution_maps(images_preprocessed[0:20].cpu(), nb_most_important_concepts=5)

# %% [markdown]
# ## What these importances explain
#
# The concepts are those of a trained network: they come from `g` alone. The importances are not: they say what matters
# to `h`, a layer of random numbers. For a head of pooling and a linear layer they can be written down: concept i adds
# `c_i` = (mean coefficient) * (its row of W times the weights of the class) to the logit, and its importance in a
# picture is `c_i ** 2 / sum(c ** 2)`.

# %%
u = craft.transform(images_preprocessed).mean(axis=(1, 2))  # (pictures, concepts)


def importances_for(weight):
    """Of the concepts for a linear head (1000, 2048)."""
    c = u * (concept_bank_w @ weight[CLASS].detach().cpu().numpy())
    return (c**2 / (c**2).sum(axis=1, keepdims=True)).mean(axis=0)


np.testing.assert_allclose(importances_for(h[3].weight), importances, rtol=1e-3)
for seed in range(4):
    torch.manual_seed(seed)
    row = importances_for(nn.Linear(2048, 1000).weight)
    print(f"fresh layer, seed {seed}:", " ".join(f"{value:5.2f}" for value in row))
print("the model's own head:  ", " ".join(f"{value:5.2f}" for value in importances_for(model.fc.weight)))

# %% [markdown]
# Another seed, another explanation, and none of them is about the model. The check that would have told is simple: are
# the two halves the whole?

# %%
with torch.no_grad():
    x = images_preprocessed[:4]
    logits, activations = model.eval()(x), g.eval()(x)
    for name, head in {"fresh": h, "own": nn.Sequential(model.avgpool, nn.Flatten(), model.fc)}.items():
        error = (head(activations) - logits).norm() / logits.norm()
        print(f"{name} head: h(g(x)) is off from f(x) by {error:.1e} of its size")

# %% [markdown]
# ## The split that is proven
#
# Nobody has to cut by hand. The model becomes ONNX, its conversion is compared with PyTorch, and the halves of the
# bundle are cut out of that one graph: `h` cannot be another head. The relative error of `h(g(x))` is stored with it.

# %%
import craft_onnx as co
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx_converters import convert

conversion = convert(model.cpu().eval(), input_shape=(3, 256, 256), preprocessing={"preset": "torch", "resize_to": 256})
print("ONNX against PyTorch, by batch size:", {batch: f"{error:.0e}" for batch, error in conversion.errors.items()})
create_bundle(conversion.model, ["layer4"], "resnet50", force=True)
split = co.load("resnet50")
x = images_preprocessed[:4].cpu().numpy()
print("cut at", split.cut.name, split.cut.shape)
print("h(g(x)) against f(x):", np.abs(split.h(split.g(x)) - split.predict(x)).max())

# %%
inputs = images_preprocessed[:SOME].cpu().numpy()
predicted = split.predict(inputs).argmax(axis=1)
print(f"predicted as class {CLASS}: {(predicted == CLASS).sum()} of {len(inputs)}")
kept = inputs[predicted == CLASS] if RESNET50 else inputs

proven = co.Craft(split, number_of_concepts=10, patch_size=80)
crops, crops_u, w = proven.fit(kept, class_id=CLASS)
proven.estimate_importance().round(3)

# %%
proven.plot_image_concepts(kept[min(21, len(kept) - 1)])

# %%
proven.plot_concepts_crops(nb_crops=10, nb_most_important_concepts=5)

# %% [markdown]
# In this run the nose matters most, then the inner corner of the eye; the other parts of the face add little. The fresh
# layer put the brow first.
#
# How do we know that this explanation is the better one? Remove concepts from the activations, the most important
# first, and watch the logit of the class. The sooner it falls, the better the ranking. The ranking by the fresh layer
# is of the concepts in `craft`, matched here to those of `proven` by the direction of their rows in W.

# %%
from scipy.optimize import linear_sum_assignment

unit = concept_bank_w / np.linalg.norm(concept_bank_w, axis=1, keepdims=True)
_, match = linear_sum_assignment(-unit @ w.T)
print("cosines of the matched rows:", np.sort((unit * w[match]).sum(axis=1)).round(2))
fresh_order = [int(match[i]) for i in np.argsort(importances)[::-1]]
areas = {
    "own head": proven.deletion().area,
    "fresh head": proven.deletion(ranking=fresh_order).area,
    "random order, mean of 20": np.mean([proven.deletion(ranking="random", seed=seed).area for seed in range(20)]),
}
{name: round(float(area), 3) for name, area in areas.items()}

# %% [markdown]
# Without what the model's own head ranks first, the logit falls at once. In the order of the fresh layer it stays up
# for longer than in random order: that explanation is worth less than none.
#
# Contributions have a sign, too, which a Sobol index has not: what speaks for the class, in logits, on average. The
# head is pooling and a linear layer, so that these numbers are exact and add up to the logit of the reconstruction.

# %%
summary = proven.importance_
for i in np.argsort(summary.values)[::-1]:
    print(f"concept {i}: importance {summary.values[i]:.3f}, contribution {summary.contributions[i]:+.2f}")
print(f"sum of the contributions and the bias: {summary.contributions.sum() + summary.bias:.2f}")
