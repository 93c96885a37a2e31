"""Placeholder while the figures are written."""

from enum import Enum


class DisplayImportancesOrder(Enum):
    """x."""

    GLOBAL = 0
    LOCAL = 1


class CraftPlots: ...
