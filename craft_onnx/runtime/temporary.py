"""A bundle of an ONNX file, for as long as this process uses it."""

import functools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.runtime.bundle import Bundle, create_bundle

if TYPE_CHECKING:
    import onnx_ir as ir


def temporary_bundle(path: Path, cuts: Sequence[str | int] | None) -> tuple[Bundle, Callable[[], None]]:
    """Normalize, prove and cut an ONNX file into a bundle in a new temporary folder.

    Parameters
    ----------
    path : Path
        The file.
    cuts : sequence of str or int, optional
        Where: tensors, layers or indices; by default the recommended place, or else the last feature map, or else the
        last cut.

    Returns
    -------
    Bundle
        With these cuts.
    callable
        Removes it.

    Raises
    ------
    InputError
        If the file is no ONNX model, or it has no such cut, or two are the same.
    CheckFailed
        If a proof fails.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(
            f"{path} is no bundle and not ONNX.", f"Convert it first: craft-onnx convert {path} -o model.onnx"
        )
    require("onnx_ir", "build")
    from craft_onnx.graph.load import load
    from craft_onnx.runtime.proof import normalize_proven

    model, _ = normalize_proven(load(path))
    folder = tempfile.mkdtemp(prefix=f"{path.stem[:40]}.")
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        bundle = create_bundle(model, [default_cut(model)] if cuts is None else cuts, Path(folder) / "bundle")
    except BaseException:
        remove()
        raise
    bundle.made_from = path
    return bundle, remove


def default_cut(model: "ir.Model") -> str:
    """Tensor of the recommended cut, else of the last feature map or tokens that are all read, else of the last cut.

    Raises
    ------
    InputError
        If the model has no cut.
    """
    from craft_onnx.graph.cuts import find_cuts, signed_cut

    cuts = find_cuts(model)
    if not cuts:
        raise InputError("The model has no cut: no single tensor separates it.", "Take a model without such branches.")
    best = next((cut for cut in cuts if cut.recommended), None) or signed_cut(model, cuts)
    return (best or cuts[-1]).tensor
