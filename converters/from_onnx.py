"""ONNX to ONNX: an existing file, checked, normalized and proven to compute what it did.

Runs as a script too: ``python from_onnx.py model.onnx -o normalized.onnx``.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx_converters.exported import Exported, Options
from craft_onnx_converters.loading import existing_file


def export(source: str | Path, options: Options) -> Exported:
    """Load an ONNX file, with onnxruntime's evaluation of it as it is.

    Parameters
    ----------
    source : path
        An ONNX file.
    options : Options
        `outputs` chooses one of several; `input_shape` fixes sizes that the model leaves open.

    Raises
    ------
    InputError
        If it is missing, corrupt or no ONNX, or has several inputs, or several outputs and none is chosen.
    UnsupportedOperator
        If onnxruntime lacks an operator of it.
    MissingExtra
        If onnx is not installed.
    """
    require("onnx", "build")
    from craft_onnx.graph.input_shape import with_input_shape
    from craft_onnx.graph.load import image_input, load, logits_output, read_description
    from craft_onnx.graph.outputs import with_output
    from craft_onnx.runtime.proof import session_of
    from craft_onnx.runtime.sessions import Session

    path, output = existing_file(Path(source)), _chosen(options)
    model = with_output(load(path), output) if output else load(path)
    image_input(model)
    logits_output(model)
    session = session_of(model) if output else Session(path)
    (image,) = session.inputs
    if options.input_shape:
        model = with_input_shape(model, options.input_shape)

    def evaluate(x: NDArray[Any]) -> NDArray[Any]:
        return session.run({image.name: x})[0]

    description = read_description(model)
    return Exported(
        model, evaluate, description.framework, path, image.shape[0] if image.shape else None, description=description
    )


def _chosen(options: Options) -> str | None:
    """The output that is asked for."""
    if options.inputs:
        raise InputError(f"An ONNX file has its own input, not {options.inputs[0]}.", "Leave --inputs out.")
    if len(options.outputs) > 1:
        raise InputError(f"The outputs {', '.join(options.outputs)} were asked for.", "Choose one with --outputs.")
    return options.outputs[0] if options.outputs else None


if __name__ == "__main__":
    from craft_onnx_converters.script import main

    main()
