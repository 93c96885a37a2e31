"""Every signature of Xplique's Craft and CraftManager: names, order and defaults, as its documentation has them.

Two defaults are ours on purpose: 256 points of a design where Xplique takes 32, and a second half of the model may be
left out.
"""

import inspect
import re
from pathlib import Path

import pytest

import craft_onnx
from craft_onnx.concepts.craft import Craft
from craft_onnx.concepts.manager import CraftManager
from craft_onnx.concepts.views import DisplayImportancesOrder

DOCUMENT = next(iter((Path(__file__).parents[2].parent / "shared" / "seeds").glob("000*.txt")), None)
STYLE = "nb_most_important_concepts=5, filter_percentile=90, clip_percentile=10, alpha=0.65"
SIGNATURES = {
    "Craft": {
        "__init__": "input_to_latent_model, latent_to_logit_model, number_of_concepts=20, batch_size=64, patch_size=64",
        "check_if_fitted": "",
        "compute_subplots_layout_parameters": "images, cols=5, img_size=2.0, margin=0.3, spacing=0.3",
        "estimate_importance": "inputs=None, nb_design=256",
        "fit": "inputs, class_id=0",
        "plot_concept_attribution_legend": "nb_most_important_concepts=6, border_width=5",
        "plot_concept_attribution_map": f"image, most_important_concepts, {STYLE}, **",
        "plot_concept_attribution_maps": f"images, importances=None, {STYLE}, cols=5, img_size=2.0, **",
        "plot_concepts_crops": "nb_crops=10, nb_most_important_concepts=None, verbose=False",
        "plot_concepts_importances": "importances=None, display_importance_order=GLOBAL, "
        "nb_most_important_concepts=None, verbose=False",
        "plot_image_concepts": f"img, display_importance_order=GLOBAL, {STYLE}, filepath=None, **",
        "transform": "inputs, activations=None",
    },
    "CraftManager": {
        "__init__": "input_to_latent_model, latent_to_logit_model, inputs, labels, list_of_class_of_interest=None, "
        "number_of_concepts=20, batch_size=64, patch_size=64",
        "compute_predictions": "",
        "estimate_importance": "nb_design=256, verbose=False",
        "fit": "nb_samples_per_class=None, verbose=False",
        "plot_concepts_crops": "class_id, nb_crops=10, nb_most_important_concepts=None",
        "plot_concepts_importances": "class_id, nb_most_important_concepts=5, verbose=False",
        "plot_image_concepts": f"img, class_id, display_importance_order=GLOBAL, {STYLE}, filepath=None",
    },
}
METHODS = [(kind, method) for kind, methods in SIGNATURES.items() for method in methods]
VALUES = {"None": None, "False": False, "GLOBAL": DisplayImportancesOrder.GLOBAL}
DEVICE = {"Craft": 5, "CraftManager": 8}  # its place in CraftTorch and CraftManagerTorch
KEYWORDS = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(method):
    """Without self."""
    return [each for each in inspect.signature(method).parameters.values() if each.name != "self"]


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_signatures_are_xpliques(kind, method):
    found = parameters(getattr({"Craft": Craft, "CraftManager": CraftManager}[kind], method))
    expected = [part.partition("=") for part in SIGNATURES[kind][method].split(", ") if part not in ("", "**")]
    assert [each.name for each in found[: len(expected)]] == [name for name, _, _ in expected]
    for each, (name, _, default) in zip(found, expected, strict=False):
        assert each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        if default:
            assert each.default == (VALUES[default] if default in VALUES else float(default)), name
        else:
            assert each.default is (None if name == "latent_to_logit_model" and kind == "Craft" else each.empty)
    for added in found[len(expected) :]:
        assert added.default is not added.empty or added.kind in KEYWORDS, f"{added.name} breaks calls"
    if SIGNATURES[kind][method].endswith("**"):
        assert found[-1].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("kind", [Craft, CraftManager])
def test_device_is_where_the_torch_flavour_has_it(kind):
    assert parameters(kind.__init__)[DEVICE[kind.__name__]].name == "device"


def test_a_model_in_place_of_the_halves():
    found = [(each.name, each.default) for each in parameters(CraftManager.from_model)]
    halves = [(each.name, each.default) for each in parameters(CraftManager.__init__)]
    assert found[0] == ("model", inspect.Parameter.empty) and found[1:7] == halves[2:8]


def test_names_of_the_import_line():
    assert craft_onnx.CraftManager is CraftManager and craft_onnx.Craft is Craft
    assert [order.name for order in craft_onnx.DisplayImportancesOrder] == ["GLOBAL", "LOCAL"]
    assert isinstance(Craft.factorization, property) and isinstance(Craft.sensitivity, property)


@pytest.mark.shared
@pytest.mark.skipif(DOCUMENT is None, reason="needs the documents beside a development checkout")
def test_the_table_is_that_of_the_documentation():
    text = DOCUMENT.read_text(encoding="utf-8")
    craft, manager = text.split("CraftManagerTf\n¶")
    assert documented(craft) == {name: names(each) for name, each in SIGNATURES["Craft"].items()}
    assert documented(manager) == {name: names(each) for name, each in SIGNATURES["CraftManager"].items()}


def documented(text):
    """Methods with their parameters and defaults, from a page of the documentation."""
    found = {}
    for name, inside in re.findall(r"^(\w+)\(((?:self|images:)[^()]*)\)[^\n]*\n¶", text, re.MULTILINE):
        each = [re.sub(r"^(\w+): [^=]*(= ?(.*))?$", r"\1=\3", part.strip()) for part in re.split(r",\s*\n", inside)]
        found[name] = [part for part in each if part != "self"]
    return {name: [normalized(part) for part in each] for name, each in found.items()}


def names(signature):
    return [normalized(part if "=" in part or part == "**" else f"{part}=") for part in signature.split(", ") if part]


def normalized(part):
    """`name=default`, as the table has it."""
    if part.startswith("**"):
        return "**"
    name, _, default = part.partition("=")
    if name == "display_importance_order":
        return name
    if name == "nb_design":
        return f"{name}={256 if default == '32' else default}"
    return f"{name}={float(default)}" if re.fullmatch(r"[\d.]+", default) else part
