"""A page as HTML: every function escapes the texts it is given and returns markup."""

import html
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files

import numpy as np

from craft_onnx import __version__
from craft_onnx.files import GENERATOR
from craft_onnx.report.content import ConceptCard, LocalConcept, Page, PictureCard, Section, Table, Value
from craft_onnx.report.images import ImageFolder
from craft_onnx.show.colours import hex_code, readable_on

_PICTURE, _HEATMAP, _CROP = 1024, 384, 192


def document(page: Page, images: ImageFolder) -> str:
    """The whole page (HTML 5) with its style in it; writes its pictures."""
    style = files("craft_onnx.report").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        _header(page),
        "<main>",
        *(_section(i, section, images) for i, section in enumerate(page.sections)),
        _concepts(page.concepts, images),
        _pictures(page.pictures, page.concepts, images),
        _tables(page.tables),
        _facts(page),
        "</main>",
        f"<footer>craft-onnx {_text(__version__)}</footer>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(page.title)}</title>\n'
        f'{GENERATOR}\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<style>\n{style}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _header(page: Page) -> str:
    links = [(f"section-{i}", section.heading) for i, section in enumerate(page.sections)]
    links += [("concepts", "Concepts")] * bool(page.concepts) + [("pictures", "Pictures")] * bool(page.pictures)
    links += [("tables", "Tables")] * bool(page.tables) + [("facts", "Facts")] * bool(page.facts)
    items = "".join(f'<li><a href="#{target}">{_text(text)}</a></li>' for target, text in links)
    navigation = f'<nav aria-label="On this page"><ul>{items}</ul></nav>' if len(links) > 1 else ""
    intro = f'<p class="intro">{_text(page.intro)}</p>' if page.intro else ""
    return f"<header><h1>{_text(page.title)}</h1>{intro}{navigation}</header>"


def _section(i: int, section: Section, images: ImageFolder) -> str:
    text = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in section.paragraphs)
    tables = "".join(_table(table) for table in section.tables)
    figures = "".join(
        _figure(images, f"section-{i}-{j}", shown.picture, shown.caption, shown.caption, _PICTURE)
        for j, shown in enumerate(section.illustrations)
    )
    row = f'<div class="illustrations">{figures}</div>' if figures else ""
    return _titled(f"section-{i}", section.heading, f'<div class="text {section.tone}">{text}</div>{tables}{row}')


def _titled(target: str, heading: str, content: str) -> str:
    return (
        f'<section id="{target}" aria-labelledby="{target}-title">'
        f'<h2 id="{target}-title">{_text(heading)}</h2>{content}</section>'
    )


def _concepts(concepts: Sequence[ConceptCard], images: ImageFolder) -> str:
    if not concepts:
        return ""
    scale = max(_finite([end for card in concepts for end in (card.importance, *(card.interval or ()))]), default=0)
    hint = (
        "Importance is the total Sobol index: the share of the variance of the class's logit that involves the concept."
    )
    hint += " The crops are those in which it is strongest."
    cards = "".join(_concept(card, scale, images) for card in concepts)
    return _titled("concepts", "Concepts", f'<p class="hint">{hint}</p><div class="concepts">{cards}</div>')


def _concept(card: ConceptCard, scale: float, images: ImageFolder) -> str:
    crops = "".join(
        _image(images, f"concept-{card.id}-crop-{i}", crop, f"Crop {i + 1} of {_label(card)}", _CROP)
        for i, crop in enumerate(card.crops)
    )
    bounds = (
        "" if card.interval is None else f" <small>{_index(card.interval[0])} to {_index(card.interval[1])}</small>"
    )
    effect = "" if card.contribution is None else f'<p class="effect">{_effect(card.contribution)}</p>'
    return (
        f'<article class="concept" style="--c:{hex_code(card.colour)}"><h3>{_chip(card)}{_text(_label(card))}'
        f"{f' <small>concept {card.id}</small>' if card.name else ''}</h3>"
        f'<p class="importance"><span>importance</span> <b>{_index(card.importance)}</b>{bounds}</p>'
        f'{_bar(card.importance, scale, card.interval)}{effect}<div class="crops">{crops}</div></article>'
    )


def _pictures(cards: Sequence[PictureCard], concepts: Sequence[ConceptCard], images: ImageFolder) -> str:
    if not cards:
        return ""
    items = "".join(f"<li>{_chip(card)}{_text(_label(card))}</li>" for card in concepts)
    key = f'<ul class="legend" aria-label="Colours of the concepts">{items}</ul>' if items else ""
    shown = "".join(_picture(i, card, images) for i, card in enumerate(cards))
    return _titled("pictures", "Pictures", f'{key}<div class="pictures">{shown}</div>')


def _picture(i: int, card: PictureCard, images: ImageFolder) -> str:
    drawn = ", ".join(_label(concept) for concept in card.concepts) or "its concepts"
    overlay = f"{card.name}, with colours where it shows {drawn}"
    figures = _figure(images, f"picture-{i}-map", card.overlay, overlay, "concepts", _PICTURE)
    figures += _figure(images, f"picture-{i}", card.picture, card.name, "picture", _PICTURE)
    return (
        f'<article class="picture"><h3>{_text(card.name)}</h3><p class="prediction">{_text(card.prediction)}</p>'
        f'<div class="pair">{figures}</div>{_local(card.concepts)}{_heatmaps(i, card, images)}</article>'
    )


def _local(concepts: Sequence[LocalConcept]) -> str:
    """A list of bars: what each concept matters in this picture."""
    if not concepts:
        return ""
    scale = max(_finite([concept.importance for concept in concepts]), default=0)
    rows = "".join(
        f'<tr style="--c:{hex_code(concept.colour)}"><th scope="row">{_chip(concept)}{_text(_label(concept))}</th>'
        f"<td>{_bar(concept.importance, scale)}</td><td>{_index(concept.importance)}</td>"
        f"<td>{_signed(concept.contribution)}</td></tr>"
        for concept in concepts
    )
    signed = "to the logit" if any(concept.contribution is not None for concept in concepts) else ""
    head = '<th scope="col">concept</th><th scope="col" colspan="2">importance here</th>'
    head = f'<thead><tr>{head}<th scope="col">{signed}</th></tr></thead>'
    return f'<table class="local"><caption>Its concepts</caption>{head}<tbody>{rows}</tbody></table>'


def _heatmaps(i: int, card: PictureCard, images: ImageFolder) -> str:
    figures = "".join(
        _figure(
            images,
            f"picture-{i}-concept-{concept.id}",
            concept.heatmap,
            f"Where {card.name} shows {_label(concept)}",
            _label(concept),
            _HEATMAP,
        )
        for concept in card.concepts
        if concept.heatmap is not None
    )
    return (
        f'<details><summary>Every concept by itself</summary><div class="maps">{figures}</div></details>'
        if figures
        else ""
    )


def _tables(tables: Sequence[Table]) -> str:
    return _titled("tables", "Tables", "".join(map(_table, tables))) if tables else ""


def _table(table: Table) -> str:
    kinds = [_alignment(row[i] for row in table.rows) for i in range(len(table.columns))]
    head = "".join(f'<th scope="col"{kind}>{_text(text)}</th>' for text, kind in zip(table.columns, kinds, strict=True))
    colours = table.colours or [None] * len(table.rows)
    rows = "".join(_row(row, kinds, colour) for row, colour in zip(table.rows, colours, strict=True))
    caption = _text(table.caption)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: Sequence[Value], kinds: Sequence[str], colour: np.ndarray | None) -> str:
    chip = "" if colour is None else f'<i class="chip" style="--c:{hex_code(colour)}"></i>'
    cells = "".join(f"<td{kind}>{_value(value)}</td>" for value, kind in zip(row[1:], kinds[1:], strict=True))
    return f'<tr><th scope="row">{chip}{_value(row[0])}</th>{cells}</tr>'


def _alignment(column: Iterable[Value]) -> str:
    """Columns that hold nothing but numbers are aligned to the right."""
    values = [value for value in column if value is not None]
    numbers = values and all(isinstance(value, (int, float, np.number)) for value in values)
    return ' class="number"' if numbers else ""


def _facts(page: Page) -> str:
    if not page.facts:
        return ""
    items = "".join(f"<div><dt>{_text(name)}</dt><dd>{_value(value)}</dd></div>" for name, value in page.facts.items())
    return _titled("facts", "Facts", f"<dl>{items}</dl>")


def _figure(images: ImageFolder, name: str, picture: np.ndarray, alt: str, caption: str, longest: int) -> str:
    image = _image(images, name, picture, alt, longest)
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _image(images: ImageFolder, name: str, picture: np.ndarray, alt: str, longest: int) -> str:
    source, width, height = images.add(name, picture, longest)
    size = f'width="{width}" height="{height}"'
    return f'<img src="{source}" {size} alt="{_text(alt)}" loading="lazy" decoding="async">'


def _bar(value: float, scale: float, interval: tuple[float, float] | None = None) -> str:
    """A bar, and a whisker over the interval; both are said in figures beside it."""
    low, high = interval or (0.0, 0.0)
    whisker = f'<u style="left:{_share(low, scale)};right:calc(100% - {_share(high, scale)})"></u>' if interval else ""
    return f'<div class="bar" aria-hidden="true"><s style="width:{_share(value, scale)}"></s>{whisker}</div>'


def _share(value: float, scale: float) -> str:
    share = value / scale if scale > 0 and math.isfinite(value) else 0.0
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"


def _finite(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _chip(card: ConceptCard | LocalConcept) -> str:
    """The concept's number on its colour."""
    ink = hex_code(readable_on(card.colour))
    return f'<i class="chip" style="--c:{hex_code(card.colour)};color:{ink}">{card.id}</i>'


def _label(card: ConceptCard | LocalConcept) -> str:
    return card.name or f"concept {card.id}"


def _effect(contribution: float) -> str:
    verb = "lowers" if contribution < 0 else "raises"
    return f"{verb} the logit by <b>{_number(abs(contribution))}</b> on average"


def _signed(contribution: float | None) -> str:
    return "" if contribution is None else f"{'−' if contribution < 0 else '+'}{_number(abs(contribution))}"


def _value(value: Value) -> str:
    if value is None:
        return ""
    return _number(float(value)) if isinstance(value, (float, np.floating)) else _text(str(value))


def _number(value: float) -> str:
    """Three significant digits, without an exponent where that stays short."""
    if not math.isfinite(value):
        return "not known"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:.{min(digits, 4)}f}".replace("-", "−")
    return f"{value:.2e}".replace("-", "−")


def _index(value: float) -> str:
    """A sensitivity index, which lies between 0 and 1: three decimals."""
    if not math.isfinite(value):
        return "not known"
    return "&lt; 0.001" if 0 < value < 5e-4 else f"{value:.3f}".replace("-", "−")


def _text(text: str) -> str:
    return html.escape(text, quote=True)
