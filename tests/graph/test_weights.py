"""Graphs over one file of weights: the same results bit for bit, every content once, the same bytes every time."""

import hashlib

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from craft_onnx.errors import InputError
from craft_onnx.graph.cuts import recommended_cut
from craft_onnx.graph.load import check, load
from craft_onnx.graph.split import split
from craft_onnx.graph.weights import INLINE_BYTES, PAGE, PAGE_BYTES, add_sharing, save_sharing


def dense(*arrays, name="net"):
    """x (N, p) times one matrix after the other."""
    x = ir.Value(name="x", shape=ir.Shape(["N", len(arrays[0])]), type=ir.TensorType(ir.DataType.FLOAT))
    weights, nodes, value = [], [], x
    for index, array in enumerate(arrays):
        tensor = ir.tensor(array, name=f"{name}.{index}")
        weights.append(ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape(array.shape)))
        weights[-1].dtype = tensor.dtype
        nodes.append(ir.node("MatMul", [value, weights[-1]], outputs=[ir.Value(name=f"v{index}")]))
        value = nodes[-1].outputs[0]
    value.type, value.shape = x.type, ir.Shape(["N", arrays[-1].shape[1]])
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 20}, name=name)
    return ir.Model(graph, ir_version=10)


def matrix(seed, rows=32, columns=32):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def references(path):
    """Offset and length of every external initializer of a file, by name."""
    found = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "weights.bin"
            found[tensor.name] = int(entries["offset"]), int(entries["length"])
    return found


def run_file(path, x):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_results_are_bit_identical_to_those_of_single_files(net, run, tmp_path):
    model = net("resnet")
    g, h = split(model, recommended_cut(model).tensor)
    save_sharing({"model.onnx": model, "g.onnx": g, "h.onnx": h}, tmp_path)
    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    activations = run(g, x)
    np.testing.assert_array_equal(run_file(tmp_path / "model.onnx", x), run(model, x))
    np.testing.assert_array_equal(run_file(tmp_path / "g.onnx", x), activations)
    np.testing.assert_array_equal(run_file(tmp_path / "h.onnx", activations), run(h, activations))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "h.onnx", "model.onnx", "weights.bin"]


def test_every_content_is_stored_once(net, tmp_path):
    model = net("resnet")
    g, h = split(model, recommended_cut(model).tensor)
    save_sharing({"model.onnx": model, "g.onnx": g, "h.onnx": h}, tmp_path)
    whole, first, second = (references(tmp_path / f"{name}.onnx") for name in ("model", "g", "h"))
    assert first.items() <= whole.items() and second.items() <= whole.items()
    large = {v.const_value.tobytes() for v in model.graph.initializers.values() if v.const_value.nbytes >= INLINE_BYTES}
    assert len(large) == len(set(whole.values())) == 7
    assert (tmp_path / "weights.bin").stat().st_size < sum(map(len, large)) + 64 * len(large)


def test_equal_content_under_other_names_and_shapes_is_shared(tmp_path):
    a, b = matrix(0), matrix(1)
    save_sharing({"1.onnx": dense(a, b), "2.onnx": dense(b.reshape(16, 64), name="other")}, tmp_path)
    assert references(tmp_path / "2.onnx")["other.0"] == references(tmp_path / "1.onnx")["net.1"]
    assert (tmp_path / "weights.bin").stat().st_size == a.nbytes + b.nbytes


def test_offsets_are_aligned(tmp_path):
    large = matrix(0, 600, 500)
    assert large.nbytes >= PAGE_BYTES
    save_sharing({"net.onnx": dense(matrix(1, 30, 33), matrix(2, 33, 600), large, matrix(3, 500, 7))}, tmp_path)
    places = references(tmp_path / "net.onnx")
    assert all(offset % 64 == 0 for offset, _ in places.values())
    assert places["net.2"][0] % PAGE == 0 and places["net.1"][0] % PAGE != 0


def test_small_tensors_stay_in_the_graph(tmp_path):
    small, large = matrix(0, 32, 7), matrix(1, 32, 8)
    assert small.nbytes < INLINE_BYTES == large.nbytes
    save_sharing({"1.onnx": dense(small), "2.onnx": dense(large)}, tmp_path)
    assert references(tmp_path / "1.onnx") == {} and references(tmp_path / "2.onnx") == {"net.0": (0, 1024)}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_bytes_are_the_same_every_time(net, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_sharing({"model.onnx": net("resnet"), "again.onnx": net("densenet")}, tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_models_are_not_changed_and_can_be_saved_from_a_bundle(net, run, tmp_path):
    model = net("resnet")
    before = ir.serde.serialize_model(model).SerializeToString()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    save_sharing({"model.onnx": model}, tmp_path / "a")
    assert ir.serde.serialize_model(model).SerializeToString() == before
    save_sharing({"model.onnx": load(tmp_path / "a" / "model.onnx")}, tmp_path / "b")
    x = np.ones((2, 3, 32, 32), np.float32)
    np.testing.assert_array_equal(run_file(tmp_path / "b" / "model.onnx", x), run(model, x))


def test_loaded_again_it_passes_all_checks(net, tmp_path):
    from craft_onnx.graph.normalize import normalize

    save_sharing({"model.onnx": normalize(net("resnet"))}, tmp_path)
    check(load(tmp_path / "model.onnx"))


def test_added_graphs_refer_to_what_is_there_and_carry_what_is_new(tmp_path):
    a, b, new = matrix(0), matrix(1), matrix(2)
    save_sharing({"net.onnx": dense(a, b)}, tmp_path)
    before = digests(tmp_path)
    add_sharing({"more.onnx": dense(b, new, name="more")}, tmp_path)
    assert references(tmp_path / "more.onnx") == {"more.0": references(tmp_path / "net.onnx")["net.1"]}
    assert before.items() <= digests(tmp_path).items()
    x = matrix(3, 2, 32)
    np.testing.assert_allclose(run_file(tmp_path / "more.onnx", x), x @ b @ new, rtol=1e-4, atol=1e-4)


def test_added_graphs_made_from_loaded_ones_keep_their_places(net, run, tmp_path):
    model = net("resnet")
    save_sharing({"model.onnx": model}, tmp_path)
    loaded = load(tmp_path / "model.onnx")
    g, h = split(loaded, "relu_2")
    add_sharing({"g.onnx": g, "h.onnx": h}, tmp_path)
    whole = references(tmp_path / "model.onnx")
    assert references(tmp_path / "g.onnx") | references(tmp_path / "h.onnx") == whole
    x = np.ones((2, 3, 32, 32), np.float32)
    both = run_file(tmp_path / "h.onnx", run_file(tmp_path / "g.onnx", x))
    np.testing.assert_allclose(both, run(model, x), rtol=1e-6)


def test_equal_length_is_not_equal_content(tmp_path):
    save_sharing({"net.onnx": dense(matrix(0))}, tmp_path)
    add_sharing({"more.onnx": dense(matrix(1))}, tmp_path)
    assert references(tmp_path / "more.onnx") == {}


def test_nothing_is_left_when_a_file_is_in_the_way(tmp_path):
    (tmp_path / "2.onnx").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_sharing({"1.onnx": dense(matrix(0)), "2.onnx": dense(matrix(1))}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2.onnx"]
    assert (tmp_path / "2.onnx").read_text() == "mine"


def test_adding_needs_a_file_of_weights(tmp_path):
    with pytest.raises(InputError, match="no file of weights"):
        add_sharing({"net.onnx": dense(matrix(0))}, tmp_path)
