"""Concept activation vectors of one's own examples, and how a class responds to them (Kim et al., ICML 2018).

A CAV is the normal of a hyperplane that separates the activations of examples of a concept from those of other
pictures. TCAV is the share of a class's pictures whose logit rises along it: S(x) = grad h_class(g(x)) . v > 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft_onnx.concepts.directions import derivatives
from craft_onnx.concepts.halves import Halves, as_images, batches_of, find_halves
from craft_onnx.errors import InputError
from craft_onnx.extras import require
from craft_onnx.runtime.batches import BATCH_SIZE

Floats = NDArray[np.floating]
Array = NDArray[np.float64]
SIGNIFICANT = 0.05


class Cav:
    """A concept activation vector: the direction that tells examples of a concept from other pictures.

    Parameters
    ----------
    model : SplitModel, Bundle, path or callable
        A model cut at the layer to look at, or g as a function of arrays.
    classifier : "logistic", "sgd", "svc", or an estimator
        Linear: scikit-learn's LogisticRegression, SGDClassifier (as Kim et al. have it) or LinearSVC, on activations
        scaled by their root mean square; or anything with `fit`, `score` and `coef_`.
    test_fraction : float
        Share of the examples that are held out to measure the accuracy.
    batch_size : int
        Images in one run.
    pooled : bool
        Take the mean over positions, so that the vector is one of channels as those of a concept bank are. Otherwise
        activations are flattened, as by Kim et al.
    random_state : int
        Seed of the split and of the classifier.

    Attributes
    ----------
    vector_ : array (p,), or the shape of the activations of one image, channels last
        Of unit length; it points towards the examples.
    accuracy_ : float
        On the held-out examples; near 0.5 there is no such direction.
    """

    vector_: Array
    accuracy_: float

    def __init__(
        self,
        model: Any,
        classifier: Any = "logistic",
        test_fraction: float = 0.2,
        batch_size: int = BATCH_SIZE,
        *,
        pooled: bool = True,
        random_state: int = 0,
    ) -> None:
        self.model = model
        self.classifier = classifier
        self.test_fraction = test_fraction
        self.batch_size = batch_size
        self.pooled = pooled
        self.random_state = random_state

    def __call__(self, positives: Any, negatives: Any) -> Array:
        """`fit`, as Xplique has it."""
        return self.fit(positives, negatives)

    def fit(self, positives: Any, negatives: Any) -> Array:
        """Find the vector.

        Parameters
        ----------
        positives, negatives : array (n, ...) or sequence of images
            Preprocessed examples of the concept, and others.

        Returns
        -------
        array
            `vector_`.

        Raises
        ------
        InputError
            If there are fewer than two examples of either kind, or they are not told apart at all.
        """
        halves = find_halves(self.model)
        found, others = (features(halves, images, self.batch_size, self.pooled) for images in (positives, negatives))
        self.vector_, self.accuracy_ = separate(found, others, self.classifier, self.test_fraction, self.random_state)
        return self.vector_


def features(halves: Halves, images: Any, batch_size: int = BATCH_SIZE, pooled: bool = True) -> Floats:
    """Activations (n, ..., p) of images, channels last; their mean over positions (n, p) where pooled."""
    images = as_images(images)
    layout = halves.layout_of(images)
    parts = halves.activations(batches_of(images, batch_size), layout)
    return np.concatenate([a.mean(axis=tuple(range(1, a.ndim - 1))) if pooled else a for a in parts])


def separate(
    positives: Floats, negatives: Floats, classifier: Any = "logistic", test_fraction: float = 0.2, seed: int = 0
) -> tuple[Array, float]:
    """The unit normal of the hyperplane between two sets of activations, and its accuracy on held-out ones.

    Parameters
    ----------
    positives, negatives : array (n, ...)
        Activations.
    classifier : str or estimator
        As in `Cav`.
    test_fraction : float
        Share that is held out, of both.
    seed : int
        Of the split and of the classifier.

    Returns
    -------
    (array (...), float)
        The vector points towards the positives.

    Raises
    ------
    InputError
        As in `Cav.fit`.
    """
    _check_examples(positives, negatives)
    x = np.concatenate([positives, negatives]).reshape(len(positives) + len(negatives), -1).astype(np.float64)
    y = np.repeat([1, 0], [len(positives), len(negatives)])
    scale = np.sqrt(np.square(x).mean()) or 1.0
    split = require("sklearn.model_selection", "build").train_test_split
    train, test, y_train, y_test = split(x / scale, y, test_size=test_fraction, stratify=y, random_state=seed)
    made = _classifier(classifier, seed).fit(train, y_train)
    normal = np.asarray(made.coef_, np.float64).reshape(positives.shape[1:])
    length = np.linalg.norm(normal)
    if not length > 0:
        raise InputError("The examples are not told apart by their activations.", "Give other examples.")
    return normal / length, float(made.score(test, y_test))


def _check_examples(positives: Floats, negatives: Floats) -> None:
    fewest = min(len(positives), len(negatives))
    if fewest < 2:
        raise InputError(f"There are {fewest} examples of one kind.", "Give two or more of each; 30 or more are usual.")
    if positives.shape[1:] != negatives.shape[1:]:
        raise InputError(
            f"Examples have activations {positives.shape[1:]} and {negatives.shape[1:]}.", "Give images of one size."
        )


def _classifier(name: Any, seed: int) -> Any:
    if not isinstance(name, str):
        return require("sklearn.base", "build").clone(name)
    linear = require("sklearn.linear_model", "build")
    made: dict[str, Callable[[], Any]] = {
        "logistic": lambda: linear.LogisticRegression(max_iter=1000),
        "sgd": lambda: linear.SGDClassifier(alpha=0.01, random_state=seed),
        "svc": lambda: require("sklearn.svm", "build").LinearSVC(random_state=seed),
    }
    if name not in made:
        raise InputError(f"There is no classifier {name!r}.", f"Take one of {', '.join(made)}, or an estimator.")
    return made[name]()


@dataclass(frozen=True)
class TcavTest:
    """TCAV of a concept against that of random ones.

    Attributes
    ----------
    scores : (r,) array
        TCAV of CAVs against r sets of other pictures.
    random_scores : (r,) array
        TCAV of as many CAVs between two such sets.
    p_value : float
        Of Welch's two-sided t-test that their means are equal; 1 where all scores are the same.
    accuracies : (r,) array
        Of the concept's CAVs.
    """

    scores: Array
    random_scores: Array
    p_value: float
    accuracies: Array

    @property
    def score(self) -> float:
        """The mean of the scores."""
        return float(self.scores.mean())

    @property
    def significant(self) -> bool:
        """Whether the p-value is below 0.05; divide that by the number of concepts tested, if there are several."""
        return self.p_value < SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return {
            "score": self.score,
            "scores": self.scores.tolist(),
            "random_scores": self.random_scores.tolist(),
            "p_value": self.p_value,
            "accuracies": self.accuracies.tolist(),
        }


@dataclass(frozen=True)
class ConceptTcav:
    """TCAV of every direction of a concept bank.

    Attributes
    ----------
    scores : (k,) array
        Share of the images whose logit rises along the concept.
    derivatives : (n, k) array
        Of the logit along each concept, summed over the positions, at the activations of each image.
    """

    scores: Array
    derivatives: Array


class Tcav:
    """How a class responds to a concept: the share of pictures whose logit rises along a CAV.

    Parameters
    ----------
    model : SplitModel, Bundle or path
        A bundle with gradient graphs.
    batch_size : int
        Images in one run.
    """

    def __init__(self, model: Any, batch_size: int = BATCH_SIZE) -> None:
        self.model = model
        self.batch_size = batch_size

    def __call__(self, inputs: Any, class_id: int, cav: Any) -> float:
        """The TCAV score.

        Parameters
        ----------
        inputs : array (n, ...) or sequence of images
            Preprocessed pictures of the class.
        class_id : int
            The class.
        cav : Cav or array
            A fitted one, or a vector: (p,), or of the shape of the activations, channels last.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        InputError
            If the model has no gradient graphs or no such class, or the vector does not fit.
        """
        return float((self.derivatives(inputs, class_id, cav) > 0).mean())

    def derivatives(self, inputs: Any, class_id: int, cav: Any) -> Array:
        """Directional derivatives S (n,) of the logit along a CAV; arguments and errors are those of a call."""
        vector = np.asarray(getattr(cav, "vector_", cav), np.float64)
        return self._derivatives(inputs, class_id, vector[None])[:, 0]

    def test(
        self,
        inputs: Any,
        class_id: int,
        positives: Any,
        others: Sequence[Any],
        *,
        classifier: Any = "logistic",
        pooled: bool = True,
        random_state: int = 0,
    ) -> TcavTest:
        """Test the score of a concept against those of random concepts.

        Parameters
        ----------
        inputs, class_id
            As in a call.
        positives : array (n, ...) or sequence of images
            Examples of the concept.
        others : sequence of arrays or sequences of images
            Three or more sets of pictures that have nothing in common; the concept is told from each of them, and
            each of them from the next.
        classifier, pooled, random_state
            As in `Cav`.

        Returns
        -------
        TcavTest

        Raises
        ------
        InputError
            If there are fewer than three sets, or as in a call and in `Cav.fit`.
        """
        if len(others) < 3:
            raise InputError(
                f"{len(others)} sets of other pictures test nothing.", "Give three or more, ten if you can."
            )
        halves = find_halves(self.model)
        concept, *sets = [features(halves, images, self.batch_size, pooled) for images in (positives, *others)]
        found = [separate(concept, one, classifier, seed=random_state) for one in sets]
        random = [separate(one, sets[i - 1], classifier, seed=random_state)[0] for i, one in enumerate(sets)]
        vectors = np.stack([vector for vector, _ in found] + random)
        scores = (self._derivatives(inputs, class_id, vectors) > 0).mean(axis=0)
        own, null = scores[: len(sets)], scores[len(sets) :]
        return TcavTest(own, null, two_sided(own, null), np.array([accuracy for _, accuracy in found]))

    def _derivatives(self, inputs: Any, class_id: int, vectors: Array) -> Array:
        halves = find_halves(self.model)
        halves.check_class(class_id)
        images = as_images(inputs)
        layout = halves.layout_of(images)
        return derivatives(halves, batches_of(images, self.batch_size), class_id, layout, vectors)


def two_sided(scores: Array, others: Array) -> float:
    """Welch's two-sided t-test that two samples have the same mean: the p-value, also where neither varies."""
    if scores.std() == 0 and others.std() == 0:
        return 1.0 if scores[0] == others[0] else 0.0
    # From the moments: on scores that are all alike, ttest_ind warns of a loss of precision.
    sides = [value for x in (scores, others) for value in (x.mean(), x.std(ddof=1), len(x))]
    return float(require("scipy.stats", "build").ttest_ind_from_stats(*sides, equal_var=False).pvalue)
