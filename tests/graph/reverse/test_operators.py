"""The table of operators in the documents is what its command makes."""

import importlib.util
from pathlib import Path

import onnx
import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("make_operators", DOCS / "make_operators.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_its_command_makes_it(command):
    committed = (DOCS / "operators.md").read_text(encoding="utf-8")
    if f"from 7 to {onnx.defs.onnx_opset_version()}." not in committed:
        pytest.skip("made with another version of onnx, which knows other operators")
    assert committed == command.page(), "run: python docs/make_operators.py > docs/operators.md"


@pytest.mark.parametrize(
    ("op_type", "opset", "expected"),
    [
        ("Relu", 7, "rule"),
        ("Upsample", 9, "rule"),
        ("Attention", 23, "body"),
        ("Shape", 15, "none"),
        ("NonMaxSuppression", 11, "none"),
        ("Det", 22, "unsupported"),
        ("If", 19, "unsupported"),
        ("QLinearConv", 10, "unsupported"),
    ],
)
def test_derivative(command, op_type, opset, expected):
    assert command.derivative(op_type, opset) == expected


def test_every_operator_has_a_row(command):
    assert {name for name, *_ in command.rows()} == {
        schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain
    }
