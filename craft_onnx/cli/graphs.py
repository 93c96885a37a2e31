"""MODEL arguments that are ONNX files, and what else is given in their place."""

from pathlib import Path
from typing import TYPE_CHECKING

from craft_onnx.cli.messages import say, timed
from craft_onnx.errors import InputError
from craft_onnx.extras import require

if TYPE_CHECKING:
    import onnx_ir as ir


def normalized(path: Path, output: str | None = None) -> "ir.Model":
    """The normalized model of an ONNX file; of one with several outputs, the part that leads to the tensor `output`.

    Raises
    ------
    InputError
        If it is a bundle, a model of another format, or no valid ONNX.
    """
    require("onnx_ir", "build")
    from craft_onnx.graph.load import load
    from craft_onnx.graph.outputs import with_output
    from craft_onnx.runtime.proof import normalize_proven
    from craft_onnx_converters.sources import CONVERTERS

    refuse_bundle(path)
    saved_model = (path / "saved_model.pb").is_file()
    if path.suffix.lower() != ".onnx" and (saved_model or (path.is_file() and path.suffix.lower() in CONVERTERS)):
        raise InputError(f"{path} is not ONNX.", f"Convert it first: craft-onnx convert {path} -o model.onnx")
    with timed(f"Loaded and normalized {path}"):
        loaded = load(path)
        if output is not None and len(loaded.graph.outputs) > 1:
            loaded = with_output(loaded, output)
        model, steps = normalize_proven(loaded)
    for step, error in steps.items():
        say(f"  {step}: relative error {error:.1e}", level=1)
    return model


def refuse_bundle(source: str | Path) -> None:
    """InputError for a bundle where a model is to be given."""
    if (Path(source) / "MANIFEST.json").is_file():
        raise InputError(
            f"{source} is a bundle, a model that is converted and cut already.",
            f"Go on with craft-onnx fit or explain, or give the model in it: {Path(source) / 'model.onnx'}",
        )
