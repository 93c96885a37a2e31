"""What a page of concepts shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Value = str | int | float | None


@dataclass(frozen=True)
class ConceptCard:
    """A concept of a class.

    Attributes
    ----------
    id : int
        Its number.
    name : str
        Its name; empty where it has none.
    colour : ndarray
        (3,) uint8 RGB.
    importance : float
        Total Sobol index.
    interval : (float, float), optional
        Bounds of the importance.
    contribution : float, optional
        Signed mean contribution, in units of the logit.
    crops : sequence of ndarray
        Its best crops, the best first, each (h, w, 3) uint8 RGB.
    """

    id: int
    name: str
    colour: np.ndarray
    importance: float
    interval: tuple[float, float] | None = None
    contribution: float | None = None
    crops: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class LocalConcept:
    """A concept in one picture.

    Attributes
    ----------
    id, name, colour
        As in `ConceptCard`.
    importance : float
        Local total Sobol index.
    contribution : float, optional
        Signed contribution to this picture's logit.
    heatmap : ndarray, optional
        (H, W, 3) uint8 RGB, where the concept is.
    """

    id: int
    name: str
    colour: np.ndarray
    importance: float
    contribution: float | None = None
    heatmap: np.ndarray | None = None


@dataclass(frozen=True)
class PictureCard:
    """A picture that is explained.

    Attributes
    ----------
    name : str
        Of the picture.
    picture, overlay : ndarray
        (H, W, 3) uint8 RGB: the picture, and its concepts on it.
    prediction : str
        What the model says of it, in words.
    concepts : sequence of LocalConcept
        The most important one first.
    """

    name: str
    picture: np.ndarray
    overlay: np.ndarray
    prediction: str
    concepts: Sequence[LocalConcept] = ()


@dataclass(frozen=True)
class Table:
    """A table; numbers are aligned to the right.

    Attributes
    ----------
    caption : str
        What it shows.
    columns : sequence of str
        Headings.
    rows : sequence of sequence of values
        Text, numbers, or None for nothing. The first column names the row.
    colours : sequence of ndarray, optional
        One (3,) uint8 RGB a row, shown as a chip before its name; None for no chip.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    colours: Sequence[np.ndarray | None] | None = None


@dataclass(frozen=True)
class Illustration:
    """A picture with a caption: (H, W, 3) uint8 RGB."""

    picture: np.ndarray
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with text, tables and pictures.

    Attributes
    ----------
    heading : str
        Title.
    paragraphs : sequence of str
        Plain text.
    tables : sequence of Table
        Below the text.
    illustrations : sequence of Illustration
        Below the tables.
    tone : "plain", "good" or "warning"
        The latter two set the text off, for a finding.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    illustrations: Sequence[Illustration] = ()
    tone: Literal["plain", "good", "warning"] = "plain"


@dataclass(frozen=True)
class Page:
    """All that a page shows; every text is plain text.

    Attributes
    ----------
    title, intro : str
        Above everything else.
    facts : mapping of str to value
        Model, class, crops, relative error, provider, seeds, hashes: at the end of the page.
    concepts : sequence of ConceptCard
        In the order in which they are shown.
    pictures : sequence of PictureCard
        Likewise.
    sections : sequence of Section
        Before the concepts.
    tables : sequence of Table
        After the pictures.
    """

    title: str
    intro: str = ""
    facts: Mapping[str, Value] = field(default_factory=dict)
    concepts: Sequence[ConceptCard] = ()
    pictures: Sequence[PictureCard] = ()
    sections: Sequence[Section] = ()
    tables: Sequence[Table] = ()
