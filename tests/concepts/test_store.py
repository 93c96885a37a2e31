import dataclasses
import io
import json
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest

from craft_onnx.concepts.craft import XPLIQUE, Craft
from craft_onnx.concepts.store import find_bank, name_concept
from craft_onnx.errors import CheckFailed, InputError, NotFittedError
from craft_onnx.runtime.bundle import Bundle, create_bundle
from craft_onnx.runtime.model import SplitModel

SETTINGS = {"number_of_concepts": 4, "batch_size": 16, "patch_size": 16}


def fit(bundle, images, class_id=2, **more):
    craft = Craft(SplitModel(bundle), **SETTINGS, **more)
    craft.fit(images, class_id=class_id)
    craft.estimate_importance()
    return craft


@pytest.fixture(scope="module")
def saved(make_bundle, images):
    """A fitted Craft and the bundle it was saved in, per head; not to be written to."""
    pairs = {}
    for head in ("linear", "mlp", "positions", "conv"):
        bundle = make_bundle(head)
        craft = fit(bundle, images)
        craft.save()
        pairs[head] = craft, bundle
    return pairs


@pytest.fixture
def fresh(make_model, tmp_path, images):
    """A bundle of one's own, with concepts in it."""
    bundle = create_bundle(make_model("mlp"), ["Relu_3"], tmp_path / "bundle")
    craft = fit(bundle, images)
    craft.save()
    return craft, bundle


@pytest.mark.parametrize("head", ["linear", "mlp", "positions", "conv"])
def test_loaded_concepts_are_the_saved_ones(head, saved, images):
    craft, bundle = saved[head]
    loaded = Craft.load(bundle.folder, class_id=2)
    assert np.array_equal(loaded.concept_bank_, craft.concept_bank_)
    assert np.array_equal(loaded.crops_u_, craft.crops_u_)
    assert np.array_equal(loaded.transform(images[:3]), craft.transform(images[:3]))
    assert loaded.head_.linear == craft.head_.linear and loaded.head_.pooled == craft.head_.pooled
    assert np.allclose(loaded.estimate_importance(images[:2]), craft.estimate_importance(images[:2]), rtol=1e-6)
    assert np.array_equal(loaded.importance_.values, craft.importance_.values)
    assert np.array_equal(loaded.importance_.intervals, craft.importance_.intervals)
    assert loaded.summary() == craft.summary()
    assert {key: value for key, value in loaded.get_params().items() if key in SETTINGS} == SETTINGS
    for ours, theirs in zip(loaded.best_crops(1, 5), craft.best_crops(1, 5), strict=True):
        assert np.array_equal(ours, theirs)


def test_the_bundle_is_as_its_manifest_says(saved):
    craft, bundle = saved["conv"]
    opened = Bundle.open(bundle.folder)  # checks every hash
    bank = find_bank(opened)
    assert (bank.id, bank.class_id, bank.cut, bank.parent) == ("class2-Relu_3", 2, "Relu_3", None)
    assert bank.folder == craft.stored_as_
    assert sorted(path.name for path in (bundle.folder / bank.folder).iterdir()) == [
        "concepts.json", "concepts.npz", *(f"crops_{i:03d}.png" for i in range(4)),
    ]  # fmt: skip
    graphs = [graph for graph in opened.manifest.graphs if graph.role == "h_concepts"]
    assert len(graphs) == 1 and graphs[0].cut == "Relu_3" and graphs[0].inputs[0].shape == (None, 10, 8, 4)
    # The weights of the convolution behind the cut lie in weights.bin only.
    assert (bundle.folder / graphs[0].file).stat().st_size < 4000
    facts = json.loads((bundle.folder / bank.folder / "concepts.json").read_text())
    assert facts["head_error"] < 1e-5 and facts["evidence"]["n_crops"] == 108 and facts["evidence"]["n_images"] == 12


def test_loading_needs_no_more_than_running(saved, pictures, tmp_path):
    """With onnx, onnx_ir, scipy, scikit-learn and matplotlib out of reach."""
    np.save(tmp_path / "picture.npy", pictures[0])
    expected = saved["mlp"][0].explain(pictures[0])[0]
    script = f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("onnx", "onnx_ir", "onnxscript", "scipy", "sklearn", "matplotlib"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        import numpy as np
        import craft_onnx as co

        craft = co.Craft.load({str(saved["mlp"][1].folder)!r}, class_id=2)
        picture = np.load({str(tmp_path / "picture.npy")!r})
        explanation = craft.explain(picture)[0]
        print(explanation.importance.values.tolist(), len(craft.best_crops(0, 3)), explanation.maps.shape)
        try:
            craft.plot_concepts_importances()
        except co.CraftError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    first, second = done.stdout.strip().splitlines()
    values, _, rest = first.partition("]")
    assert np.allclose(json.loads(values + "]"), expected.importance.values, rtol=1e-6)
    assert rest == " 3 (10, 8, 4)"
    assert second == "matplotlib is not installed. Install it with: pip install 'craft-onnx[build]'"


def test_fitting_again_replaces(fresh, images):
    _, bundle = fresh
    name_concept(bundle, 1, "wave")
    fit(bundle, images[:8]).save()
    opened = Bundle.open(bundle.folder)
    assert len(opened.manifest.concepts) == 1
    assert len([graph for graph in opened.manifest.graphs if graph.role == "h_concepts"]) == 1
    assert sum(path.startswith("h_concepts") for path in opened.manifest.files) == 1
    loaded = Craft.load(bundle.folder)
    assert loaded.evidence_["n_images"] == 8
    assert loaded.names_ == {}  # the concepts are others now


def test_saving_the_same_twice_changes_nothing(fresh):
    craft, bundle = fresh
    before = dict(bundle.manifest.files)
    craft.save(bundle.folder)
    assert Bundle.open(bundle.folder).manifest.files == before


def test_several_classes_and_cuts(make_model, tmp_path, images):
    bundle = create_bundle(make_model("linear"), ["Relu_3", "Relu_1"], tmp_path / "bundle")
    fit(bundle, images, class_id=2).save()
    fit(bundle, images, class_id=0).save()
    first = Craft(SplitModel(bundle, cut="Relu_1"), **SETTINGS)
    first.fit(images, class_id=0)
    first.estimate_importance()
    first.save(bundle.folder)
    assert len(Bundle.open(bundle.folder).manifest.concepts) == 3
    assert Craft.load(bundle.folder, 0).concept_bank_.shape == (4, 24)
    assert Craft.load(bundle.folder, 0, cut="Relu_1").concept_bank_.shape == (4, 12)
    with pytest.raises(InputError, match=r"several classes.*class 2 at Relu_3; class 0 at Relu_3; class 0 at Relu_1"):
        Craft.load(bundle.folder)
    with pytest.raises(InputError, match=r"no concepts of class 2 at Relu_1"):
        Craft.load(bundle.folder, 2, cut="Relu_1")
    with pytest.raises(InputError, match="not cut at 'Relu_9'"):
        Craft.load(bundle.folder, 2, cut="Relu_9")


def test_names_are_kept_and_shown(fresh, pictures):
    _, bundle = fresh
    named = name_concept(bundle, 1, " disc ")
    assert named.names == {"1": "disc"} and (named.class_id, named.cut) == (2, "Relu_3")
    craft = Craft.load(bundle.folder)
    assert craft.labels() == ["0", "disc", "2", "3"]
    assert craft.explain(pictures[0])[0].names[1] == "disc"
    assert "disc" in [concept["name"] for concept in craft.summary()["concepts"]]
    craft.save()
    assert Craft.load(bundle.folder).names_ == {1: "disc"}
    assert name_concept(Bundle.open(bundle.folder), 1, "").names == {}
    with pytest.raises(InputError, match=r"no concept 4.*0 to 3"):
        name_concept(Bundle.open(bundle.folder), 4, "beak")


def test_the_presets_concepts_can_be_stored_too(make_model, tmp_path, images):
    bundle = create_bundle(make_model("linear"), ["Relu_3"], tmp_path / "bundle")
    craft = fit(bundle, images, **XPLIQUE)
    craft.save()
    loaded = Craft.load(bundle.folder)
    assert loaded.importance_.intervals is None and loaded.designs_.shape == (1, 32, 8)
    assert np.allclose(loaded.transform(images[:2]), craft.transform(images[:2]), atol=1e-6)
    assert np.allclose(loaded.estimate_importance(images[:1]), craft.estimate_importance(images[:1]), rtol=1e-6)


def test_local_importances_take_as_many_points_as_the_global_ones(fresh, images):
    craft, bundle = fresh
    craft.estimate_importance(nb_design=32)
    craft.save()
    loaded = Craft.load(bundle.folder)
    assert loaded.nb_design == 32 and loaded.designs_.shape == (5, 32, 8)
    assert loaded.importance_of(loaded.transform(images[:1])).evaluations == 5 * 32 * 5 + 6


def test_what_cannot_be_saved(bundles, make_bundle, images, small_net, weights):
    model = SplitModel(bundles["linear"])
    craft = Craft(model, **SETTINGS)
    with pytest.raises(NotFittedError):
        craft.save()
    craft.fit(images)
    with pytest.raises(NotFittedError, match="estimate_importance"):
        craft.save()
    craft.estimate_importance()
    with pytest.raises(InputError, match="another model"):
        craft.save(make_bundle("mlp").folder)
    plain = Craft(small_net.first_half(weights), small_net.second_half(weights, "linear"), **SETTINGS)
    plain.fit(images)
    plain.estimate_importance()
    with pytest.raises(InputError, match="callables"):
        plain.save(bundles["linear"].folder)


def test_nothing_stored(bundles):
    with pytest.raises(InputError, match=r"no concepts of class 2.*craft-onnx fit"):
        Craft.load(bundles["conv"].folder, class_id=2)


def damage(bundle, name, content):
    """Put other content under a file's name, with the right hash: only its meaning is wrong."""
    folder = find_bank(bundle).folder
    files = {path: digest for path, digest in bundle.manifest.files.items() if path != f"{folder}/{name}"}
    bundle.commit(dataclasses.replace(bundle.manifest, files=files), {})
    bundle.commit(bundle.manifest, {f"{folder}/{name}": content})
    return Bundle.open(bundle.folder)


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def huge():
    """An archive whose array says that it has 10^15 numbers."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        header = io.BytesIO()
        fields = {"descr": "<f4", "fortran_order": False, "shape": (4, 10**15)}
        np.lib.format.write_array_header_1_0(header, fields)
        archive.writestr("w.npy", header.getvalue() + bytes(64))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "zip"),
        (npz(u=np.ones((5, 4))), "'w'"),
        (npz(w=np.ones((4, 23)), u=np.ones((5, 4))), r"\(4, 23\)"),
        (npz(w=np.ones((3, 24)), u=np.ones((5, 3))), "do not fit 4 concepts"),
        (npz(w=np.array([[object()] * 24] * 4), u=np.ones((5, 4))), "pickle"),
        (huge(), "[Aa]llocate"),
        (npz(compressed=True, w=np.ones((4, 24)), u=np.ones((100000, 4))), "compressed"),
    ],
)
def test_damaged_arrays(fresh, content, reason):
    with pytest.raises(InputError, match=rf"concepts\.npz cannot be read \(.*{reason}"):
        Craft.load(damage(fresh[1], "concepts.npz", content))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema": 2, "settings": {}}', b"\xff"])
def test_damaged_facts(fresh, content):
    with pytest.raises(InputError, match=r"concepts\.json cannot be read"):
        Craft.load(damage(fresh[1], "concepts.json", content))


def test_a_wrong_hash(fresh):
    _, bundle = fresh
    path = bundle.folder / find_bank(bundle).folder / "concepts.npz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckFailed, match=r"concepts\.npz"):
        Craft.load(bundle.folder)


@pytest.fixture
def tree(make_model, tmp_path, images):
    """A bundle with concepts of a class, sub-concepts of two of them, and sub-concepts of one of those."""
    bundle = create_bundle(make_model("conv"), ["Relu_5", "Relu_3", "Relu_1"], tmp_path / "tree")
    root = Craft(SplitModel(bundle), **SETTINGS)
    root.fit(images, class_id=2)
    subs = [root.decompose(0, "Relu_3", 3, 0.5), root.decompose(1, "Relu_1", 2, 0.5)]
    subs.append(subs[0].decompose(2, "Relu_1", 2, 0.5))
    root.estimate_importance(nb_design=16)
    for sub in subs:
        sub.estimate_importance(nb_design=16)
        sub.estimate_parent_importance(nb_design=16)
    return bundle, root, subs


def test_sub_concepts_are_stored_below_their_parents(tree, images):
    bundle, root, subs = tree
    subs[2].save()  # and those it is part of
    subs[1].save()
    banks = {bank.id: bank for bank in Bundle.open(bundle.folder).manifest.concepts}
    above = [(bank.parent, bank.parent_concept) for bank in banks.values()]
    ids = ["class2-Relu_5", "class2-Relu_5+0-Relu_3", "class2-Relu_5+0-Relu_3+2-Relu_1", "class2-Relu_5+1-Relu_1"]
    assert list(banks) == ids and above == [(None, None), (ids[0], 0), (ids[1], 2), (ids[0], 1)]
    assert Craft.load(bundle.folder).stored_as_ == root.stored_as_  # sub-concepts are not taken for those of the class
    for parent, sub in [(0, subs[0]), (1, subs[1]), ((0, 2), subs[2]), (("Relu_5", 0, "Relu_3", 2), subs[2])]:
        loaded = Craft.load(bundle.folder, 2, parent=parent)
        assert np.array_equal(loaded.concept_bank_, sub.concept_bank_)
        assert loaded.summary() == sub.summary()
        assert np.array_equal(loaded.transform(images[:2]), sub.transform(images[:2]))
        assert np.array_equal(loaded.parent_.craft.concept_bank_, sub.parent_.craft.concept_bank_)
        assert (loaded.parent_.concept, loaded.parent_.quantile) == (sub.parent_.concept, 0.5)
        ours, theirs = loaded.explain(images[:1])[0].to_json(), sub.explain(images[:1])[0].to_json()
        assert ours == theirs
    children = Craft.load(bundle.folder).children
    assert [child.stored_as_ for child in children] == [subs[0].stored_as_, subs[1].stored_as_]
    assert [child.stored_as_ for child in children[0].children] == [subs[2].stored_as_] and not children[1].children


def test_loaded_concepts_are_decomposed_with_the_images_of_the_fit(tree, images):
    bundle, _, subs = tree
    subs[0].save()
    loaded = Craft.load(bundle.folder, parent=0)
    with pytest.raises(InputError, match=r"crops of the fit are not stored .* Give images"):
        loaded.decompose(2, "Relu_1", 2, 0.5)
    again = loaded.decompose(2, "Relu_1", 2, 0.5, images=images)
    assert np.array_equal(np.asarray(again.crops_), np.asarray(subs[2].crops_))
    np.testing.assert_allclose(again.concept_bank_, subs[2].concept_bank_, rtol=1e-5)
    np.testing.assert_allclose(
        again.estimate_parent_importance(nb_design=16), subs[2].parent_importance_.values, rtol=1e-4
    )


def test_other_concepts_take_their_sub_concepts_with_them(tree, images):
    bundle, root, subs = tree
    subs[2].save()
    root.save()  # the same once more
    assert len(bundle.manifest.concepts) == 3
    other = Craft(SplitModel(bundle), **SETTINGS, random_state=1)
    other.fit(images[:8], class_id=2)
    other.estimate_importance(nb_design=16)
    other.save()
    left = Bundle.open(bundle.folder).manifest
    assert [bank.id for bank in left.concepts] == ["class2-Relu_5"]
    assert sum(graph.role == "h_concepts" for graph in left.graphs) == 1
    assert Craft.load(bundle.folder).children == []


def test_errors_say_which_sub_concepts_there_are(tree):
    bundle, _, subs = tree
    subs[0].save()
    there = r"It has: class 2 at Relu_5; class 2 at Relu_3, of concept 0 at Relu_5\."
    with pytest.raises(InputError, match=rf"no sub-concepts of concept 3 of class 2\. {there}"):
        Craft.load(bundle.folder, 2, parent=3)
    with pytest.raises(InputError, match=rf"no sub-concepts of concept 0 at Relu_1\. {there}"):
        Craft.load(bundle.folder, cut="Relu_1", parent=0)
