"""Record what the authors' craft-xai computes for the small network; see README.md."""

import numpy as np
import torch
import torch_net
from craft.craft_torch import Craft
from support.small_net import network, pictures

SETTINGS = {"number_of_concepts": 6, "batch_size": 16, "patch_size": 16, "device": "cpu"}
CLASS_ID = 2
SOME = [0, 1, 5, 50, 107]  # crops to compare; all would be large


def record():
    weights, images = network(), torch.from_numpy(pictures(height=40, width=40))  # it takes square images only
    values = {}
    for head in ("linear", "mlp"):
        g, h = torch_net.halves(weights, head)
        craft = Craft(g, h, **SETTINGS)
        np.random.seed(0)  # noqa: NPY002  # scikit-learn's NMF in craft-xai draws from numpy's global state
        crops, crops_u, w = craft.fit(images)
        values[f"{head}_importances"] = craft.estimate_importance(images, CLASS_ID)
        values[f"{head}_local"] = craft.estimate_importance(images[3:4], CLASS_ID)
    resized = torch.nn.functional.interpolate(crops, size=40, mode="bilinear", align_corners=False)
    values |= {
        "crops_shape": np.array(crops.shape),
        "crops_index": np.array(SOME),
        "crops": crops[SOME].numpy(),
        "activations": g(resized).mean(dim=(2, 3)).detach().numpy(),
        "crops_u": crops_u,
        "w": w,
        "transform": craft.transform(images[:3]),
    }
    torch_net.write("craft_xai", ("craft-xai", "torch", "scikit-learn", "scipy"), values)


if __name__ == "__main__":
    record()
