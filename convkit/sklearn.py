"""Networks as scikit-learn's estimators: `CNNClassifier` and `CNNRegressor`.

They keep scikit-learn's rules, so they stand in a `Pipeline`, are tuned by `GridSearchCV` in
processes or threads, cloned, pickled and scored as any other estimator. Needs scikit-learn 1.6 or
newer, the extra `sklearn`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from convkit import geometry, layers, ops, optimizers, planner, random, utils
from convkit.callbacks import Callback, EarlyStopping
from convkit.models import Model, Sequential

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError(
        "convkit.sklearn needs scikit-learn 1.6 or newer: pip install 'convkit-nn[sklearn]'"
    ) from None

__all__ = ["CNNClassifier", "CNNRegressor"]

# What X is taken as; anything else becomes the first of them.
_DTYPES = (np.float64, np.float32, np.uint8)
_AUTO_BATCH = 200
_AT_ONCE = 256  # samples that are predicted at a time
_HIDDEN = 100
_FILTERS = (16, 32, 64)
_LEAST_POOLED = 8  # pixels of the shorter side

Builder = Callable[[tuple[int, ...], int], Model]


class _Network(BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor have in common."""

    model_: Model
    input_shape_: tuple[int, ...]
    history_: dict[str, list[float]]
    n_iter_: int

    def __init__(
        self,
        model: Builder | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        optimizer: Any = "adam",
        loss: Any = None,
        learning_rate: Any = None,
        epochs: int = 200,
        batch_size: int | str = "auto",
        tol: float = 1e-4,
        n_iter_no_change: int | None = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        device: str = "cpu",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.input_shape = input_shape
        self.optimizer = optimizer
        self.loss = loss
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True  # images
        return tags

    @property
    def _name(self) -> str:
        return type(self).__name__

    # ---- X ---------------------------------------------------------------------------------------

    def _sample_shape(self, X: Any, features: int) -> tuple[int, ...]:
        """The shape in which a network sees one of `X`, which were given so."""
        if self.input_shape is not None:
            shape = tuple(
                geometry.integer(self._name, "each size of input_shape", size, 1)
                for size in self.input_shape
            )
        else:
            shape = tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else (features,)
        if len(shape) == 2:
            shape = (*shape, 1)
        if np.prod(shape) != features:
            raise geometry.fail(self._name, f"samples of the shape {shape}", f"{features} features")
        return shape

    def _checked(self, X: Any) -> np.ndarray:
        """X to predict, (N, features)."""
        check_is_fitted(self)
        X = _with_shape(X)
        if X.ndim > 2 and tuple(X.shape[1:]) not in (self.input_shape_, self.input_shape_[:-1]):
            raise geometry.fail(
                self._name, f"samples of the shape {self.input_shape_}", tuple(X.shape[1:])
            )
        rows: np.ndarray = validate_data(self, _as_rows(X), reset=False, dtype=list(_DTYPES))
        return rows

    def _outputs(self, X: Any) -> np.ndarray:
        """What the network says of X: (N, outputs)."""
        rows = self._checked(X)
        if self.device != "cpu":  # from where a pickle came, perhaps
            self.model_.to(self.device)
        # Few samples would go through the network in another way, with other roundings: filled up,
        # what is predicted for a sample does not depend on how many others there are.
        least = planner.least_depth_first(self.model_.sample_bytes(), training=False)
        filled = rows
        if len(rows) < least:
            filled = np.zeros((least, rows.shape[1]), rows.dtype)
            filled[: len(rows)] = rows
        y = self.model_.predict(filled.reshape(len(filled), *self.input_shape_), _AT_ONCE)
        return np.asarray(y[: len(rows)])

    # ---- the network -----------------------------------------------------------------------------

    def _network(self, X: np.ndarray, shape: tuple[int, ...], outputs: int) -> Model:
        """A new one, compiled."""
        if self.model is None:
            model: Model = _default(X, shape, outputs, self._activation)
        elif callable(self.model):
            model = self.model(shape, outputs)
        else:
            raise TypeError(
                f"{self._name}: expected model to be None or a function of an input's shape and "
                f"the number of outputs, got {self.model!r}"
            )
        if not isinstance(model, Model):
            raise TypeError(f"{self._name}: expected model(...) to return a Model, got {model!r}")
        if not model.built:
            model.build((None, *shape))
        if model.input_shape != (None, *shape):
            raise geometry.fail(
                self._name, f"a model of inputs {(None, *shape)}", model.input_shape
            )
        self._check_outputs(model.output_shape, outputs)
        if model.optimizer is None:
            optimizer = self.optimizer
            if isinstance(optimizer, optimizers.Optimizer):  # the parameter stays as it is
                optimizer = copy.copy(optimizer)
            optimizer = optimizers.get(optimizer)
            if self.learning_rate is not None:
                optimizer.learning_rate = self.learning_rate
            loss = self._default_loss(model) if self.loss is None else self.loss
            model.compile(optimizer, loss, metrics=self._metrics)
        return model

    _activation: str | None = None
    _metrics: Sequence[str] = ()

    def _check_outputs(self, shape: Any, outputs: int) -> None:
        if shape != (None, outputs):
            raise geometry.fail(self._name, f"a model of outputs (None, {outputs})", shape)

    def _default_loss(self, model: Model) -> str:
        raise NotImplementedError

    def _targets(self, y: np.ndarray, model: Model) -> np.ndarray:
        """y as the model's loss takes it."""
        raise NotImplementedError

    # ---- training --------------------------------------------------------------------------------

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        shape: tuple[int, ...],
        outputs: int,
        sample_weight: Any,
        strata: np.ndarray | None,
    ) -> None:
        epochs = geometry.integer(self._name, "epochs", self.epochs, 1)
        weights = _checked_weights(self._name, sample_weight, len(X))
        if weights is not None and not weights.all():  # as if these were not there
            kept = weights > 0
            X, y, weights = X[kept], y[kept], weights[kept]
            strata = None if strata is None else strata[kept]
        if weights is not None:
            weights = weights / weights.mean()  # so that a loss is a mean, not more or less of one
        draw = check_random_state(self.random_state)
        parts = [X, y] if weights is None else [X, y, weights]
        held_out: list[np.ndarray] = []
        if self.early_stopping:
            parts, held_out = self._split(parts, draw, strata)
        go_on = self.warm_start and hasattr(self, "model_")
        # Threads that train at once, as in a search, have random numbers of their own.
        with random.seeded(int(draw.randint(np.iinfo(np.int32).max))):
            model = self.model_ if go_on else self._network(X, shape, outputs)

            def fed(arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
                images = arrays[0].reshape(len(arrays[0]), *shape)
                return (images, self._targets(arrays[1], model), *arrays[2:])

            data = fed(parts)
            history = model.fit(
                data[0],
                data[1],
                sample_weight=data[2] if len(data) > 2 else None,
                batch_size=self._batch_size(len(data[0])),
                epochs=epochs,
                verbose=int(self.verbose),
                callbacks=self._callbacks(),
                validation_data=fed(held_out) if held_out else None,
                device=self.device,
            )
        losses = history.history["loss"]
        if not np.isfinite(losses).all():
            raise ValueError(
                f"{self._name}: the loss is no number any more after {len(losses)} epochs; scale "
                "X, or take a smaller learning_rate"
            )
        self.model_ = model
        self.input_shape_ = shape
        self.history_ = history.history
        self.n_iter_ = len(losses)

    def _split(
        self, parts: list[np.ndarray], draw: Any, strata: np.ndarray | None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        split = train_test_split(
            *parts, test_size=self.validation_fraction, random_state=draw, stratify=strata
        )
        return split[::2], split[1::2]

    def _batch_size(self, samples: int) -> int:
        if self.batch_size == "auto":
            return min(_AUTO_BATCH, samples)
        return geometry.integer(self._name, "batch_size", self.batch_size, 1)

    def _callbacks(self) -> list[Callback]:
        if self.n_iter_no_change is None:
            return []
        return [
            EarlyStopping(
                "val_loss" if self.early_stopping else "loss",
                min_delta=self.tol,
                patience=geometry.integer(self._name, "n_iter_no_change", self.n_iter_no_change, 1),
                restore_best_weights=bool(self.early_stopping),
            )
        ]

    def _check_warm(self, shape: tuple[int, ...], same: bool) -> None:
        if (
            self.warm_start
            and hasattr(self, "model_")
            and not (shape == self.input_shape_ and same)
        ):
            raise ValueError(
                f"{self._name}: expected X and y of the shape and classes of the fit before, "
                "which warm_start goes on from"
            )


class CNNClassifier(ClassifierMixin, _Network):  # type: ignore[misc]
    """A classifier that is a network.

    X holds rows of features (N, features), or images (N, height, width) or (N, height, width,
    channels). The network ends with a softmax over the classes (or, for two, with one sigmoid); or
    without one, if its loss has `from_logits=True`.

    Args:
        model: a function of the shape of a sample, such as (28, 28, 1), and the number of outputs,
            that returns a new `Model`. If it is compiled, `optimizer`, `loss` and `learning_rate`
            are not used. None: a small network: of rows of features a layer of 100 units (in
            float64 where X is float64, as scikit-learn's own), of images up to three convolutions
            with pooling, after their brightness was brought to -1 .. 1 by that of all.
        input_shape: (height, width), or (height, width, channels), of images that X holds as rows;
            None: that of the samples of X.
        optimizer: a name or an optimizer, of which a new one is made for each fit.
        loss: a name or a loss; None: the cross-entropy.
        learning_rate: a number or a schedule; None: the optimizer's.
        epochs: how often the samples are gone through at most.
        batch_size: samples per update; "auto": 200, or all if there are fewer.
        tol, n_iter_no_change: training ends when the loss has not become better by `tol` for so
            many epochs; None: it does not.
        early_stopping: whether it is the loss of samples that are kept for validation which must
            become better; the weights are then those of the best epoch.
        validation_fraction: the share of samples that is kept.
        warm_start: whether another `fit` goes on from where the last one ended.
        device: "cpu" or "cuda", where it trains and predicts.
        random_state: a number, a `numpy.random.RandomState` or None, as everywhere in scikit-learn:
            of initial weights, orders and the samples that are kept.
        verbose: 0: nothing; 1: a bar; 2: a line for each epoch.

    Attributes, set by `fit`:
        model_: the trained `Model`.
        classes_: the classes, sorted.
        input_shape_: of a sample, as the network sees it.
        n_features_in_: how many numbers a sample has.
        feature_names_in_: names of the columns, where X has some.
        n_iter_: how many epochs there were.
        history_: {"loss": [...], ...}, a value for each of them.
    """

    _activation = "softmax"
    _metrics = ("accuracy",)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains.

        Args:
            X: rows or images.
            y: (N,), classes: numbers or strings.
            sample_weight: (N,), at least 0; the loss is the mean with these weights.

        Returns:
            The classifier itself.
        """
        X = _with_shape(X)
        rows, y = validate_data(self, _as_rows(X), y, dtype=list(_DTYPES))
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"{self._name}: expected y of at least 2 classes, got 1 class")
        shape = self._sample_shape(X, rows.shape[1])
        self._check_warm(shape, np.array_equal(classes, getattr(self, "classes_", ())))
        self.classes_ = classes
        self._train(rows, labels.astype(np.int32), shape, len(classes), sample_weight, labels)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, classes): how probable each class is, in the order of `classes_`."""
        y = self._outputs(X)
        logits = getattr(self.model_.objectives()[0].loss, "from_logits", False)
        if y.shape[1] == 1:
            y = ops.sigmoid(y) if logits else y
            return np.concatenate([1 - y, y], axis=1)
        return np.asarray(ops.softmax(y)) if logits else y

    def predict(self, X: Any) -> np.ndarray:
        """(N,): the most probable class of each."""
        probabilities = self.predict_proba(X)
        chosen: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return chosen

    def _check_outputs(self, shape: Any, outputs: int) -> None:
        if outputs != 2 or shape != (None, 1):
            super()._check_outputs(shape, outputs)

    def _default_loss(self, model: Model) -> str:
        if model.output_shape[1] == 1:
            return "binary_crossentropy"
        return "sparse_categorical_crossentropy"

    def _targets(self, y: np.ndarray, model: Model) -> np.ndarray:
        loss = model.objectives()[0].loss
        if (loss is not None and loss.sparse) or model.output_shape[1] == 1:
            return y
        return utils.to_categorical(y, model.output_shape[1])


class CNNRegressor(RegressorMixin, _Network):  # type: ignore[misc]
    """A regressor that is a network, of one target or of several.

    X holds rows of features (N, features), or images (N, height, width) or (N, height, width,
    channels). Features and targets of a size of about 1 train best: put a `StandardScaler` before
    it, and a `TransformedTargetRegressor` around it.

    Args:
        model: a function of the shape of a sample, such as (28, 28, 1), and the number of outputs,
            that returns a new `Model`. If it is compiled, `optimizer`, `loss` and `learning_rate`
            are not used. None: a small network: of rows of features a layer of 100 units (in
            float64 where X is float64, as scikit-learn's own), of images up to three convolutions
            with pooling, after their brightness was brought to -1 .. 1 by that of all.
        input_shape: (height, width), or (height, width, channels), of images that X holds as rows;
            None: that of the samples of X.
        optimizer: a name or an optimizer, of which a new one is made for each fit.
        loss: a name or a loss; None: the mean squared error.
        learning_rate: a number or a schedule; None: the optimizer's.
        epochs: how often the samples are gone through at most.
        batch_size: samples per update; "auto": 200, or all if there are fewer.
        tol, n_iter_no_change: training ends when the loss has not become better by `tol` for so
            many epochs; None: it does not.
        early_stopping: whether it is the loss of samples that are kept for validation which must
            become better; the weights are then those of the best epoch.
        validation_fraction: the share of samples that is kept.
        warm_start: whether another `fit` goes on from where the last one ended.
        device: "cpu" or "cuda", where it trains and predicts.
        random_state: a number, a `numpy.random.RandomState` or None, as everywhere in scikit-learn:
            of initial weights, orders and the samples that are kept.
        verbose: 0: nothing; 1: a bar; 2: a line for each epoch.

    Attributes, set by `fit`:
        model_: the trained `Model`.
        n_outputs_: how many targets there are.
        input_shape_: of a sample, as the network sees it.
        n_features_in_: how many numbers a sample has.
        feature_names_in_: names of the columns, where X has some.
        n_iter_: how many epochs there were.
        history_: {"loss": [...], ...}, a value for each of them.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains.

        Args:
            X: rows or images.
            y: (N,) or (N, targets).
            sample_weight: (N,), at least 0; the loss is the mean with these weights.

        Returns:
            The regressor itself.
        """
        X = _with_shape(X)
        rows, y = validate_data(
            self, _as_rows(X), y, dtype=list(_DTYPES), multi_output=True, y_numeric=True
        )
        targets = y.reshape(len(y), -1)
        shape = self._sample_shape(X, rows.shape[1])
        self._check_warm(shape, targets.shape[1] == getattr(self, "n_outputs_", None))
        self.n_outputs_ = targets.shape[1]
        self._targets_ndim = y.ndim
        self._train(rows, targets, shape, self.n_outputs_, sample_weight, None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) or (N, targets), as y was."""
        y = self._outputs(X)
        return y if self._targets_ndim == 2 else y[:, 0]

    def _default_loss(self, model: Model) -> str:
        return "mean_squared_error"

    def _targets(self, y: np.ndarray, model: Model) -> np.ndarray:
        return y


def _with_shape(X: Any) -> Any:
    """X as something that has a shape: lists as arrays."""
    return X if hasattr(X, "ndim") else np.asarray(X)


def _as_rows(X: Any) -> Any:
    """Images as rows of numbers; rows as they are."""
    if X.ndim <= 2:
        return X
    return np.asarray(X).reshape(len(X), -1)


def _checked_weights(op: str, sample_weight: Any, samples: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (samples,):
        raise geometry.fail(op, f"sample_weight of shape ({samples},)", weights.shape)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(
            f"{op}: expected sample_weight of finite numbers of at least 0, not all of them zero"
        )
    return weights


def _default(
    X: np.ndarray, shape: tuple[int, ...], outputs: int, activation: str | None
) -> Sequential:
    """A network for samples of this shape, of which X are all."""
    if len(shape) != 3:
        dtype = "float64" if X.dtype == np.float64 else "float32"
        return Sequential(
            [
                layers.Input(shape, dtype=dtype),
                *([layers.Flatten(dtype=dtype)] if len(shape) > 1 else []),
                layers.Dense(_HIDDEN, activation="relu", dtype=dtype),
                layers.Dense(outputs, activation=activation, dtype=dtype),
            ]
        )
    low, high = float(X.min()), float(X.max())
    scale = 2 / (high - low) if high > low else 1.0
    parts: list[Any] = [layers.Input(shape), layers.Rescaling(scale, -(high + low) / 2 * scale)]
    side = min(shape[:2])
    for filters in _FILTERS:
        parts.append(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        if side < _LEAST_POOLED:
            break
        parts.append(layers.MaxPooling2D(2))
        side //= 2
    return Sequential(
        [
            *parts,
            layers.Flatten(),
            layers.Dense(_HIDDEN, activation="relu"),
            layers.Dense(outputs, activation=activation),
        ]
    )
