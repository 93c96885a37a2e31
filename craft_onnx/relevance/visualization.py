"""Feature visualisation: what each concept of a model stands for, by the samples of a data set that speak for it.

Achtibat et al. 2023, sections "Relevance Maximization" and "Reference samples".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.attribution.model import Progress
from craft_onnx.attribution.targets import check_range
from craft_onnx.errors import InputError
from craft_onnx.graph.reverse.relevance.description import describe
from craft_onnx.graph.reverse.relevance.files import composite_of
from craft_onnx.graph.reverse.rules import Rules
from craft_onnx.relevance.attribution import CondAttribution
from craft_onnx.relevance.best import Best
from craft_onnx.relevance.cache import ImageCache
from craft_onnx.relevance.concepts import Concept, MaxTarget, as_concept, numbers
from craft_onnx.relevance.maximization import MODES, SAMPLES, Mode
from craft_onnx.relevance.references import Look, PlotFunction, Portrait, Ranked, Start
from craft_onnx.relevance.samples import Batch, Samples
from craft_onnx.relevance.store import COLLECTED, Belongs, Findings, Stored, collect, part_path, ranges_to_see, read
from craft_onnx.runtime.batches import BATCH_SIZE, check_batch_size
from craft_onnx.show.references import vis_img_heatmap

Array = NDArray[Any]


class FeatureVisualization:
    """Finds and shows the samples of a data set that speak for each concept of each layer.

    What is found lies in a folder, part by part: a run that was interrupted goes on where it was, and parts of the
    data set may be run by different processes.

    Parameters
    ----------
    attribution : CondAttribution
        Of the model.
    dataset : path or sequence
        See `craft_onnx.relevance.samples.Samples`: pictures, or samples with their classes.
    layer_map : mapping of str to Concept
        The layers, and what counts as a concept of each.
    preprocess_fn : callable, optional
        From what the data set holds to preprocessed input (without a batch axis); by default pictures are
        preprocessed as the model's bundle says.
    max_target : "sum" or "max"
        What of a concept counts: over all positions, or at the best one.
    abs_norm : bool
        Divide, in each sample, by the sum of absolute values over the concepts of the layer.
    path : path
        Folder of what is found.
    cache : ImageCache, optional
        Keeps the pictures of references.
    samples : int
        Best samples that are kept of each concept.

    Raises
    ------
    InputError
        If the data set is empty, or a layer is not there.
    """

    def __init__(
        self,
        attribution: CondAttribution,
        dataset: Any,
        layer_map: Mapping[str, Concept],
        preprocess_fn: Callable[[Any], Any] | None = None,
        max_target: MaxTarget = "sum",
        abs_norm: bool = True,
        path: str | Path = "FeatureVisualization",
        cache: ImageCache | None = None,
        *,
        samples: int = SAMPLES,
    ) -> None:
        self.attribution = attribution
        self.samples = Samples(dataset, attribution.model, preprocess_fn)
        if not isinstance(layer_map, Mapping) or not layer_map:
            raise InputError(f"{layer_map!r} says of no layer what a concept is.", "Give {layer: ChannelConcept()}.")
        self.layer_map = {attribution.layers[name].name: as_concept(one) for name, one in layer_map.items()}
        self.settings: dict[str, Any] = {"max_target": max_target, "abs_norm": abs_norm, "samples": samples}
        self.path = Path(path)
        self.cache = cache
        self._found: tuple[int, Stored] | None = None
        Findings(self.settings)  # says what is wrong with the settings before any work is done

    def run(
        self,
        composite: str | Rules,
        data_start: int = 0,
        data_end: int | None = None,
        batch_size: int = BATCH_SIZE,
        checkpoint: int = 500,
        progress: Progress | None = None,
    ) -> Path:
        """Find the best samples of every concept, in one pass over the data set for all layers.

        What parts in the folder have seen already is not looked at again; one that was interrupted goes on.

        Parameters
        ----------
        composite : str or Rules
            The rules of relevance.
        data_start, data_end : int
            First sample, and the one behind the last; all by default.
        batch_size : int
            Samples in one run.
        checkpoint : int
            Samples after which what is found so far is written.
        progress : callable, optional
            Told (done, total) after every batch.

        Returns
        -------
        Path
            The file with all that is found in the folder.

        Raises
        ------
        InputError
            If there are no such samples, or the folder holds findings of another model, data set or settings.
        """
        start, end = self._range(data_start, data_end)
        for first, last in ranges_to_see(self.path, start, end):
            told = progress and _shifted(progress, first - start, end - start)
            self.run_distributed(composite, first, last, batch_size, checkpoint, told)
        return self.collect_results()

    def run_distributed(
        self,
        composite: str | Rules,
        data_start: int = 0,
        data_end: int | None = None,
        batch_size: int = BATCH_SIZE,
        checkpoint: int = 500,
        progress: Progress | None = None,
    ) -> Path:
        """Find the best samples of a range, as one part of several; parameters and errors are those of `run`."""
        check_batch_size(batch_size)
        start, end = self._range(data_start, data_end)
        rules = composite_of(composite)
        belongs, path = self._belongs(rules), part_path(self.path, start, end)
        findings, done = Findings(self.settings), start
        if path.exists():
            stored = read(path, belongs)
            findings, done = stored.findings, stored.done
        unsaved = 0
        for first in range(done, end, batch_size):
            last = min(first + batch_size, end)
            self._take(findings, self.samples.read(range(first, last)), rules, batch_size)
            unsaved += last - first
            if unsaved >= checkpoint or last == end:
                findings.save(path, belongs, [[start, end]], last)
                unsaved = 0
            if progress:
                progress(last - start, end - start)
        return path

    def collect_results(self) -> Path:
        """Merge the parts in the folder; InputError where one is not done, two overlap, or one is of something else."""
        return collect(self.path, self._belongs())

    def best(self, layer_name: str, mode: Mode = "relevance") -> Best:
        """The best samples of every concept of a layer; InputError before `run`, or if there is no such layer."""
        if mode not in MODES:
            raise InputError(f"There is no mode {mode!r}.", f"Take one of {', '.join(MODES)}.")
        self._concept(layer_name)
        best = self._findings().maximization[mode].best
        if layer_name not in best:
            raise InputError(f"Not one of the {len(self.samples)} samples could be read.", "Give some that can.")
        return best[layer_name]

    @property
    def seen(self) -> int:
        """How many samples were looked at; InputError before `run`."""
        return sum(last - first for first, last in self._stored().ranges)

    def get_max_reference(
        self,
        concept_ids: int | Sequence[int] | Array,
        layer_name: str,
        mode: Mode = "relevance",
        r_range: tuple[int, int] = (0, 8),
        composite: str | Rules | None = None,
        rf: bool = False,
        plot_fn: PlotFunction | None = vis_img_heatmap,
        batch_size: int = BATCH_SIZE,
        start: Start = "relevance",
    ) -> dict[int, Any]:
        """The samples that speak most for some concepts, as pictures.

        Parameters
        ----------
        concept_ids : int or sequence of int
            The concepts.
        layer_name : str
            Their layer.
        mode : "relevance" or "activation"
            RelMax or ActMax.
        r_range : (int, int)
            First rank, and the one behind the last.
        composite : str or Rules, optional
            The rules of the heatmaps; without, there are none.
        rf : bool
            Look at the position alone where the concept is largest, and crop to what it sees.
        plot_fn : callable, optional
            `vis_img_heatmap`, `vis_opaque_img` or one of your own, called as plot_fn(pictures, heatmaps, rf); None
            gives pictures and heatmaps as they are.
        batch_size : int
            Samples in one run.
        start : "relevance" or "activation"
            Whether heatmaps show the relevance of the class that goes through the concept, or what activates it.

        Returns
        -------
        dict of int to list
            By concept, in the order asked for: pictures (H, W, 3) uint8 RGB, or what `plot_fn` makes of them.

        Raises
        ------
        InputError
            If there is no such concept, layer or rank, or `rf` is asked for without a composite; or before `run`.
        """
        best = self.best(layer_name, mode)
        look = Look(r_range, _rules(composite), rf, plot_fn, batch_size, start)
        ranks = {concept: self._ranked(best, concept, look) for concept in self._chosen(concept_ids, best)}
        return self._portrait(layer_name).shown(ranks, f"max_{mode}", look)

    def get_stats_reference(
        self,
        concept_id: int,
        layer_name: str,
        targets: int | Sequence[int] | Array,
        mode: Mode = "relevance",
        r_range: tuple[int, int] = (0, 8),
        composite: str | Rules | None = None,
        rf: bool = False,
        plot_fn: PlotFunction | None = vis_img_heatmap,
        batch_size: int = BATCH_SIZE,
        start: Start = "relevance",
    ) -> dict[int, Any]:
        """The samples of some classes that speak most for a concept; otherwise as `get_max_reference`.

        Returns
        -------
        dict of int to list
            By class.
        """
        self._chosen(concept_id, self.best(layer_name, mode))
        look, found = Look(r_range, _rules(composite), rf, plot_fn, batch_size, start), {}
        for target in map(int, np.atleast_1d(np.asarray(targets))):
            ranks = {concept_id: self._ranked(self._of_class(layer_name, mode, target), concept_id, look)}
            shown = self._portrait(layer_name).shown(ranks, f"stats_{mode}", replace(look, target=target))
            found[target] = shown[concept_id]
        return found

    def compute_stats(
        self,
        concept_id: int,
        layer_name: str,
        mode: Mode = "relevance",
        top_N: int = 5,
        mean_N: int = 10,
        norm: bool = False,
    ) -> tuple[Array, Array]:
        """The classes that a concept speaks for.

        Parameters
        ----------
        concept_id, layer_name, mode
            The concept.
        top_N : int
            Classes to give.
        mean_N : int
            Best samples of each class over which the mean is taken.
        norm : bool
            Divide by the largest absolute mean of any class.

        Returns
        -------
        targets : int array (top_N,) or shorter
            Classes, those with the largest means first.
        means : array
            Their means.
        """
        self._chosen(concept_id, self.best(layer_name, mode))
        means = self._findings().statistics[mode].means(layer_name, concept_id, mean_N)
        targets, values = np.array(list(means), np.intp), np.array(list(means.values()))
        order = np.argsort(-values, kind="stable")[:top_N]
        scale = np.abs(values).max() if norm and np.abs(values).max() > 0 else 1.0
        return targets[order], values[order] / scale

    def precompute_ref(
        self,
        layer_c_ind: Mapping[str, Sequence[int]],
        composite: str | Rules,
        rf: bool = True,
        plot_list: Sequence[PlotFunction] = (vis_img_heatmap,),
        mode: Mode = "relevance",
        r_range: tuple[int, int] = (0, 8),
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Put the references of some concepts of some layers into the cache; InputError where there is none."""
        if self.cache is None:
            raise InputError("There is no cache to put references into.", "Give cache=ImageCache(path).")
        for layer_name, concept_ids in layer_c_ind.items():
            for plot_fn in plot_list:
                self.get_max_reference(concept_ids, layer_name, mode, r_range, composite, rf, plot_fn, batch_size)

    def _range(self, start: int, end: int | None) -> tuple[int, int]:
        total = len(self.samples)
        last = total if end is None else min(end, total)
        if not 0 <= start < last:
            raise InputError(f"There are no samples from {start} to {end} among {total}.", "Give 0 <= start < end.")
        return start, last

    def _belongs(self, rules: Rules | None = None) -> Belongs:
        files = self.attribution.model.manifest.files
        model = "+".join(files[name] for name in ("model.onnx", "weights.bin") if name in files)
        layers = {layer: concept.describe() for layer, concept in self.layer_map.items()}
        composite = None if rules is None else describe(rules)
        return Belongs(model, self.samples.fingerprint, len(self.samples), composite, layers, self.settings)

    def _take(self, findings: Findings, batch: Batch | None, rules: Rules, batch_size: int) -> None:
        """Take in what a batch shows of every layer."""
        if batch is None:
            return
        batch = batch.expanded()
        found = self.attribution(
            batch.x, [{}] * len(batch.x), rules, list(self.layer_map), init_rel=batch.start, batch_size=batch_size
        )
        targets = batch.start(found.prediction).argmax(axis=1)
        for layer, concept in self.layer_map.items():
            for mode in MODES:
                values, positions = findings.maximization[mode].analyze(layer, concept, found, batch.indices)
                findings.statistics[mode].analyze(layer, values, positions, batch.indices, targets)

    def _stored(self) -> Stored:
        """What lies in the folder, read again when the file has changed."""
        path = self.path / COLLECTED
        if not path.is_file():
            raise InputError(f"{self.path} holds no references.", "Find some with run(composite).")
        changed = path.stat().st_mtime_ns
        if self._found is None or self._found[0] != changed:
            self._found = changed, read(path, self._belongs())
        return self._found[1]

    def _findings(self) -> Findings:
        return self._stored().findings

    def _of_class(self, layer_name: str, mode: Mode, target: int) -> Best:
        statistics = self._findings().statistics[mode]
        if target not in statistics.targets(layer_name):
            known = ", ".join(map(str, statistics.targets(layer_name)))
            raise InputError(f"No sample of class {target} was seen.", f"Take some of {known}.")
        return statistics.best[layer_name, target]

    def _concept(self, layer_name: str) -> Concept:
        if layer_name not in self.layer_map:
            raise InputError(f"There are no references of layer {layer_name!r}.", f"Take {', '.join(self.layer_map)}.")
        return self.layer_map[layer_name]

    def _chosen(self, concept_ids: int | Sequence[int] | Array, best: Best) -> list[int]:
        chosen = numbers(np.atleast_1d(np.asarray(concept_ids)))  # type: ignore[arg-type]  # arrays are sequences
        check_range(chosen, best.data.shape[1], "concept")
        return [int(concept) for concept in chosen]

    def _ranked(self, best: Best, concept: int, look: Look) -> Ranked:
        """A concept's samples at the ranks asked for; InputError where there are none."""
        ranked = best.of_concept(concept, *look.r_range)
        if not len(ranked[0]):
            kept = len(best.of_concept(concept, 0, len(best.data))[0])
            raise InputError(f"r_range {look.r_range} is no range of the {kept} best samples.", "Give such as (0, 8).")
        return ranked

    def _portrait(self, layer_name: str) -> Portrait:
        belongs = self._belongs()
        origin = f"{belongs.model} {belongs.data}"
        return Portrait(self.attribution, self.samples, layer_name, self._concept(layer_name), self.cache, origin)


def _rules(composite: str | Rules | None) -> Rules | None:
    return None if composite is None else composite_of(composite)


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Progress of a part as that of the whole."""
    return lambda done, _: progress(min(before + done, total), total)
