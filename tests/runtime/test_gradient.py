import dataclasses
import gc
import tempfile
import weakref

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import craft_onnx
from craft_onnx.errors import CraftWarning, InputError
from craft_onnx.graph.normalize import normalize
from craft_onnx.runtime import pullback
from craft_onnx.runtime.bundle import Bundle, create_bundle
from craft_onnx.runtime.manifest import Manifest

# float32 sums of up to 64 products in another order: about 1e-7 of the largest
TOLERANCE = 2e-6


@pytest.fixture
def model(classifier, tmp_path):
    create_bundle(normalize(ir.serde.deserialize_model(classifier())), ["relu"], tmp_path / "bundle")
    return craft_onnx.load(tmp_path / "bundle", threads=1)


@pytest.fixture
def weights(classifier):
    tensors = classifier().graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in tensors}


@pytest.fixture
def backwards(weights, oracle):
    """The model's derivative in numpy and float64: from pictures and a cotangent of logits or of activations."""

    def run(x, cotangent, of):
        a, _ = oracle(x)
        if of == "logits":
            da = cotangent.astype(np.float64) @ weights["fc.weight"]
            cotangent = np.broadcast_to(da[:, :, None, None] / a[0, 0].size, a.shape)
        conv = cotangent * (a > 0)
        padded = np.zeros((len(x), 3, 10, 10))
        for i in range(3):
            for j in range(3):
                padded[:, :, i : i + 8, j : j + 8] += np.einsum(
                    "nohw,oc->nchw", conv, weights["conv.weight"][..., i, j]
                )
        return padded[:, :, 1:-1, 1:-1]

    return run


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def normal(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("of", ["logits", "activations"])
def test_one_forward_pass_serves_many_cotangents(model, pictures, oracle, backwards, of):
    value, pullback = model.vjp(pictures, of)
    assert_close(value, oracle(pictures)[of == "logits"])
    for seed in range(3):
        cotangent = normal(*value.shape, seed=seed)
        dx = pullback(cotangent)
        assert dx.dtype == np.float32
        assert_close(dx, backwards(pictures, cotangent, of))
    first, again = pullback(cotangent), pullback(cotangent)
    np.testing.assert_array_equal(first, again)


def test_a_pullback_outlives_the_next_forward_pass(model, pictures, backwards):
    """Residuals belong to their own forward pass, not to the session."""
    _, first = model.vjp(pictures)
    model.vjp(pictures[::-1] + 1)
    cotangent = normal(21, 5)
    assert_close(first(cotangent), backwards(pictures, cotangent, "logits"))


def test_the_head_alone(model, pictures, weights):
    a = model.g(pictures)
    logits, pullback = model.vjp_h(a)
    assert_close(logits, model.predict(pictures))
    cotangent = normal(21, 5)
    assert_close(pullback(cotangent)[:, :, 2, 5], cotangent @ weights["fc.weight"] / 64)


@pytest.mark.parametrize("of", ["logits", "activations"])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 64])
def test_batches_of_any_size(model, pictures, backwards, of, batch_size):
    cotangent = normal(21, *((5,) if of == "logits" else (4, 8, 8)))
    dx = model.gradient(pictures, cotangent, of, batch_size)
    assert dx.dtype == np.float32
    assert_close(dx, backwards(pictures, cotangent, of))


@pytest.mark.parametrize(("provider", "longest"), [("cpu", 4), ("cuda", 21)])
def test_a_cpu_takes_few_rows_at_a_time(model, pictures, backwards, monkeypatch, provider, longest):
    """21 rows go as six runs of four or less, and come back whole, in order."""
    monkeypatch.setattr(pullback, "ELEMENTS", 4 * pictures[0].size + 1)
    forward, rows = model.session("vjp_g_forward"), []
    run = forward.run_values
    monkeypatch.setattr(forward, "provider", provider)
    monkeypatch.setattr(forward, "run_values", lambda feeds: rows.append(len(feeds["x"])) or run(feeds))
    logits, back = model.vjp(pictures)
    assert_close(logits, model.predict(pictures))
    cotangent = normal(21, 5)
    expected = backwards(pictures, cotangent, "logits")
    assert_close(back(cotangent), expected)
    assert (max(rows), sum(rows)) == (longest, 21)
    assert_close(model.gradient(pictures, cotangent, batch_size=21), expected)
    assert (max(rows), sum(rows)) == (longest, 42)


def test_a_fixed_batch_goes_whole(model, pictures, monkeypatch):
    forward, rows = model.session("vjp_g_forward"), []
    run, spec = forward.run_values, forward.inputs[0]
    monkeypatch.setattr(pullback, "ELEMENTS", 1)
    monkeypatch.setattr(forward, "inputs", [dataclasses.replace(spec, shape=(21, *spec.shape[1:]))])
    monkeypatch.setattr(forward, "run_values", lambda feeds: rows.append(len(feeds["x"])) or run(feeds))
    model.gradient(pictures, normal(21, 5))
    assert rows == [21]


def test_h_then_g_is_the_whole(model, pictures):
    """The product of h followed by that of g is the product of the model, bit for bit."""
    cotangent = normal(21, 5)
    _, pull_h = model.vjp_h(model.g(pictures))
    _, pull_g = model.vjp(pictures, "activations")
    np.testing.assert_array_equal(pull_g(pull_h(cotangent)), model.vjp(pictures)[1](cotangent))


def test_the_pair_is_the_combined_graph(model, pictures):
    cotangent = normal(21, 4, 8, 8)
    combined = model.session("vjp_g").run({"x": pictures, "cotangent": cotangent})[0]
    np.testing.assert_array_equal(model.vjp(pictures, "activations")[1](cotangent), combined)


def test_arrays_of_other_precisions_and_tensors(model, pictures):
    expected = model.gradient(pictures, normal(21, 5))
    assert_close(model.gradient(pictures.astype(np.float64), normal(21, 5).astype(np.float64)), expected)
    half = model.vjp(pictures.astype(np.float16))[1](normal(21, 5).astype(np.float16))
    np.testing.assert_allclose(half, expected, atol=2e-3)
    torch = pytest.importorskip("torch")
    x, cotangent = torch.tensor(pictures, requires_grad=True), torch.tensor(normal(21, 5))
    np.testing.assert_array_equal(model.gradient(x, cotangent), expected)
    np.testing.assert_array_equal(model.vjp(x)[1](cotangent), model.vjp(pictures)[1](normal(21, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, c: (x, c[:, :4]), r"array for 'cotangent' has shape \(21, 4\), the model takes \(N, 5\)"),
        (lambda x, c: (x, c[0]), r"Add a batch axis: x\[None\]"),
        (lambda x, c: (x, c.astype(int)), r"'cotangent' has dtype int64, the model takes float32"),
        (lambda x, c: (x.transpose(0, 2, 3, 1), c), r"shape \(21, 8, 8, 3\), the model takes \(N, 3, 8, 8\)"),
        (lambda x, c: (x[:0], c[:0]), "no rows"),
        (lambda x, c: (x, c[:20]), "20 rows|21 rows"),
    ],
)
def test_refuses_other_input(model, pictures, change, message):
    x, cotangent = change(pictures, normal(21, 5))
    with pytest.raises(InputError, match=message):
        model.gradient(x, cotangent)
    with pytest.raises(InputError, match=message):
        model.vjp(x)[1](cotangent)


def test_refuses_other_targets_and_rules(model, pictures):
    with pytest.raises(InputError, match=r"no derivative of 'input'. Take one of logits, activations"):
        model.vjp(pictures, "input")
    with pytest.raises(InputError, match=r"no rule set 'saliency'. Take one of gradient, epsilon_plus, "):
        model.vjp(pictures, rules="saliency")
    with pytest.raises(InputError, match=r"each half of the model has a first layer. Take epsilon_plus, or"):
        model.vjp(pictures, rules="epsilon_plus_flat")


def test_a_batch_that_does_not_fit_is_halved(model, pictures, monkeypatch):
    expected = model.gradient(pictures, normal(21, 5))
    forward = model.session("vjp_g_forward")
    run = forward.run_values

    def small(feeds):
        if len(feeds["x"]) > 4:
            raise MemoryError("no")
        return run(feeds)

    monkeypatch.setattr(forward, "run_values", small)
    with pytest.warns(CraftWarning, match="A batch of 11 does not fit in memory; 2 rows"):
        assert_close(model.gradient(pictures, normal(21, 5)), expected)


def test_other_rule_sets_are_made_on_demand_and_once(model, pictures):
    cotangent = normal(21, 5)
    guided = model.gradient(pictures, cotangent, rules="guided_backprop")
    assert guided.shape == pictures.shape
    sessions = dict(model._sessions)
    _, pullback = model.vjp(pictures, rules="guided_backprop")
    assert_close(pullback(cotangent), guided)
    assert model._sessions == sessions
    assert np.abs(guided - model.gradient(pictures, cotangent)).max() > 0.01 * np.abs(guided).max()


def test_a_bundle_without_gradients_says_so(bundle_folder, pictures):
    model = craft_onnx.load(bundle_folder)
    with pytest.raises(InputError, match=r"has no gradient graphs of g at 'relu'. Make it again with craft-onnx split"):
        model.vjp(pictures)
    rows = model.gradient(pictures, normal(21, 5), rules="deconvnet")  # made from g and h
    assert rows.shape == pictures.shape


def test_a_bundle_of_the_first_schema_can_be_read(bundle_folder, pictures, oracle):
    path = bundle_folder / "MANIFEST.json"
    import json

    fields = json.loads(path.read_text())
    fields["schema"] = 1
    for graph in fields["graphs"]:
        del graph["error"]
    path.write_text(json.dumps(fields))
    assert_close(craft_onnx.load(bundle_folder).predict(pictures), oracle(pictures)[1])
    assert Manifest.from_json(path.read_bytes()).schema == 2


class TestOnnxFiles:
    """An ONNX file in the place of a bundle."""

    @pytest.fixture(autouse=True)
    def _own_temporary_folder(self, tmp_path, monkeypatch):
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(self.temporary))

    @pytest.fixture
    def file(self, classifier, tmp_path):
        onnx.save(classifier(1), tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    def test_works_as_a_bundle_does(self, file, pictures, oracle, backwards):
        model = craft_onnx.load(file, threads=1)
        assert model.cut.tensor == "relu"
        assert_close(model.predict(pictures), oracle(pictures)[1])
        assert_close(model.gradient(pictures, normal(21, 5)), backwards(pictures, normal(21, 5), "logits"))
        assert craft_onnx.load(file, cut="pool").cut.shape == (None, 4, 1, 1)
        with pytest.raises(InputError, match="layer9"):
            craft_onnx.load(str(file), cut="layer9")

    def test_its_folder_goes_with_the_model(self, file):
        model = craft_onnx.load(file)
        assert len(list(self.temporary.iterdir())) == 1
        alive = weakref.ref(model)
        del model
        gc.collect()
        assert alive() is None
        assert list(self.temporary.iterdir()) == []

    def test_leaves_nothing_when_it_fails(self, file):
        with pytest.raises(InputError):
            craft_onnx.load(file, cut="nowhere")
        assert list(self.temporary.iterdir()) == []

    def test_nothing_is_kept_in_it(self, file):
        model = craft_onnx.load(file)
        with pytest.raises(InputError, match=r"temporary, nothing can be kept.*craft-onnx split .*net\.onnx -o BUNDLE"):
            model.bundle.commit(model.manifest, {})

    def test_other_formats_are_converted_first(self, tmp_path):
        path = tmp_path / "net.keras"
        path.write_bytes(b"PK")
        with pytest.raises(InputError, match=r"no bundle and not ONNX. Convert it first: craft-onnx convert"):
            craft_onnx.load(path)

    def test_without_a_recommended_cut_the_last_map_or_the_last_cut(self, make_graph, tmp_path):
        def cut_of(*operators, shape):
            nodes = [
                onnx.helper.make_node(kind, [f"t{i}" if i else "x"], [f"t{i + 1}"]) for i, kind in enumerate(operators)
            ]
            path = tmp_path / f"{len(operators)}{len(shape)}.onnx"
            onnx.save(make_graph(nodes, [("x", shape)], [(f"t{len(nodes)}", (int(np.prod(shape)),))]), path)
            return craft_onnx.load(path).cut

        assert cut_of("Tanh", "Tanh", "Flatten", "Tanh", shape=(2, 3, 3)).tensor == "t2"
        assert cut_of("Tanh", "Tanh", "Tanh", shape=(7,)).tensor == "t2"
        with pytest.raises(InputError, match="has no cut"):
            cut_of("Tanh", shape=(7,))


def test_an_operator_without_a_rule_is_named_and_the_rest_written(make_graph, tmp_path):
    nodes = [
        onnx.helper.make_node("Tanh", ["x"], ["t"]),
        onnx.helper.make_node("Det", ["t"], ["d"], name="det"),
        onnx.helper.make_node("Flatten", ["d"], ["y"]),
    ]
    model = normalize(ir.serde.deserialize_model(make_graph(nodes, [("x", (5, 3, 3))], [("y", (5,))])))
    with pytest.warns(CraftWarning, match=r"no gradient of h at 't'. No derivative is known of ai.onnx::Det .*'det'"):
        create_bundle(model, ["t"], tmp_path / "bundle")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    roles = {graph.role for graph in manifest.graphs}
    assert roles == {"model", "g", "h", "vjp_g", "vjp_g_forward", "vjp_g_backward"}
    assert {path.name for path in (tmp_path / "bundle").glob("*.onnx")} == {graph.file for graph in manifest.graphs}
    loaded = craft_onnx.load(tmp_path / "bundle")
    x = normal(2, 5, 3, 3)
    assert_close(loaded.vjp(x, "activations")[1](np.ones_like(x)), 1 - np.tanh(x.astype(np.float64)) ** 2)
    with pytest.raises(InputError, match="no gradient graphs of h"):
        loaded.vjp(x)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_rule_writes_no_gradient(classifier, tmp_path, monkeypatch, factor):
    from craft_onnx.graph.reverse.gradients import GRADIENTS

    right = GRADIENTS._table["", "Relu"]
    monkeypatch.setitem(GRADIENTS._table, ("", "Relu"), lambda step, dy: [factor * right(step, dy)[0]])
    model = normalize(ir.serde.deserialize_model(classifier()))
    with pytest.warns(
        CraftWarning, match=r"no gradient of g at 'relu'. The gradient graph of g is off by (1\.\de-01|9\.\de-02)"
    ):
        create_bundle(model, ["relu"], tmp_path / "bundle")
    assert not list((tmp_path / "bundle").glob("vjp_g*"))
    assert len(list((tmp_path / "bundle").glob("vjp_h*"))) == 3
