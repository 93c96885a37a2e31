"""RelMax, ActMax and their statistics over a data set, against a loop over single samples; what lies in the files."""

import json
import shutil

import numpy as np
import pytest

import craft_onnx as co
from craft_onnx.relevance.store import COLLECTED
from craft_onnx.show.references import vis_opaque_img
from craft_onnx_models.birds.draw import draw_many
from craft_onnx_models.birds.draw import pictures as pictures_of

LAYERS = ["features.5", "features.9"]
KEPT = 6


@pytest.fixture(scope="module")
def dataset():
    drawn = draw_many(50, seed=21)
    return [(picture, bird.label) for picture, bird in zip(pictures_of(drawn), drawn, strict=True)]


@pytest.fixture(scope="module")
def attribution(birds):
    return co.CondAttribution(birds)


def visualization(attribution, dataset, path, layers=LAYERS, **options):
    notion = co.ChannelConcept()
    return co.FeatureVisualization(
        attribution, dataset, dict.fromkeys(layers, notion), path=path, **{"samples": KEPT, **options}
    )


@pytest.fixture(scope="module")
def found(attribution, dataset, tmp_path_factory):
    whole = visualization(attribution, dataset, tmp_path_factory.mktemp("references"))
    whole.run("epsilon_plus", batch_size=8)
    return whole


@pytest.fixture(scope="module")
def singly(attribution, birds, dataset):
    """Relevances and activations of every sample by itself: {layer: (relevances, activations)}."""
    each = [
        attribution(birds.preprocess(picture), [{"y": [label]}], "epsilon_plus", LAYERS, init_rel=1.0)
        for picture, label in dataset
    ]
    return {
        layer: [np.concatenate([getattr(one, kind)[layer] for one in each]) for kind in ("relevances", "activations")]
        for layer in LAYERS
    }


def values_of(maps, max_target, abs_norm):
    flat = maps.reshape(*maps.shape[:2], -1)
    values = flat.sum(-1) if max_target == "sum" else flat.max(-1)
    return values / np.abs(values).sum(axis=1, keepdims=True) if abs_norm else values


def assert_best(best, maps, max_target="sum", abs_norm=True, rows=None):
    """Values are the best of the loop's, and each is that of its sample, at a position where it is largest."""
    rows = np.arange(len(maps)) if rows is None else rows
    values = values_of(maps, max_target, abs_norm)
    scale = np.abs(values).max()
    for concept in range(maps.shape[1]):
        expected = np.sort(values[rows, concept])[::-1][:KEPT]
        data, rel, positions = best.of_concept(concept, 0, KEPT)
        assert len(set(data)) == len(data) and set(data) <= set(rows)
        np.testing.assert_allclose(rel, expected, atol=1e-5 * scale)
        np.testing.assert_allclose(rel, values[data, concept], atol=1e-5 * scale)
        there = maps.reshape(*maps.shape[:2], -1)[data, concept]
        at = there[np.arange(len(data)), positions]
        np.testing.assert_allclose(at, there.max(axis=1), atol=1e-5 * np.abs(maps).max())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("mode", ["relevance", "activation"])
def test_the_best_are_those_of_a_loop(found, singly, layer, mode):
    assert_best(found.best(layer, mode), singly[layer][mode == "activation"])


def test_two_thousand_samples(attribution, birds, tmp_path):
    drawn = draw_many(2000, seed=77)
    dataset = [(picture, bird.label) for picture, bird in zip(pictures_of(drawn), drawn, strict=True)]
    whole = visualization(attribution, dataset, tmp_path, ["features.8"], samples=40)
    whole.run("epsilon_plus_flat")
    each = [
        attribution(birds.preprocess(picture), [{"y": [label]}], "epsilon_plus_flat", ["features.8"], init_rel=1.0)
        for picture, label in dataset
    ]
    for mode, kind in (("relevance", "relevances"), ("activation", "activations")):
        values = values_of(np.concatenate([getattr(one, kind)["features.8"] for one in each]), "sum", True)
        best, order = whole.best("features.8", mode), np.argsort(-values, axis=0, kind="stable")[:40]
        expected = np.take_along_axis(values, order, axis=0)
        np.testing.assert_allclose(best.rel, expected, atol=1e-6)
        # Sums may come in another order in a batch: samples whose values are that near may change places.
        assert (best.data == order).mean() > 0.99


@pytest.mark.parametrize(("max_target", "abs_norm"), [("max", True), ("sum", False), ("max", False)])
def test_what_counts(attribution, dataset, singly, tmp_path, max_target, abs_norm):
    one = visualization(attribution, dataset, tmp_path, max_target=max_target, abs_norm=abs_norm)
    one.run("epsilon_plus")
    assert_best(one.best("features.9"), singly["features.9"][0], max_target, abs_norm)


def test_statistics_are_those_of_each_class(found, singly, dataset):
    labels = np.array([label for _, label in dataset])
    values = values_of(singly["features.9"][0], "sum", True)
    for concept in (0, 30, 51):
        targets, means = found.compute_stats(concept, "features.9", top_N=3, mean_N=4)
        expected = {target: np.sort(values[labels == target, concept])[::-1][:4].mean() for target in np.unique(labels)}
        assert len(targets) == 3
        np.testing.assert_allclose(means, sorted(expected.values())[::-1][:3], atol=1e-6)
        np.testing.assert_allclose(means, [expected[target] for target in targets], atol=1e-6)
    statistics = found._findings().statistics["relevance"].best["features.9", 2]
    assert_best(statistics, singly["features.9"][0], rows=np.flatnonzero(labels == 2))
    _, normed = found.compute_stats(0, "features.9", norm=True)
    assert np.abs(normed).max() == pytest.approx(1)


class Interrupted(Exception):
    """Raised in the middle of a run."""


def interrupt(after):
    def progress(done, total):
        if done >= after:
            raise Interrupted

    return progress


def arrays(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name != "about"}


def assert_same_file(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize("after", [8, 24, 40])
def test_interrupted_and_resumed_is_uninterrupted(attribution, dataset, found, tmp_path, after):
    part = visualization(attribution, dataset, tmp_path)
    with pytest.raises(Interrupted):
        part.run("epsilon_plus", batch_size=8, checkpoint=16, progress=interrupt(after))
    again = visualization(attribution, dataset, tmp_path)
    seen = []
    again.run("epsilon_plus", batch_size=8, checkpoint=16, progress=lambda done, total: seen.append(done))
    assert seen[0] == after // 16 * 16 + 8  # from the last checkpoint on
    assert_same_file(tmp_path / COLLECTED, found.path / COLLECTED)


def test_parts_are_the_whole(attribution, dataset, found, tmp_path):
    for start, end in ((32, 50), (0, 16), (16, 32)):
        visualization(attribution, dataset, tmp_path).run_distributed("epsilon_plus", start, end, batch_size=8)
    visualization(attribution, dataset, tmp_path).collect_results()
    assert_same_file(tmp_path / COLLECTED, found.path / COLLECTED)


def test_a_run_sees_what_parts_have_not_seen(attribution, dataset, found, tmp_path):
    one = visualization(attribution, dataset, tmp_path)
    one.run_distributed("epsilon_plus", 8, 24, batch_size=8)
    with pytest.raises(Interrupted):
        one.run_distributed("epsilon_plus", 32, 48, 8, checkpoint=8, progress=interrupt(8))
    told = []
    one.run("epsilon_plus", batch_size=8, progress=lambda done, total: told.append((done, total)))
    assert told == [(8, 50), (32, 50), (48, 50), (50, 50)]
    assert_same_file(tmp_path / COLLECTED, found.path / COLLECTED)


def test_files_hold_what_zennit_crps_do(found):
    held = arrays(found.path / COLLECTED)
    for kind, dtype in (("data", np.int64), ("rel", np.float32), ("rf", np.int64)):
        array = held[f"relevance/features.9_{kind}"]
        assert array.shape == (KEPT, 64) and array.dtype == dtype


def test_a_folder_of_something_else_is_refused(attribution, dataset, found, tmp_path):
    shutil.copytree(found.path, tmp_path / "copy")

    def other(**options):
        options = {"dataset": dataset, "path": tmp_path / "copy", **options}
        return visualization(attribution, **options)

    for message, one in (
        ("another data set", other(dataset=[(255 - picture, label) for picture, label in dataset])),
        ("another data set", other(dataset=[(picture, 0) for picture, _ in dataset])),
        ("another data set", other(dataset=dataset[:20])),
        ("another setting", other(max_target="max")),
        ("another choice of layers", other(layers=["features.9"])),
    ):
        with pytest.raises(co.InputError, match=message):
            one.best("features.9")
    with pytest.raises(co.InputError, match="another composite"):
        other().run("epsilon_plus_flat")
    control = co.load(_control_model())
    with pytest.raises(co.InputError, match="another model"):
        visualization(co.CondAttribution(control), dataset, tmp_path / "copy").best("features.9")


def _control_model():
    from craft_onnx_models.birds import model_path

    return model_path("control")


def test_parts_that_do_not_fit_together(attribution, dataset, tmp_path):
    one = visualization(attribution, dataset, tmp_path)
    with pytest.raises(co.InputError, match="holds no references"):
        one.collect_results()
    with pytest.raises(co.InputError, match="holds no references"):
        one.best("features.9")
    with pytest.raises(Interrupted):
        one.run_distributed("epsilon_plus", 0, 32, 8, checkpoint=8, progress=interrupt(16))
    with pytest.raises(co.InputError, match="done up to sample 16 of 32"):
        one.collect_results()
    one.run_distributed("epsilon_plus", 0, 32, 8)
    one.run_distributed("epsilon_plus", 24, 40, 8)
    with pytest.raises(co.InputError, match="both have sample 24"):
        one.collect_results()


def test_a_broken_file(found, attribution, dataset, tmp_path):
    (tmp_path / COLLECTED).write_bytes((found.path / COLLECTED).read_bytes()[:1000])
    with pytest.raises(co.InputError, match="cannot be read as references"):
        visualization(attribution, dataset, tmp_path).best("features.9")


def test_about_says_what_it_belongs_to(found, birds):
    with np.load(found.path / COLLECTED) as archive:
        about = json.loads(str(archive["about"]))
    assert about["belongs"]["model"].startswith(birds.manifest.files["model.onnx"])
    assert about["belongs"]["layers"] == dict.fromkeys(LAYERS, "ChannelConcept")
    assert about["ranges"] == [[0, 50]]


def test_references_are_the_best_samples(found, dataset, birds):
    shown = found.get_max_reference([51, 0], "features.9", r_range=(1, 4))
    assert list(shown) == [51, 0] and len(shown[51]) == 3
    data, _, _ = found.best("features.9").of_concept(51, 1, 4)
    for picture, index in zip(shown[51], data, strict=True):
        assert np.abs(picture.astype(int) - dataset[index][0]).max() <= 1  # as the model sees them, back in uint8


@pytest.mark.parametrize("start", ["relevance", "activation"])
@pytest.mark.parametrize("rf", [False, True])
def test_heatmaps_of_references(found, attribution, birds, dataset, start, rf):
    pictures, heatmaps = found.get_max_reference(
        7, "features.9", r_range=(0, 3), composite="epsilon_plus", rf=rf, plot_fn=None, batch_size=2, start=start
    )[7]
    data, _, positions = found.best("features.9").of_concept(7, 0, 3)
    assert len(pictures) == 3
    for heatmap, index, position in zip(heatmaps, data, positions, strict=True):
        picture, label = dataset[index]
        x = birds.preprocess(picture)
        reaching = attribution(x, [{"y": [label]}], "epsilon_plus", ["features.9"], init_rel=1.0)
        kind = reaching.relevances if start == "relevance" else reaching.activations
        relevance = np.zeros_like(kind["features.9"])
        relevance[:, 7] = kind["features.9"][:, 7]
        if rf:
            there = np.zeros(relevance[0, 0].size)
            there[position] = 1
            relevance *= there.reshape(relevance[0, 0].shape).astype(np.float32)
        on = attribution(x, [{}], "epsilon_plus", start_layer="features.9", init_rel=relevance).heatmap[0]
        np.testing.assert_allclose(heatmap, on, rtol=1e-4, atol=1e-5 * np.abs(on).max())


def test_references_of_a_class(found, dataset):
    shown = found.get_stats_reference(0, "features.9", [1, 4], composite="epsilon_plus", plot_fn=None, r_range=(0, 4))
    assert list(shown) == [1, 4]
    for target, (pictures, heatmaps) in shown.items():
        assert len(pictures) == len(heatmaps) == min(4, sum(label == target for _, label in dataset))
    with pytest.raises(co.InputError, match="No sample of class 9"):
        found.get_stats_reference(0, "features.9", 9)


def test_pictures_come_from_the_cache(found, attribution, dataset, tmp_path, monkeypatch):
    cached = visualization(attribution, dataset, found.path, cache=co.ImageCache(tmp_path))
    cached.precompute_ref({"features.9": [7]}, "epsilon_plus", plot_list=[vis_opaque_img], r_range=(0, 3))
    monkeypatch.setattr(attribution, "generate", None)
    shown = cached.get_max_reference(
        7, "features.9", composite="epsilon_plus", rf=True, plot_fn=vis_opaque_img, r_range=(0, 3)
    )
    assert len(shown[7]) == 3
    with pytest.raises(TypeError):  # another concept is not there
        cached.get_max_reference(8, "features.9", composite="epsilon_plus", rf=True, plot_fn=vis_opaque_img)
    with pytest.raises(co.InputError, match="no cache"):
        found.precompute_ref({"features.9": [7]}, "epsilon_plus")


def test_samples_of_several_classes_and_of_none(attribution, dataset, birds, tmp_path):
    several = [(picture, [label, (label + 1) % 8]) for picture, label in dataset[:6]]
    one = visualization(attribution, several, tmp_path / "several")
    one.run("epsilon_plus")
    twice = [(picture, target) for picture, targets in several for target in targets]
    other = visualization(attribution, twice, tmp_path / "twice")
    other.run("epsilon_plus")
    np.testing.assert_allclose(one.best("features.9").rel, other.best("features.9").rel, atol=1e-6)
    none = visualization(attribution, [picture for picture, _ in dataset[:6]], tmp_path / "none")
    none.run("epsilon_plus")
    predicted = birds.predict(birds.preprocess([picture for picture, _ in dataset[:6]])).argmax(axis=1)
    given = [(picture, int(label)) for (picture, _), label in zip(dataset[:6], predicted, strict=True)]
    same = visualization(attribution, given, tmp_path / "same")
    same.run("epsilon_plus")
    assert_same_file(none.path / COLLECTED, same.path / COLLECTED)


def test_preprocessed_samples_and_functions(attribution, dataset, birds, found, tmp_path):
    rows = [(birds.preprocess(picture)[0], label) for picture, label in dataset]
    given = visualization(attribution, rows, tmp_path / "rows")
    given.run("epsilon_plus", batch_size=8)
    assert_same_file(given.path / COLLECTED, found.path / COLLECTED)
    upside_down = [(picture[::-1], label) for picture, label in dataset]
    made = visualization(
        attribution, upside_down, tmp_path / "made", preprocess_fn=lambda picture: birds.preprocess(picture[::-1])[0]
    )
    made.run("epsilon_plus", batch_size=8)
    assert_same_file(made.path / COLLECTED, found.path / COLLECTED)


def test_a_folder_of_pictures_with_one_that_cannot_be_read(attribution, dataset, tmp_path):
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (picture, _) in enumerate(dataset[:5]):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    whole = bytearray((folder / "3.png").read_bytes())
    whole[200:400] = bytes(200)  # its header and its end are sound
    (folder / "3.png").write_bytes(whole)
    one = visualization(attribution, folder, tmp_path / "found")
    with pytest.warns(co.CraftWarning, match="Sample 3 is left out"):
        one.run("epsilon_plus")
    assert set(one.best("features.9").data[:, 0]) == {0, 1, 2, 4, -1}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda picture, label: (picture, "finch"), "no array of numbers"),
        (lambda picture, label: (picture, 99), "no class 99 among 8"),
        (lambda picture, label: (picture, label, 1), "has 3 parts"),
        (lambda picture, label: (np.zeros((3, 9, 9), np.float32), label), "have the shapes"),
    ],
)
def test_a_wrong_sample_is_an_error_and_not_left_out(attribution, dataset, tmp_path, spoil, message):
    with pytest.raises(co.InputError, match=message):
        visualization(attribution, [*dataset[:3], spoil(*dataset[3])], tmp_path).run("epsilon_plus")
    assert not list(tmp_path.iterdir())


class Unreadable(list):
    """Samples of which none can be read."""

    def __getitem__(self, index):
        raise co.InputError("It cannot be read.", "Give another.")


def test_none_that_can_be_read(attribution, tmp_path):
    one = visualization(attribution, Unreadable([0, 1]), tmp_path)
    with pytest.warns(co.CraftWarning, match=r"Sample \d is left out"):
        one.run("epsilon_plus")
    with pytest.raises(co.InputError, match="Not one of the 2 samples could be read"):
        one.best("features.9")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.get_max_reference(64, "features.9"), "no concept 64 among 64"),
        (lambda one: one.get_max_reference(0, "features.7"), "no references of layer 'features.7'"),
        (lambda one: one.get_max_reference(0, "features.9", mode="sum"), "no mode 'sum'"),
        (lambda one: one.get_max_reference(0, "features.9", r_range=(6, 8)), r"r_range \(6, 8\) is no range of the 6"),
        (lambda one: one.get_max_reference(0, "features.9", rf=True), "no rules are given"),
        (lambda one: one.get_max_reference(0, "features.9", composite="epsilon_plus", start="x"), "start from 'x'"),
        (lambda one: one.run("epsilon_plus", 50), "no samples from 50"),
    ],
)
def test_what_cannot_be_asked(found, call, message):
    with pytest.raises(co.InputError, match=message):
        call(found)


def test_what_it_cannot_be_made_of(attribution, dataset, tmp_path):
    with pytest.raises(co.InputError, match="no samples"):
        visualization(attribution, [], tmp_path)
    with pytest.raises(co.InputError, match=r"no tensor or layer 'features\.99'"):
        visualization(attribution, dataset, tmp_path, layers=["features.99"])
    for layers in ([], ["features.9"], {"features.9": 3}):
        with pytest.raises(co.InputError, match=r"what a concept is|3 is no Concept"):
            co.FeatureVisualization(attribution, dataset, layers, path=tmp_path)
    with pytest.raises(co.InputError, match="0 samples are to be kept"):
        visualization(attribution, dataset, tmp_path, samples=0)
    with pytest.raises(co.InputError, match="batch_size 0"):
        visualization(attribution, dataset, tmp_path).run("epsilon_plus", batch_size=0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(co.InputError, match="no max_target 'mean'"):
        visualization(attribution, dataset, tmp_path, max_target="mean")
