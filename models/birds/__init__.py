"""The demo model: pictures of birds drawn from parts, with a known truth."""

from importlib.resources import files
from pathlib import Path

from craft_onnx.errors import InputError
from craft_onnx_models.birds.draw import (
    CLASSES,
    PARTS,
    SIZE,
    TAGGED,
    TWIN,
    WORLDS,
    Bird,
    draw,
    draw_many,
    kinds,
    pictures,
)

__all__ = [
    "CLASSES",
    "PARTS",
    "SIZE",
    "TAGGED",
    "TWIN",
    "WORLDS",
    "Bird",
    "class_names",
    "draw",
    "draw_many",
    "kinds",
    "model_path",
    "pictures",
]


def class_names() -> list[str]:
    """The names of the classes, in the order of the model's logits."""
    return list(CLASSES)


def model_path(world: str = "shortcut") -> Path:
    """The file of the model trained in a world, "shortcut" or "control".

    Raises
    ------
    InputError
        If there is no such world.
    """
    if world not in WORLDS:
        raise InputError(f"There is no world {world!r}.", f"Take one of {', '.join(WORLDS)}.")
    return Path(str(files(__name__).joinpath(f"{world}.onnx")))
