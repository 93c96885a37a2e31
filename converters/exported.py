"""What every converter is asked, and what it hands on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from craft_onnx.description import Description, Preprocessing
from craft_onnx.files import new_file

Evaluate = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """How to convert; see `craft_onnx_converters.convert`."""

    input_shape: tuple[int, ...] | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    allow_pickle: bool = False
    keep_softmax: bool = False
    preprocessing: Preprocessing | Mapping[str, Any] | str | None = None
    bake_preprocessing: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Exported:
    """A model as its framework's exporter wrote it, with the framework's own evaluation beside it.

    Attributes
    ----------
    model : onnx_ir.Model
        The exporter's result, as it is.
    evaluate : callable
        The framework's output for an array x (n, ...): the oracle of the conversion.
    framework : str
        "keras", "tensorflow", "tflite", "torch" or "onnx".
    source : Path, optional
        The file converted, where there is one.
    batch : int, optional
        The only number of pictures `evaluate` takes at once; None if any.
    unsupported : tuple of str
        Operators that the exporter's log says it could not convert.
    description : Description, optional
        What the source says of itself, if it is a file of ours.
    """

    model: ir.Model
    evaluate: Evaluate
    framework: str
    source: Path | None = None
    batch: int | None = None
    unsupported: tuple[str, ...] = ()
    description: Description | None = None


@dataclass(frozen=True)
class Conversion:
    """A converted model with the evidence that it computes the same.

    Attributes
    ----------
    model : onnx_ir.Model
        Normalized, its description in its metadata.
    description : Description
        Framework, hash of the source, preprocessing, whether a Softmax was cut off.
    errors : dict of int to float
        For each batch size tried, the largest deviation from the framework's output, relative to the largest output.
    steps : dict of str to float
        The same between the graphs before and after each step of the normalization.
    """

    model: ir.Model
    description: Description
    errors: dict[int, float]
    steps: dict[str, float]

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the ONNX file.

        Raises
        ------
        InputError
            If the path exists and `force` is not set, or cannot be written.
        """
        from craft_onnx.graph.load import save

        with new_file(path, force) as staged:
            save(self.model, staged)
        return Path(path)
