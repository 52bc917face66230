"""Training, evaluation and prediction on streams: iterables, generators, data sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from convkit import callbacks, device, layers, metrics, optimizers, schedules, utils
from convkit.data import Dataset
from convkit.layers import Input
from convkit.models import Model, Sequential

SIZES = [5, 1, 12, 7, 40, 2]  # by either schedule, one after the other


def small(rate: float = 0.1) -> Sequential:
    utils.set_random_seed(3)
    model = Sequential(
        [Input((3,)), layers.Dense(6, activation="tanh"), layers.Dense(4, activation="softmax")]
    )
    model.compile(optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def two_by_two() -> Model:
    utils.set_random_seed(4)
    a, b = Input((3,), name="a"), Input((2,), name="b")
    both = layers.Concatenate()([layers.Dense(4, activation="tanh")(a), b])
    model = Model([a, b], [layers.Dense(1, name="p")(both), layers.Dense(2, name="q")(both)])
    model.compile("sgd", ["mse", "mae"])
    return model


def samples(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)).astype(np.float32), rng.integers(0, 4, rows)


def batches(sizes: Iterable[int] = SIZES, weighted: bool = False) -> list[tuple[np.ndarray, ...]]:
    made: list[tuple[np.ndarray, ...]] = []
    for i, size in enumerate(sizes):
        x, y = samples(size, i)
        made.append((x, y, np.linspace(0, 2, size)) if weighted and i % 2 else (x, y))
    return made


class Stream:
    """Can be iterated over anew; counts how often, and how many batches it gave."""

    def __init__(self, given: list) -> None:
        self.given, self.begun, self.read = given, 0, 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        for batch in self.given:
            self.read += 1
            yield batch


def endless(given: list) -> Iterator[Any]:
    while True:
        yield from given


def joined(given: list) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([b[0] for b in given]), np.concatenate([b[1] for b in given])


def assert_same_weights(one: Model, other: Model) -> None:
    np.testing.assert_equal(one.get_weights(), other.get_weights())


def assert_close_weights(one: Model, other: Model) -> None:
    """A last batch that is small may run by another schedule when it stands alone."""
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


# ---- fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_stream_is_trained_on_batch_by_batch(weighted):
    given = batches(weighted=weighted)
    model, single = small(), small()
    stream = Stream(given)
    history = model.fit(stream, epochs=3, verbose=0).history
    assert (stream.begun, stream.read) == (3, 3 * len(SIZES))
    for epoch in range(3):
        loss = hits = 0.0
        for x, y, *w in given:
            values = single.train_on_batch(x, y, *w)
            loss, hits = loss + values[0] * len(x), hits + values[1] * len(x)
        # Means over samples, not over batches.
        assert history["loss"][epoch] == pytest.approx(loss / sum(SIZES), rel=1e-6)
        assert history["accuracy"][epoch] == pytest.approx(hits / sum(SIZES), rel=1e-6)
    assert_same_weights(model, single)


def test_a_stream_of_full_batches_is_fit_without_an_order():
    x, y = samples(36)
    given = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 36, 8)]
    model, whole = small(), small()
    one = model.fit(Stream(given), epochs=2, verbose=0).history
    other = whole.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert_close_weights(model, whole)
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=1e-6)


def test_a_generator_goes_on_from_epoch_to_epoch():
    given = batches()
    read = []

    def generate() -> Iterator[Any]:
        for i in range(100):
            read.append(i)
            yield given[i % len(given)]

    model, single = small(), small()
    history = model.fit(generate(), epochs=3, steps_per_epoch=4, verbose=0).history
    assert read == list(range(12)) and len(history["loss"]) == 3
    for i in range(12):
        single.train_on_batch(*given[i % len(given)])
    assert_same_weights(model, single)


def test_a_generator_without_a_number_of_steps_is_one_epoch():
    model = small()
    given = batches()
    assert len(model.fit((b for b in given), verbose=0).history["loss"]) == 1
    with pytest.raises(ValueError, match=r"expected steps_per_epoch, or .*a generator without any"):
        model.fit((b for b in given), epochs=2, verbose=0)


def test_epochs_of_fewer_steps_than_a_stream_has_and_of_more():
    given = batches()
    for steps in (4, 8):
        model, single = small(), small()
        model.fit(Stream(given), epochs=3, steps_per_epoch=steps, verbose=0)
        for i in range(3 * steps):
            single.train_on_batch(*given[i % len(given)])
        assert_same_weights(model, single)


def test_arrays_with_a_number_of_steps():
    x, y = samples(30)
    seen: list[int] = []

    class Count(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    small().fit(x, y, batch_size=8, epochs=2, steps_per_epoch=2, verbose=0, callbacks=Count())
    assert seen == [0, 1, 0, 1]


def test_callbacks_and_a_bar_see_a_stream(capsys):
    given = batches()
    calls: list[tuple] = []

    class Watch(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            calls.append(("begin", self.params["steps"]))

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            calls.append(("before", batch))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            calls.append(("after", batch, sorted(logs)))

    names = ["accuracy", "loss"]
    each = [part for i in range(6) for part in (("before", i), ("after", i, names))]
    small().fit(Stream(given), verbose=1, callbacks=Watch())
    assert calls == [("begin", None), *each]
    assert "Epoch 1/1" in capsys.readouterr().err
    calls.clear()
    small().fit(given_with_length(given), verbose=0, callbacks=Watch())
    assert calls == [("begin", 6), *each]


def given_with_length(given: list) -> Any:
    class Sized(Stream):
        def __len__(self) -> int:
            return len(self.given)

    return Sized(given)


def test_training_on_a_stream_can_be_stopped():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 2

    stream = Stream(batches())
    history = small().fit(stream, epochs=5, verbose=0, callbacks=Stop()).history
    assert stream.read == 3 and len(history["loss"]) == 1


def test_the_learning_rate_of_a_schedule_follows_the_steps_of_a_stream():
    given = batches([4] * 6)
    model = small()
    rates = schedules.ExponentialDecay(0.5, decay_steps=1, decay_rate=0.5)
    model.compile(optimizers.SGD(rates), model.loss)
    model.fit(Stream(given), epochs=2, verbose=0)
    assert model.optimizer.iterations.numpy() == 12
    single = small()
    for i in range(12):
        single.optimizer.learning_rate = 0.5 * 0.5**i
        single.train_on_batch(*given[i % 6])
    assert_close_weights(model, single)


def test_streams_of_several_arrays_by_name_and_with_weights():
    rng = np.random.default_rng(0)

    def batch(size: int) -> tuple:
        x = {"b": rng.normal(size=(size, 2)), "a": rng.normal(size=(size, 3))}
        y = {"q": rng.normal(size=(size, 2)), "p": rng.normal(size=(size, 1))}
        return x, y, {"p": rng.uniform(size=size)}

    given = [batch(size) for size in (3, 17, 4)]
    model, single = two_by_two(), two_by_two()
    history = model.fit(given_with_length(given), verbose=0).history
    loss = 0.0
    for x, y, w in given:
        as_lists = [x["a"], x["b"]], [y["p"], y["q"]], [w["p"], None]
        loss += single.train_on_batch(*as_lists)[0] * len(x["a"])
    assert history["loss"] == [pytest.approx(loss / 24, rel=1e-6)]
    assert set(history) == {"loss", "p_loss", "q_loss"}
    assert_same_weights(model, single)
    found = model.predict(Stream([x for x, _, _ in given]))
    right = model.predict([np.concatenate([x[name] for x, _, _ in given]) for name in ("a", "b")])
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)


def test_a_model_that_waits_for_its_shape_is_built_by_a_stream():
    for use in ("fit", "evaluate", "predict"):
        model = Sequential([layers.Dense(4, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        getattr(model, use)(Stream(batches()), verbose=0)
        assert model.input_shape == (None, 3)


def test_a_data_set():
    x, y = samples(50)
    model, whole = small(), small()
    with_threads = Dataset.from_arrays(x, y, batch_size=8, threads=2)
    one = model.fit(with_threads, epochs=2, verbose=0, validation_data=with_threads).history
    options = {"batch_size": 8, "shuffle": False, "validation_data": (x, y), "verbose": 0}
    other = whole.fit(x, y, epochs=2, **options).history
    assert_close_weights(model, whole)
    for name in other:
        assert one[name] == pytest.approx(other[name], rel=1e-5)
    np.testing.assert_allclose(model.predict(with_threads), whole.predict(x), 1e-5, 1e-6)


def test_streams_anywhere(place):
    given = batches(weighted=True)
    here, there = small(), small()
    if place is not None:
        there.to("cuda")
    logs = [
        model.fit(Stream(given), epochs=2, verbose=0, validation_data=Stream(given)).history
        for model in (here, there)
    ]
    for name in logs[0]:
        np.testing.assert_allclose(logs[1][name], logs[0][name], 1e-4, 1e-6)
    for one, other in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, 1e-4, 1e-5)
    np.testing.assert_allclose(
        there.predict(Stream(given)), here.predict(Stream(given)), 1e-4, 1e-5
    )
    assert there.evaluate(Stream(given), verbose=0) == pytest.approx(
        here.evaluate(Stream(given), verbose=0), rel=1e-4
    )
    if place is not None:
        module = device.array_module()
        found = there.predict(Stream([module.asarray(x) for x, *_ in given]))
        assert isinstance(found, module.ndarray)
        np.testing.assert_array_equal(device.to_numpy(found), there.predict(Stream(given)))


# ---- evaluate and predict ----------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_of_a_stream_is_that_of_all_its_samples(weighted):
    given = batches(weighted=weighted)
    model = small()
    shown = metrics.SparseCategoricalAccuracy("right")
    model.compile("sgd", model.loss, metrics=[shown])
    x, y = joined(given)
    w = np.concatenate([b[2] if len(b) == 3 else np.ones(len(b[0])) for b in given])
    right = model.evaluate(x, y, sample_weight=w, verbose=0)
    assert model.evaluate(Stream(given), verbose=0) == pytest.approx(right, rel=1e-5)
    assert shown.result() == pytest.approx(right[1])
    found = model.evaluate(iter(given), verbose=0, return_dict=True)
    assert found == pytest.approx({"loss": right[0], "right": right[1]}, rel=1e-5)


def test_batches_without_samples_are_passed_over():
    given = batches([3, 0, 4])
    model = small()
    assert model.evaluate(Stream(given), verbose=0) == pytest.approx(
        model.evaluate(*joined(given), verbose=0), rel=1e-6
    )
    assert model.predict(Stream(given)).shape == (7, 4)
    model.fit(Stream(given), verbose=0)
    assert model.optimizer.iterations.numpy() == 2


def test_predictions_of_a_stream_are_one_after_the_other():
    given = batches()
    model = small()
    right = model.predict(joined(given)[0])
    for stream in (Stream(given), Stream([b[0] for b in given]), (b for b in given)):
        found = model.predict(stream)
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, 1e-5, 1e-6)


def test_steps_are_batches_of_streams_and_of_arrays():
    given = batches()
    x, y = joined(given)
    model = small()
    source = endless(given)
    rows = sum(SIZES[:3])
    first = [x[:rows], y[:rows]]
    right = pytest.approx(model.evaluate(*first, verbose=0), rel=1e-6)
    assert model.evaluate(source, steps=3, verbose=0) == right
    assert next(source)[0].shape == (SIZES[3], 3)  # and no more were read
    source = endless(given)
    np.testing.assert_allclose(model.predict(source, steps=3), model.predict(first[0]), 1e-5, 1e-6)
    assert next(source)[0].shape == (SIZES[3], 3)
    assert model.predict(x, batch_size=5, steps=3).shape == (15, 4)
    part = pytest.approx(model.evaluate(x[:15], y[:15], verbose=0), rel=1e-6)
    assert model.evaluate(x, y, batch_size=5, steps=3, verbose=0) == part


def test_validation_on_streams():
    given = batches()
    x, y = joined(given)
    model, other = small(0.0), small(0.0)
    stream = Stream(given)
    history = model.fit(x, y, epochs=3, verbose=0, validation_data=stream).history
    assert stream.begun == 3
    right = other.evaluate(x, y, verbose=0)
    assert history["val_loss"] == pytest.approx([right[0]] * 3, rel=1e-5)
    assert history["val_accuracy"] == pytest.approx([right[1]] * 3, rel=1e-5)
    options = {"validation_data": endless(given), "validation_steps": 2, "validation_freq": 2}
    history = model.fit(Stream(given), epochs=4, verbose=0, **options).history
    parts = [joined(given[i : i + 2]) for i in (0, 2)]
    expected = [other.evaluate(*part, verbose=0)[0] for part in parts]
    assert history["val_loss"] == pytest.approx(expected, rel=1e-5)
    history = model.fit(
        x, y, verbose=0, validation_data=(x, y), validation_steps=2, validation_batch_size=4
    ).history
    expected = other.evaluate(x[:8], y[:8], verbose=0)[0]
    assert history["val_loss"] == [pytest.approx(expected, rel=1e-5)]


# ---- what goes wrong ---------------------------------------------------------------------------

GOOD = batches([3, 4])
X, Y = GOOD[0]


def fitted(x: Any, y: Any = None, **options: Any) -> Callable[[], Any]:
    return lambda: small().fit(x() if callable(x) else x, y, verbose=0, **options)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (fitted(Stream(GOOD), Y), ValueError, "fit: expected no y beside a stream of batches"),
    (
        fitted(Stream(GOOD), sample_weight=np.ones(3)),
        ValueError,
        "no sample_weight beside a stream",
    ),
    (fitted(Stream(GOOD), validation_split=0.5), ValueError, "arrays for validation_split"),
    (fitted(Stream(GOOD), class_weight={0: 1}), ValueError, "arrays for .*class_weight"),
    (fitted(Stream([X])), TypeError, r"batches \(x, y\) or \(x, y, sample_weight\), got ndarray"),
    (fitted(Stream([(X,)])), TypeError, "fit: expected batches .*got 1 values"),
    (fitted(Stream([(X, Y, None, 1)])), TypeError, "fit: expected batches .*got 4 values"),
    (fitted(Stream([(X, None)])), ValueError, "fit: expected y, as there is a loss, got none"),
    (fitted(Stream([(X, Y[:1])])), ValueError, r"y with as many rows as x \(3\), got 1"),
    (fitted(Stream([(X[:, :2], Y)])), ValueError, r"x of shape \(N, 3\), got \(3, 2\)"),
    (fitted(Stream([(X, Y, np.ones(2))])), ValueError, r"sample_weight of shape \(3,\)"),
    (fitted(Stream([])), ValueError, "fit: expected at least one batch, got none"),
    (fitted(Stream([]), steps_per_epoch=2), ValueError, "fit: expected at least one batch"),
    (fitted(lambda: iter(GOOD), steps_per_epoch=3), ValueError, "3 batches for each epoch, got 2"),
    (
        fitted(Stream(GOOD), steps_per_epoch=0),
        ValueError,
        "steps_per_epoch to be at least 1, got 0",
    ),
    (fitted(X, Y, validation_data=Stream([])), ValueError, "at least one sample, got none"),
    (fitted(X, Y, validation_data=Stream([X])), TypeError, "expected batches .*got ndarray"),
    (
        fitted(X, Y, validation_data=(X, Y), validation_steps=0),
        ValueError,
        "steps to be at least 1, got 0",
    ),
    (lambda: small().evaluate(Stream(GOOD), Y), ValueError, "evaluate: expected no y beside"),
    (lambda: small().evaluate(Stream([])), ValueError, "evaluate: expected at least one sample"),
    (lambda: small().evaluate(Stream(GOOD), steps=0), ValueError, "steps to be at least 1, got 0"),
    (lambda: small().predict(Stream([])), ValueError, "predict: expected at least one batch"),
    (lambda: small().predict(Stream(GOOD), steps=-1), ValueError, "steps to be at least 1, got -1"),
    (lambda: small().predict(X, steps=0), ValueError, "steps to be at least 1, got 0"),
    (lambda: small().fit(5, verbose=0), ValueError, "fit: expected x with one row per sample"),
    (lambda: small().fit("images", verbose=0), TypeError, "x to hold real numbers"),
]


@pytest.mark.parametrize(
    ("run", "exception", "message"), BAD, ids=[f"{i}-{one[2]}" for i, one in enumerate(BAD)]
)
def test_what_is_wrong_is_said(run, exception, message):
    with pytest.raises(exception) as caught:
        run()
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_stream_is_the_streams_own_and_the_model_is_at_rest():
    def broken() -> Iterator[Any]:
        yield GOOD[0]
        raise LookupError("the disk is gone")

    model = small()
    with pytest.raises(LookupError, match="the disk is gone"):
        model.fit(broken(), verbose=0)
    model.fit(Stream(GOOD), verbose=0)


def test_a_stream_without_compile():
    model = Sequential([Input((3,)), layers.Dense(2)])
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"expected a compiled model"):
            use(Stream(GOOD), verbose=0)
