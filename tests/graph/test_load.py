import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from craft_onnx.description import Description, Preprocessing
from craft_onnx.errors import CheckFailed, InputError, UnsupportedOperator
from craft_onnx.graph.load import (
    check,
    image_input,
    load,
    logits_output,
    read_description,
    save,
    write_description,
)

WEIGHT = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)  # 240 bytes
LARGE = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)  # 800 bytes


def small_proto(inputs_too=False):
    """Two matrix products. In old files initializers are inputs as well."""
    weights = [helper.make_tensor(n, 1, a.shape, a.ravel()) for n, a in (("w", WEIGHT), ("v", LARGE))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])]
    inputs += [helper.make_tensor_value_info(w.name, 1, w.dims) for w in weights] if inputs_too else []
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "a"), helper.make_node("MatMul", ["h", "v"], ["y"], "b")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 40])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    version = 3 if inputs_too else 10
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 8 if inputs_too else 18)], ir_version=version
    )


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(small_proto(), path)
    return path


@pytest.fixture
def external(tmp_path):
    """A model with its weights in a file beside it."""
    folder = tmp_path / "external"
    folder.mkdir()
    save(ir.serde.deserialize_model(small_proto()), folder / "m.onnx", "w.bin")
    return folder / "m.onnx"


def relocate(path, location):
    """Point a model's external data at another place."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())


def raises_both(path, problem):
    with pytest.raises(InputError, match=problem) as caught:
        load(path)
    assert caught.value.problem.endswith(".") and caught.value.remedy.endswith(".")
    assert "\n" not in str(caught.value)


def test_bad_paths(tmp_path, small):
    raises_both(tmp_path / "none.onnx", "There is no file")
    raises_both(tmp_path, "is a folder")
    (tmp_path / "text.onnx").write_text("this is a text\n" * 40)
    raises_both(tmp_path / "text.onnx", "is not an ONNX file")
    (tmp_path / "empty.onnx").write_bytes(b"")
    raises_both(tmp_path / "empty.onnx", "no opset or no outputs")
    content = small.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        raises_both(tmp_path / "cut.onnx", "is not an ONNX file|is not a valid|no opset")


def test_a_file_that_cannot_be_read(small, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx, "load", refuse)
    raises_both(small, r"cannot be read \(Permission denied\)")


def test_models_that_break_the_rules(tmp_path):
    def spoiled(change):
        proto = small_proto()
        change(proto.graph)
        (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
        raises_both(tmp_path / "bad.onnx", "is not a valid ONNX model")

    spoiled(lambda graph: graph.node[1].input.__setitem__(0, "nowhere"))
    spoiled(lambda graph: graph.node[1].output.__setitem__(0, "h"))  # assigned twice
    spoiled(lambda graph: graph.initializer[0].dims.__setitem__(0, 13))  # too few numbers
    spoiled(lambda graph: graph.node[0].ClearField("op_type"))


def test_damaged_bytes_never_show_a_traceback(tmp_path, small):
    content = bytearray(small.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        try:
            load(tmp_path / "damaged.onnx")
        except InputError:
            refused += 1
    assert 50 < refused < 200  # the others hit a weight or a name


def test_round_trip_in_one_file_and_with_weights(small, tmp_path, run):
    model = load(small)
    x = np.random.default_rng(2).standard_normal((3, 12)).astype(np.float32)
    expected = x @ WEIGHT @ LARGE
    save(model, tmp_path / "whole.onnx")
    save(model, tmp_path / "parts.onnx", "parts.bin")
    assert {path.name for path in tmp_path.iterdir()} == {"parts.bin", "parts.onnx", "small.onnx", "whole.onnx"}
    assert (tmp_path / "parts.bin").stat().st_size == LARGE.nbytes  # the small one stays inside
    for name in ("whole", "parts"):
        again = load(tmp_path / f"{name}.onnx")
        check(again)
        # float32 sums of 12 and 5 products in another order
        np.testing.assert_allclose(run(ir.external_data.load_to_model(again), x), expected, rtol=1e-5, atol=1e-5)


def test_several_graphs_share_one_file_of_weights(external):
    before = external.with_name("w.bin").stat()
    save(load(external), external.with_name("second.onnx"), "w.bin")
    after = external.with_name("w.bin").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert load(external.with_name("second.onnx")).graph.initializers["v"].const_value.location == "w.bin"


def test_saving_does_not_change_the_model(external, tmp_path):
    model = load(external)
    save(model, tmp_path / "whole.onnx")
    assert isinstance(model.graph.initializers["v"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(load(tmp_path / "whole.onnx").graph.initializers["v"].const_value.numpy(), LARGE)


def test_external_data_that_is_missing_short_or_elsewhere(external, tmp_path):
    weights = external.with_name("w.bin")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    raises_both(external, "too short")
    weights.unlink()
    raises_both(external, "missing")
    (tmp_path / "secret.bin").write_bytes(content)
    weights.symlink_to(tmp_path / "secret.bin")
    raises_both(external, "outside its folder")
    weights.unlink()
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "a/../../secret.bin"):
        relocate(external, location)
        raises_both(external, "outside its folder|not a valid")
    relocate(external, "")
    raises_both(external, "missing")


def test_external_data_behind_the_links_of_a_mounted_volume(external, tmp_path):
    """Kubernetes shows `..data/m.onnx`, itself behind a link to a dated folder, as links in the volume."""
    volume, dated = tmp_path / "volume", tmp_path / "volume" / "..2024"
    volume.mkdir()
    external.parent.rename(dated)
    (volume / "..data").symlink_to("..2024")
    for name in ("m.onnx", "w.bin"):
        (volume / name).symlink_to(f"..data/{name}")
    model = load(volume / "m.onnx")
    np.testing.assert_array_equal(model.graph.initializers["v"].const_value.numpy(), LARGE)


def test_old_files_list_initializers_as_inputs(tmp_path):
    onnx.save(small_proto(inputs_too=True), tmp_path / "old.onnx")
    model = load(tmp_path / "old.onnx")
    assert len(model.graph.inputs) == 3
    assert image_input(model).name == "x"


def test_the_standard_domain_under_its_long_name(tmp_path):
    proto = small_proto()
    for item in [*proto.opset_import, *proto.graph.node]:
        item.domain = "ai.onnx"
    onnx.save(proto, tmp_path / "long.onnx")
    model = load(tmp_path / "long.onnx")
    check(model)
    assert model.opset_imports == {"": 18}


def test_one_input_and_one_output(small):
    model = load(small)
    assert (image_input(model).name, logits_output(model).name) == ("x", "y")
    model.graph.inputs.append(ir.Value(name="mask"))
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    with pytest.raises(InputError, match=r"2 inputs \(x, mask\)"):
        image_input(model)
    with pytest.raises(InputError, match=r"2 outputs \(y, h\)"):
        logits_output(model)
    model.graph.inputs.clear()
    with pytest.raises(InputError, match=r"0 inputs \(none\)"):
        image_input(model)


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (lambda g: setattr(g.node(1), "name", "a"), CheckFailed, "Several nodes are named a"),
        (lambda g: setattr(g.node(0).outputs[0], "name", "w"), CheckFailed, "ONNX's rules"),
        (
            lambda g: g.node(1).replace_input_with(1, g.initializers["w"]),
            CheckFailed,
            "Nothing uses the initializers v",
        ),
        (lambda g: setattr(g.node(0), "op_type", "Nonsense"), CheckFailed, "ONNX's rules"),
        (lambda g: setattr(g.node(0), "domain", "com.microsoft"), UnsupportedOperator, "com.microsoft::MatMul"),
        (lambda g: g.opset_imports.update({"ai.onnx.ml": 3}), CheckFailed, "opsets"),
    ],
)
def test_check(small, change, error, problem):
    model = load(small)
    check(model)
    change(model.graph)
    with pytest.raises(error, match=problem):
        check(model)


def test_description_survives_the_file(small, tmp_path):
    model = load(small)
    assert read_description(model) == Description()
    rule = Preprocessing.preset("torch", (32, 32), resize_to=40)
    description = Description("torch", "ab" * 32, rule, softmax_removed=True)
    write_description(model, description)
    save(model, tmp_path / "described.onnx")
    assert read_description(load(tmp_path / "described.onnx")) == description
    model.metadata_props["craft_onnx"] = "{"
    with pytest.raises(InputError, match="metadata cannot be read"):
        read_description(model)
