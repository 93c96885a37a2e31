"""Which networks are tried: all classifiers of keras.applications and torchvision, and a choice of timm's."""

import fnmatch
import functools
import importlib
import json
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIBRARIES = ("keras", "torchvision", "timm", "trained")


@dataclass(frozen=True)
class Network:
    """A network to build.

    Attributes
    ----------
    library, family, name : str
        Where it comes from, the module there that defines it, its name.
    shape : tuple of int
        Of one input, without the batch: the smallest at which every part of the network still works.
    options : dict
        Arguments of its constructor.
    """

    library: str
    family: str
    name: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.library}/{self.name}"

    def fields(self) -> dict[str, Any]:
        return asdict(self)


# Side of the input by pattern, the first that fits. VGG and AlexNet pool to a fixed size that their sizes divide only
# at 224; attention in windows of 7 needs 224 too; Inception shrinks its input by borders.
SIDES = {
    "torchvision": {"vgg*": 224, "alexnet": 224, "maxvit*": 224, "inception*": 96, "vit_h_14": 56, "*": 64},
    "keras": {"Inception*": 96, "Xception": 96, "NASNet*": 96, "*": 64},
}
# The size belongs to the weights of these.
SIZE_ARGUMENTS = {"vit_*": "image_size", "maxvit*": "input_size"}

# One network a family, the smallest; side of the input, whether the constructor is to know it.
TIMM: dict[str, tuple[int, bool]] = {
    "beit_base_patch16_224": (64, True),
    "botnet26t_256": (256, False),
    "cait_xxs24_224": (64, True),
    "coat_lite_tiny": (64, True),
    "convit_tiny": (64, True),
    "convmixer_768_32": (64, False),
    "convnextv2_atto": (64, False),
    "coatnet_pico_rw_224": (224, False),
    "crossvit_9_240": (240, False),
    "cs3darknet_s": (64, False),
    "davit_tiny": (64, False),
    "deit_tiny_distilled_patch16_224": (64, True),
    "dla34": (64, False),
    "dpn68": (64, False),
    "eca_nfnet_l0": (64, False),
    "edgenext_xx_small": (64, False),
    "efficientformer_l1": (224, False),
    "efficientformerv2_s0": (224, False),
    "efficientvit_b0": (64, False),
    "efficientvit_m0": (224, False),
    "ese_vovnet19b_slim": (64, False),
    "eva02_tiny_patch14_224": (56, True),
    "fasternet_t0": (64, False),
    "fastvit_t8": (64, False),
    "focalnet_tiny_srf": (64, False),
    "gcvit_xxtiny": (224, False),
    "ghostnet_050": (64, False),
    "gmlp_ti16_224": (64, True),
    "hardcorenas_a": (64, False),
    "hgnetv2_b0": (64, False),
    "hiera_tiny_224": (224, False),
    "hrnet_w18_small": (64, False),
    "inception_next_atto": (64, False),
    "inception_v4": (96, False),
    "legacy_seresnet18": (64, False),
    "levit_128s": (224, False),
    "mambaout_femto": (64, False),
    "mixnet_s": (64, False),
    "mobilenetv4_conv_small": (64, False),
    "mobilevit_xxs": (64, False),
    "mvitv2_tiny": (64, True),
    "nest_tiny": (64, True),
    "nextvit_small": (64, False),
    "pit_ti_224": (64, True),
    "poolformer_s12": (64, False),
    "pvt_v2_b0": (64, False),
    "regnetz_005": (64, False),
    "repghostnet_050": (64, False),
    "repvgg_a0": (64, False),
    "repvit_m0_9": (64, False),
    "res2net50_14w_8s": (64, False),
    "resnest14d": (64, False),
    "resnetv2_50x1_bit": (64, False),
    "rexnet_100": (64, False),
    "selecsls42": (64, False),
    "sequencer2d_s": (64, True),
    "skresnet18": (64, False),
    "swinv2_cr_tiny_224": (64, True),
    "tiny_vit_5m_224": (224, False),
    "tnt_s_patch16_224": (64, True),
    "tresnet_m": (64, False),
    "twins_svt_small": (64, False),
    "visformer_tiny": (64, True),
    "volo_d1_224": (224, False),
    "xception41": (96, False),
    "xcit_nano_12_p16_224": (64, True),
}


def networks(library: str) -> list[Network]:
    """The networks of a library, listed by a process of its own that imports it."""
    command = [sys.executable, "-m", "zoo.catalogue", library]
    listed = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return [Network(**fields) for fields in json.loads(listed.stdout.splitlines()[-1])]


@functools.cache
def import_torchvision() -> Any:
    """Torchvision; its operators are declared first where it was built for another PyTorch than the installed one."""
    import torch

    if not torch.cuda.is_available():
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
    return importlib.import_module("torchvision")


_DECLARED: list[Any] = []  # a declaration lasts as long as the object


def _torchvision() -> list[Network]:
    models = import_torchvision().models
    return [_of_torchvision(models, name) for name in models.list_models(module=models)]


def _of_torchvision(models: Any, name: str) -> Network:
    side = _matching(SIDES["torchvision"], name)
    argument = next((value for pattern, value in SIZE_ARGUMENTS.items() if fnmatch.fnmatch(name, pattern)), None)
    size = (side, side) if argument == "input_size" else side
    family = models.get_model_builder(name).__module__.split(".")[-1]
    return Network("torchvision", family, name, (3, side, side), {argument: size} if argument else {})


def _keras() -> list[Network]:
    import keras

    found = {name: one for name, one in vars(keras.applications).items() if re.match("[A-Z]", name) and callable(one)}
    return [_of_keras(name, one.__module__.split(".")[-1]) for name, one in sorted(found.items())]


def _of_keras(name: str, family: str) -> Network:
    side = _matching(SIDES["keras"], name)
    return Network("keras", family, name, (side, side, 3))


def _timm() -> list[Network]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own old names
        import_torchvision()
        timm = importlib.import_module("timm")
    return [_of_timm(timm, name, *size) for name, size in TIMM.items()]


def _of_timm(timm: Any, name: str, side: int, told: bool) -> Network:
    family = timm.models.model_entrypoint(name).__module__.split(".")[-1]
    return Network("timm", family, name, (3, side, side), {"img_size": side} if told else {})


def _trained() -> list[Network]:
    return [Network("trained", "efficientnet", "efficientnet-lite0", (3, 224, 224))]


def _matching(sides: dict[str, int], name: str) -> int:
    return next(side for pattern, side in sides.items() if fnmatch.fnmatchcase(name, pattern))


_LISTS = {"keras": _keras, "torchvision": _torchvision, "timm": _timm, "trained": _trained}

if __name__ == "__main__":
    print(json.dumps([network.fields() for network in _LISTS[sys.argv[1]]()]))
