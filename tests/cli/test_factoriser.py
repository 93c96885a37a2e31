"""--factoriser: a network without a non-negative layer, from the message that names the option to the page."""

import numpy as np
import pytest

from craft_onnx.concepts.craft import Craft

RUN = ("--preset", "torch", "-k", 3, "--class-id", 2)


@pytest.fixture
def signed(network, tmp_path):
    return network(tmp_path / "signed.onnx", activation="silu")


def test_the_message_names_the_option_and_a_cut(refused, signed, pictures, tmp_path):
    text = refused("run", signed, pictures, "-o", tmp_path / "out", *RUN)
    assert "provably non-negative" in text and "at 'act2': --factoriser semi_nmf" in text
    text = refused("run", signed, pictures, "-o", tmp_path / "out", *RUN, "--at", "act2")
    assert "are negative (lowest -" in text and "--factoriser semi_nmf" in text
    assert "'act2'" in refused("split", signed, "-o", tmp_path / "bundle")


def test_layers_names_the_cut(run, signed):
    assert "--at act2, fit with --factoriser semi_nmf" in run("layers", signed).err


def test_a_signed_network_from_the_file_to_the_page(run, signed, pictures, tmp_path):
    out = tmp_path / "out"
    done = run("run", signed, pictures, "-o", out, *RUN, "--factoriser", "semi_nmf", "--show", 1)
    assert done.code == 0, done.err
    assert done.json["factoriser"] == "semi_nmf" and done.json["provenance"]["cut"] == "act2"
    assert "semi-NMF, of signed activations" in (out / "index.html").read_text()
    assert "not provably" not in done.err
    craft = Craft.load(out / "bundle", class_id=2)
    assert craft.factoriser == "semi_nmf" and craft.importance_.exact
    assert run("explain", out / "bundle", pictures, "-o", tmp_path / "again").code == 0
    assert run("attribute", out / "bundle", pictures, "--concept", 0, "-o", tmp_path / "maps").code == 0


def test_split_fit_and_decompose(run, refused, signed, pictures, tmp_path):
    bundle = tmp_path / "bundle"
    converted = tmp_path / "converted.onnx"
    assert run("convert", signed, "-o", converted, "--preset", "torch").code == 0
    done = run("split", converted, "--at", "act2", "--at", "act1", "-o", bundle)
    assert "act2 is not provably non-negative" in done.err and "--factoriser semi_nmf" in done.err
    fit = ("fit", bundle, pictures, "--class-id", 2, "-k", 3)
    assert "--factoriser semi_nmf" in refused(*fit)
    done = run(*fit, "--factoriser", "semi_nmf")
    assert done.code == 0, done.err
    best = done.json["concepts"][0]["concept"]
    done = run("decompose", bundle, pictures, "--concept", best, "--at", "act1", "-k", 2, "--nb-design", 8)
    assert done.code == 0, done.err
    assert done.json["factoriser"] == "semi_nmf" and np.isfinite(done.json["relative_error"])


def test_a_layer_behind_a_relu_is_fine_too(run, model, pictures, tmp_path):
    done = run("run", model, pictures, "-o", tmp_path / "out", *RUN, "--factoriser", "semi_nmf", "--show", 0)
    assert done.code == 0 and done.json["provenance"]["cut"] == "act2"
