"""`craft-onnx demo`: the shortcut is found in the model, and not in the control."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from craft_onnx.cli import demo
from craft_onnx.cli.main import cli
from craft_onnx.errors import CheckFailed


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, CliRunner().invoke(cli, ["demo", "-o", str(folder)])


def test_it_finds_the_tag_and_says_so(done):
    _, result = done
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["shortcut"]["tag_found"] and not report["control"]["tag_found"]
    assert "The tag was found in the model and not in the control." in result.stderr


def test_it_writes_the_page_the_bundles_and_the_pictures(done):
    folder, _ = done
    page = (folder / "index.html").read_text()
    assert all(heading in page for heading in demo.HEADINGS.values())
    assert len(list((folder / "pictures").glob("*.png"))) == demo.EXAMPLES
    again = CliRunner().invoke(
        cli, ["explain", str(folder / "bundle"), str(folder / "pictures"), "-o", str(folder / "x")]
    )
    assert again.exit_code == 0, again.output


def test_existing_output_is_kept(done):
    folder, _ = done
    assert CliRunner().invoke(cli, ["demo", "-o", str(folder)]).exit_code == 2
    assert (folder / "index.html").exists()


def _audit(report, part):
    from craft_onnx_models.birds.audit import Audit, Finding

    findings = tuple(
        Finding(**{**one, "part": part if one["part"] == "tag" else one["part"]}) for one in report["findings"]
    )
    return Audit(6, findings, report["effects"])


def test_a_tag_that_is_not_found_fails(done):
    report = json.loads(done[1].stdout)
    found, missing = _audit(report["shortcut"], "tag"), _audit(report["shortcut"], "eye")
    demo.verify(found, missing)
    with pytest.raises(CheckFailed, match="not found in the model"):
        demo.verify(missing, missing)
    with pytest.raises(CheckFailed, match="found in the control"):
        demo.verify(found, dataclasses.replace(found))
