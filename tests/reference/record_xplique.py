"""Record what Xplique's CraftTorch computes for the small network; see README.md."""

import numpy as np
import torch
import torch_net
from support.small_net import network, pictures
from xplique.concepts import CraftTorch

SETTINGS = {"number_of_concepts": 6, "batch_size": 16, "patch_size": 16, "device": "cpu"}
CLASS_ID = 2
SOME = [0, 1, 5, 50, 107]  # crops to compare; all would be large


def record():
    weights, images = network(), pictures()
    values = {}
    for head in ("linear", "mlp"):
        g, h = torch_net.halves(weights, head)
        craft = CraftTorch(g, h, **SETTINGS)
        np.random.seed(0)  # noqa: NPY002  # scikit-learn's NMF in Xplique draws from numpy's global state
        crops, crops_u, w = craft.fit(torch.from_numpy(images), class_id=CLASS_ID)
        values[f"{head}_importances"] = craft.estimate_importance()
        values[f"{head}_local"] = craft.estimate_importance(torch.from_numpy(images[3:4]))
    values |= {
        "crops_shape": np.array(crops.shape),
        "crops_index": np.array(SOME),
        "crops": crops[SOME],
        "activations": craft._extract_patches(torch.from_numpy(images))[1],
        "crops_u": crops_u,
        "w": w,
        "transform": craft.transform(torch.from_numpy(images[:3])),
    }
    torch_net.write("xplique", ("xplique", "torch", "scikit-learn", "scipy"), values)


if __name__ == "__main__":
    record()
