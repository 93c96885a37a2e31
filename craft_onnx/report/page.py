"""A page of concepts: one HTML file with its pictures beside it, nothing to serve."""

from pathlib import Path

from craft_onnx.files import new_file
from craft_onnx.report.content import (
    ConceptCard,
    Illustration,
    LocalConcept,
    Page,
    PictureCard,
    Section,
    Table,
)
from craft_onnx.report.images import ImageFolder
from craft_onnx.report.markup import document

__all__ = ["ConceptCard", "Illustration", "LocalConcept", "Page", "PictureCard", "Section", "Table", "write_page"]


def write_page(folder: str | Path, page: Page) -> Path:
    """Write a page: `index.html`, last of all, and the pictures it shows in `images/`.

    Parameters
    ----------
    folder : path
        Made where it does not exist; an earlier page in it is replaced.
    page : Page
        What to show.

    Returns
    -------
    Path
        Of `index.html`. It needs no network, no server and no JavaScript.

    Raises
    ------
    InputError
        If the folder cannot be written, or an array is no picture.
    """
    index = Path(folder) / "index.html"
    with new_file(index, force=True) as staged:
        staged.write_text(document(page, ImageFolder(index.parent)), encoding="utf-8")
    return index
