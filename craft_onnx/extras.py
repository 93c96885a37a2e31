"""Optional dependencies: imported where needed, named in one sentence where missing."""

import importlib
from types import ModuleType

from craft_onnx.errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Name of the module to import.
    extra : str
        The extra of this package that installs it.

    Raises
    ------
    MissingExtra
        If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"{module.split('.')[0]} is not installed.", f"Install it with: pip install 'craft-onnx[{extra}]'"
        ) from error
