import itertools
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from craft_onnx.errors import InputError
from craft_onnx.report.page import (
    ConceptCard,
    Illustration,
    LocalConcept,
    Page,
    PictureCard,
    Section,
    Table,
    write_page,
)
from craft_onnx.show.colours import concept_colours

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;</style></title> javascript:"
COLOURS = concept_colours(3)
VOID = {"meta", "img", "br", "hr", "input", "link"}


def _picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _page(name="ears", **changes):
    concepts = [
        ConceptCard(2, name, COLOURS[0], 0.5, (0.45, 0.57), 1.25, [_picture(20, 20, i) for i in range(6)]),
        ConceptCard(0, "", COLOURS[1], 0.125, None, -0.5, [_picture(20, 20)]),
        ConceptCard(1, "", COLOURS[2], float("nan"), None, None, []),
    ]
    local = [LocalConcept(2, name, COLOURS[0], 0.75, 2.0, _picture()), LocalConcept(0, "", COLOURS[1], 0.25, -1.0)]
    pictures = [PictureCard(name, _picture(), _picture(seed=1), name, local)]
    table = Table(name, [name, "lift", "found"], [[name, 1.5, "yes"], ["b", -20.25, None]], [COLOURS[0], None])
    section = Section(name, [name], [table], [Illustration(_picture(), name)], "warning")
    fields = {"facts": {name: name, "crops": 540, "error": 0.64125}, "concepts": concepts, "pictures": pictures}
    return Page(**({"title": name, "intro": name, "sections": [section], "tables": [table]} | fields | changes))


class _Checker(HTMLParser):
    """Collects elements, and fails where end tags do not match."""

    def __init__(self):
        super().__init__()
        self.stack, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _read(path):
    checker = _Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    assert checker.stack == []
    return checker


def test_a_page_is_one_file_and_its_pictures(tmp_path):
    path = write_page(tmp_path / "deep" / "page", _page())
    assert path == tmp_path / "deep" / "page" / "index.html"
    checker = _read(path)
    sources = [image["src"] for image in checker.all("img")]
    assert len(sources) == len(set(sources)) == 7 + 2 + 1 + 1  # crops, picture and map, heatmap, illustration
    on_disk = {str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file()}
    assert on_disk == {"index.html", *sources}
    for image in checker.all("img"):
        pixels = cv2.imread(str(path.parent / image["src"]))
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))


def test_pictures_on_the_page_are_the_pictures_given(tmp_path):
    smooth = cv2.resize(_picture(3, 3), (300, 200))
    page = _page(pictures=[PictureCard("a", smooth, 255 - smooth, "")])
    folder = write_page(tmp_path, page).parent
    assert np.abs(cv2.imread(str(folder / "images" / "picture-0.jpg"))[..., ::-1].astype(int) - smooth).mean() < 3
    assert (
        np.abs(cv2.imread(str(folder / "images" / "picture-0-map.jpg"))[..., ::-1].astype(int) + smooth - 255).mean()
        < 3
    )


def test_nothing_is_fetched_or_run(tmp_path):
    path = write_page(tmp_path, _page())
    checker, text = _read(path), path.read_text()
    assert checker.all("script") == checker.all("link") == checker.all("iframe") == []
    assert re.findall(r"https?://|//[a-z]|url\(|@import", text) == []
    assert not [name for _, attributes in checker.elements for name in attributes if name.startswith("on")]


def test_hostile_names_stay_text(tmp_path):
    harmless, hostile = (_read(write_page(tmp_path / str(i), _page(name))) for i, name in enumerate(["x", HOSTILE]))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [set(attributes) for _, attributes in hostile.elements] == [set(a) for _, a in harmless.elements]
    assert HOSTILE in "".join(hostile.text)
    for image in hostile.all("img"):
        assert re.fullmatch(r"images/[a-z0-9-]+\.jpg", unquote(image["src"]))


def test_the_page_is_accessible(tmp_path):
    checker = _read(write_page(tmp_path, _page()))
    assert checker.all("html") == [{"lang": "en"}]
    assert all(image["alt"].strip() and image["loading"] == "lazy" for image in checker.all("img"))
    headings = [int(tag[1]) for tag, _ in checker.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(headings))
    assert len(checker.all("table")) == len(checker.all("caption")) == 3
    assert all(cell.get("scope") in ("col", "row") for cell in checker.all("th"))
    targets = [attributes["id"] for _, attributes in checker.elements if "id" in attributes]
    assert len(targets) == len(set(targets))
    assert {link["href"][1:] for link in checker.all("a")} <= set(targets)


def _contrast(a, b):
    def luminance(code):
        values = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_text_contrasts_with_its_ground_in_both_schemes(tmp_path):
    """WCAG 2 AA: 4.5 to 1."""
    schemes = re.findall(r":root \{(.*?)\}", write_page(tmp_path, _page()).read_text(), re.S)
    for scheme in schemes[:2]:
        colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", scheme))
        for ink in ("ink", "soft", "link"):
            assert min(_contrast(colours[ink], colours[ground]) for ground in ("ground", "card")) >= 4.5, ink


def test_bars_are_as_long_as_importances_say(tmp_path):
    text = write_page(tmp_path, _page()).read_text()
    cards = text.split('<article class="concept"')[1:]
    # The longest interval ends at 0.57; a concept whose importance is not known has no bar.
    assert [re.search(r"<s style=\"width:([\d.]+)%", card)[1] for card in cards] == ["87.7", "21.9", "0.0"]
    assert "left:78.9%;right:calc(100% - 100.0%)" in cards[0] and "<u " not in cards[1]
    assert "0.450 to 0.570" in cards[0]
    assert "raises the logit by <b>1.25</b>" in cards[0] and "lowers the logit by <b>0.500</b>" in cards[1]
    assert "not known" in cards[2] and "the logit by" not in cards[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (-1234.5, "−1234"),
        (0.00123, "0.0012"),
        (4.2e-7, "4.20e−07"),
        (3, "3"),
        (True, "True"),
        (None, ""),
        ("a", "a"),
        (float("inf"), "not known"),
        (np.float32(0.25), "0.250"),
    ],
)
def test_numbers_are_short(tmp_path, value, shown):
    text = write_page(tmp_path, Page("t", facts={"x": value})).read_text()
    assert f"<dt>x</dt><dd>{shown}</dd>" in text


def test_an_empty_page_is_a_page(tmp_path):
    checker = _read(write_page(tmp_path, Page("Nothing")))
    assert checker.all("section") == [] and "Nothing" in checker.text


def test_large_pictures_are_shrunk(tmp_path):
    page = _page(pictures=[PictureCard("a", _picture(3000, 1500), _picture(3000, 1500), "")])
    image = next(i for i in _read(write_page(tmp_path, page)).all("img") if i["src"] == "images/picture-0.jpg")
    assert (image["width"], image["height"]) == ("512", "1024")


def test_a_page_replaces_an_earlier_one_only_when_it_is_whole(tmp_path):
    write_page(tmp_path, _page("first"))
    with pytest.raises(InputError, match=r"float64 array \(4, 4\)"):
        write_page(tmp_path, _page("second", pictures=[PictureCard("a", np.zeros((4, 4)), _picture(), "")]))
    assert "first" in (tmp_path / "index.html").read_text()
    write_page(tmp_path, _page("third"))
    assert "third" in (tmp_path / "index.html").read_text()


def test_a_table_must_be_rectangular(tmp_path):
    with pytest.raises((IndexError, ValueError)):
        write_page(tmp_path, Page("t", tables=[Table("c", ["a", "b"], [["1", 2, 3]])]))
