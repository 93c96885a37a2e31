"""The tokens of transformers as positions in the picture: those of the patches on their grid, without the others.

Concepts are those of the patches: what is pooled, looked for and drawn are their tokens. Class, distillation and
register tokens come before them; the second half of the model takes the coefficients of all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.tokens import patch_grid, prefix_tokens
from craft_onnx.errors import InputError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Tokens:
    """Where the tokens of a picture are; activations that are no tokens are left as they are.

    Attributes
    ----------
    prefix : int
        Tokens before those of the patches.
    size : (int, int), optional
        Height and width of the picture, of which the patches are a grid; None where they are none.
    """

    prefix: int = 0
    size: tuple[int, int] | None = None

    def placed(self, values: Floats) -> Floats:
        """Activations or coefficients of all positions as those of the patches, where they are.

        Parameters
        ----------
        values : array (n, T, c), (n, H', W', c) or (n, c)
            Channels or concepts last.

        Returns
        -------
        array (n, H', W', c), (n, T - prefix, c) or (n, c)
            Of tokens that are no grid, without those before the patches.
        """
        if values.ndim != 3:
            return values
        patches = values[:, self.prefix :]
        grid = patch_grid(patches.shape[1], self.size) if self.size else None
        return patches.reshape(len(values), *(grid or patches.shape[1:2]), values.shape[2])

    def flat(self, u: Floats) -> Floats:
        """Coefficients (n, H', W', k) on the grid of patches as those of all tokens (n, T, k).

        Raises
        ------
        InputError
            If there are tokens before the patches: their coefficients are missing.
        """
        if self.prefix:
            raise InputError(
                f"Coefficients of shape {u.shape} lack those of the {self.prefix} tokens before the patches.",
                "Take all of them, from coefficient_batches(images).",
            )
        return u.reshape(len(u), -1, u.shape[-1])


def find_tokens(positions: tuple[int, ...], size: tuple[int, int], prefix: int | None = None) -> Tokens:
    """Tell the tokens of the patches from those before them.

    Parameters
    ----------
    positions : tuple of int
        Shape of the positions of activations: (T,) of tokens.
    size : (int, int)
        Height and width of the picture.
    prefix : int, optional
        Tokens before the patches, where it is known; otherwise the fewest, of 0 to 5, that leave a grid.

    Raises
    ------
    InputError
        If there are no more tokens than that.
    """
    if len(positions) != 1:
        return Tokens()
    found = prefix_tokens(positions[0], size) if prefix is None else prefix
    if found is None:
        return Tokens()
    if not 0 <= found < positions[0]:
        raise InputError(f"{found} of {positions[0]} tokens cannot come before those of the patches.", "Give fewer.")
    return Tokens(found, size if patch_grid(positions[0] - found, size) else None)
