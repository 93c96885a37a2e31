"""Tokens of transformers: how many come before the patches of the picture, and on which grid the patches lie."""

from __future__ import annotations

# A class token, a distillation token, registers: at most so many are looked for.
MOST = 5


def prefix_tokens(count: int, size: tuple[int, int]) -> int | None:
    """How many of the tokens of a picture come before its patches.

    The fewest that leave a grid in the proportions of the picture; if there are none, the fewest that leave one of
    patches that do not quite cover it.

    Parameters
    ----------
    count : int
        All tokens.
    size : (int, int)
        Height and width of the picture; only their ratio matters.

    Returns
    -------
    int or None
        0 to 5, fewer than there are patches; None where the tokens are no grid.
    """
    known = [n for n in range(MOST + 1) if 2 * n < count]
    found = (n for exact in (True, False) for n in known if patch_grid(count - n, size, exact))
    return next(found, None)


def patch_grid(count: int, size: tuple[int, int], exact: bool = False) -> tuple[int, int] | None:
    """Rows and columns of `count` square patches of a picture; None where no size of the patches gives as many.

    Patches of side s are floor(height / s) rows and floor(width / s) columns.

    Parameters
    ----------
    count : int
        Patches.
    size : (int, int)
        Height and width of the picture; only their ratio matters.
    exact : bool
        The patches cover the picture.
    """
    height, width = size
    for rows in range(1, count + 1):
        columns, rest = divmod(count, rows)
        if rest:
            continue
        if height * columns == width * rows:
            return rows, columns
        # height / (rows + 1) < s <= height / rows, and the same for the columns: do both hold for some s?
        if not exact and height * columns < width * (rows + 1) and width * rows < height * (columns + 1):
            return rows, columns
    return None
