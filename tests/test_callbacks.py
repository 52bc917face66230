"""Callbacks: what Keras's do with the same scores, their order, and what they write."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import warnings

import keras_callbacks
import numpy as np
import pytest
from keras_callbacks import EPOCHS, RATE

import convkit
from convkit import callbacks, layers, metrics, optimizers, schedules
from convkit.models import load_model

KERAS = json.loads(keras_callbacks.FILE.read_text())


def linear(optimizer="sgd", chosen=("accuracy",)) -> convkit.Sequential:
    """One weight; inputs of zero leave it as it is."""
    model = convkit.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse", metrics=list(chosen))
    return model


class Script(callbacks.Callback):
    """Sets the weight to the number of the epoch, and the scores to given ones."""

    def __init__(self, given) -> None:
        self.given = given
        self.rates = []

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([np.full((1, 1), epoch + 1.0)])
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = logs["val_accuracy"] = self.given[epoch]


def trained(given, *others, epochs=None, optimizer=None, **options):
    """(model, the script's callback) after training on scripted scores."""
    model = linear(optimizers.SGD(RATE) if optimizer is None else optimizer)
    script, x = Script(given), np.zeros((2, 1))
    model.fit(
        x,
        x,
        epochs=len(given) if epochs is None else epochs,
        verbose=0,
        callbacks=[script, *others],
        **options,
    )
    return model, script


def ids(case) -> str:
    return ", ".join(f"{name}={value}" for name, value in case["arguments"].items()) or "defaults"


def by_arguments(cases):
    """The cases of each set of arguments together."""
    groups = {}
    for case in cases:
        groups.setdefault(ids(case), []).append(case)
    return [pytest.param(group, id=name) for name, group in groups.items()]


# ---- what Keras does -----------------------------------------------------------------------------


@pytest.mark.parametrize("cases", by_arguments(KERAS["stopping"]))
def test_early_stopping_ends_and_restores_as_keras(cases):
    for case in cases:
        stopping = callbacks.EarlyStopping(**case["arguments"])
        model, script = trained(keras_callbacks.scores(case["seed"], EPOCHS), stopping)
        assert len(script.rates) == case["epochs"]
        assert model.get_weights()[0] == case["weight"]
        assert (stopping.stopped_epoch, stopping.best_epoch) == (case["stopped"], case["best"])


@pytest.mark.parametrize("cases", by_arguments(KERAS["plateau"]))
def test_rates_on_a_plateau_are_those_of_keras(cases):
    for case in cases:
        plateau = callbacks.ReduceLROnPlateau(**case["arguments"])
        _, script = trained(keras_callbacks.scores(case["seed"], EPOCHS), plateau)
        np.testing.assert_allclose(script.rates, case["rates"], rtol=1e-6)


@pytest.mark.parametrize("cases", by_arguments(KERAS["checkpoint"]))
def test_checkpoints_are_saved_when_keras_does(cases, tmp_path):
    for case in cases:
        folder = tmp_path / str(case["seed"])
        path = folder / "{epoch}.safetensors"
        checkpoint = callbacks.ModelCheckpoint(path, **case["arguments"])
        trained(keras_callbacks.scores(case["seed"], EPOCHS), checkpoint)
        saved = sorted(folder.glob("*"), key=lambda file: int(file.stem))
        assert [int(file.stem) for file in saved] == case["saved"]
        for file in saved[-1:]:
            assert load_model(file).get_weights()[0] == int(file.stem)


# ---- scores that are watched ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "name", "grows"),
    [
        (metrics.AUC(name="area"), "area", True),
        (metrics.AUC(name="area"), "val_area", True),
        (metrics.MeanSquaredError(name="score"), "score", False),
        (metrics.FalsePositives(name="right"), "right", False),
        (metrics.F1Score("macro", name="f"), "f", True),
        ("binary_accuracy", "val_binary_accuracy", True),
        ("kl_divergence", "kl_divergence", False),
        ("cosine_similarity", "cosine_similarity", True),
        ("mae", "loss", False),
    ],
)
def test_what_is_better_follows_from_the_metric(metric, name, grows):
    model = linear(chosen=[metric])
    stopping = callbacks.EarlyStopping(name, patience=1, restore_best_weights=True)

    class Weights(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.set_weights([np.full((1, 1), epoch + 1.0)])

        def on_epoch_end(self, epoch, logs=None):
            assert name in logs
            logs[name] = 0.25 * epoch

    x = np.zeros((4, 1))
    history = model.fit(
        x, x, epochs=3, verbose=0, callbacks=[Weights(), stopping], validation_data=(x, x)
    )
    assert len(history.epoch) == (3 if grows else 2)
    assert model.get_weights()[0] == (3 if grows else 1)


def test_second_metrics_and_those_of_several_outputs_are_known():
    x = layers.Input((2,))
    outputs = [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)]
    model = convkit.Model(x, outputs)
    chosen = [metrics.Recall(name="s"), metrics.Hinge(name="s")]
    model.compile("sgd", "mse", metrics={"b": chosen})
    rows, y = np.ones((4, 2)), [np.ones((4, 1))] * 2
    for name, grows in (("b_s", True), ("b_s_1", True), ("a_loss", False), ("loss", False)):
        stopping = callbacks.EarlyStopping(name)
        model.fit(rows, y, verbose=0, callbacks=stopping)
        assert stopping._monitor.grows is grows, name


def test_a_score_of_which_nobody_knows_what_is_better_needs_a_mode():
    class Score(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["harmony"] = 1.0

    x = np.zeros((2, 1))
    for cls in (callbacks.EarlyStopping, callbacks.ReduceLROnPlateau):
        with pytest.raises(ValueError, match="mode 'min' or 'max' for a score named 'harmony'"):
            linear().fit(x, x, verbose=0, callbacks=[Score(), cls("harmony")])
        linear().fit(x, x, verbose=0, callbacks=[Score(), cls("harmony", mode="max")])


@pytest.mark.parametrize(
    "make",
    [
        callbacks.EarlyStopping,
        callbacks.ReduceLROnPlateau,
        lambda: callbacks.ModelCheckpoint("x.safetensors", save_best_only=True),
    ],
)
def test_a_score_that_is_missing_is_a_warning(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.zeros((2, 1))
    callback = make()
    text = f"{type(callback).__name__}: expected a score named 'val_loss' to watch, got accuracy, "
    with pytest.warns(RuntimeWarning, match=text):
        history = linear().fit(x, x, epochs=3, verbose=0, callbacks=callback)
    assert history.epoch == [0, 1, 2]
    if isinstance(callback, callbacks.ModelCheckpoint):  # a model that nobody compared, as Keras
        load_model("x.safetensors")


def test_scores_that_are_not_numbers_are_no_improvement():
    nan = math.nan
    for given, epochs, best in (([nan, 1, nan, nan, 0], 4, 2), ([nan, nan, nan, 0], 2, 1)):
        stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
        model, script = trained(given, stopping)
        assert (len(script.rates), model.get_weights()[0]) == (epochs, best)
    plateau = callbacks.ReduceLROnPlateau(patience=1, factor=0.5)
    assert trained([nan, 1, nan, 0], plateau)[1].rates == [RATE, RATE / 2, RATE / 2, RATE / 4]


def test_callbacks_begin_anew_with_each_fit():
    stopping = callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    plateau = callbacks.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=5)
    for _ in range(2):
        model, script = trained([1, 2, 3, 4], stopping, plateau)
        assert script.rates == [RATE, RATE]
        assert model.get_weights()[0] == 1
        assert plateau.cooldown_counter == 5


def test_what_callbacks_say(capfd):
    trained(
        [1.0, 2.0, 3.0],
        callbacks.LearningRateScheduler(lambda epoch: RATE, verbose=1),
        callbacks.ReduceLROnPlateau(patience=1, factor=0.5, verbose=1),
        callbacks.EarlyStopping(patience=2, restore_best_weights=True, verbose=1),
    )
    assert capfd.readouterr() == (
        "",
        "Epoch 1: learning rate 0.5\n"
        "Epoch 2: learning rate 0.5\n"
        "Epoch 2: learning rate 0.25\n"
        "Epoch 3: learning rate 0.5\n"
        "Epoch 3: learning rate 0.25\n"
        "Epoch 3: early stopping\n"
        "Restoring weights of the best epoch: 1\n",
    )


# ---- learning rates ------------------------------------------------------------------------------


class Called:
    """A function of both arguments that is no function."""

    def __call__(self, epoch, rate):
        return rate / (epoch + 1)


def either(epoch, rate=None):
    return RATE / (epoch + 1) if rate is None else rate / (epoch + 1)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda epoch: 1.0 / (epoch + 1), [1, 1 / 2, 1 / 3]),
        (lambda epoch, rate: rate / 2, [0.25, 0.125, 0.0625]),
        (Called(), [1 / 2, 1 / 4, 1 / 12]),
        (either, [1 / 2, 1 / 4, 1 / 12]),
        (lambda epoch, rate: np.float32(rate), [0.5, 0.5, 0.5]),
        (lambda epoch: 0, [0, 0, 0]),
    ],
)
def test_a_function_sets_the_rate_of_each_epoch(schedule, rates):
    model, _ = trained([0, 0, 0], scheduler := callbacks.LearningRateScheduler(schedule))
    found = []
    scheduler.set_model(model)
    model.optimizer.learning_rate = RATE
    x = np.zeros((2, 1))
    history = model.fit(x, x, epochs=3, verbose=0, callbacks=scheduler)
    found = history.history["learning_rate"]
    np.testing.assert_allclose(found, rates)


def test_the_rate_is_the_one_that_trains():
    x, y = np.ones((1, 1)), np.ones((1, 1))
    model = linear(optimizers.SGD(99.0))
    model.set_weights([np.zeros((1, 1))])
    rates = [0.5, 0.0, 0.25]
    schedule = callbacks.LearningRateScheduler(rates.__getitem__)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=schedule)
    assert history.history["loss"] == [1, 0, 0]
    assert history.history["learning_rate"] == rates


def test_errors_of_a_schedule_are_told():
    def wrong(epoch, rate):
        raise TypeError("what the schedule says")

    cases = (
        (wrong, TypeError, "what the schedule says"),
        (lambda epoch: None, TypeError, "Scheduler: expected the rate of epoch 0 to be"),
        (lambda epoch: -1, ValueError, "Scheduler: expected 0 <= the rate of epoch 0"),
    )
    for schedule, error, text in cases:
        with pytest.raises(error, match=text):
            trained([0], callbacks.LearningRateScheduler(schedule))
    with pytest.raises(TypeError, match=r"LearningRateScheduler: expected a function, got 0\.1"):
        callbacks.LearningRateScheduler(0.1)


@pytest.mark.parametrize(
    "callback",
    [
        callbacks.LearningRateScheduler(lambda epoch: 0.1),
        callbacks.ReduceLROnPlateau(patience=0, factor=0.5),
    ],
)
def test_an_optimizer_with_a_schedule_keeps_it(callback):
    optimizer = optimizers.SGD(schedules.ExponentialDecay(0.5, 2, 0.5))
    with pytest.raises(TypeError, match="SGD: expected a schedule in place of another, got 0"):
        trained([0, 1, 2], callback, optimizer=optimizer)


# ---- the end at NaN ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_ends_at_the_batch_without_a_finite_loss(value, capfd):
    x = np.zeros((12, 1))
    x[5] = value
    log = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: log.append(batch))
    model = linear()
    model.set_weights([np.ones((1, 1))])
    history = model.fit(
        x,
        np.zeros((12, 1)),
        batch_size=2,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[callbacks.TerminateOnNaN(), watch],
        validation_data=(x[:2], x[:2]),
    )
    assert log == [0, 1, 2]
    assert history.epoch == [0]
    assert not math.isfinite(history.history["loss"][0])
    assert "val_loss" in history.history  # as Keras: the epoch comes to its end
    assert capfd.readouterr().err == f"Batch 2: the loss is {value}, training ends\n"


def test_training_can_fail_without_a_finite_loss():
    x = np.full((4, 1), math.nan)
    with pytest.raises(RuntimeError, match="TerminateOnNaN: expected a finite loss, got nan"):
        linear().fit(x, x, verbose=0, callbacks=callbacks.TerminateOnNaN(raise_error=True))


# ---- order ---------------------------------------------------------------------------------------


EVENTS = (
    "on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end",
    "on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end",
)  # fmt: skip


def test_functions_are_called_as_methods_are():
    of_functions, of_methods = [], []

    def function(event):
        return lambda *arguments: of_functions.append((event, *map(str, arguments)))

    def method(event):
        return lambda self, *arguments: of_methods.append((event, *map(str, arguments)))

    methods = type("Methods", (callbacks.Callback,), {event: method(event) for event in EVENTS})
    x = np.zeros((4, 1))
    linear().fit(
        x,
        x,
        batch_size=2,
        epochs=2,
        verbose=0,
        validation_data=(x, x),
        callbacks=[callbacks.LambdaCallback(**{e: function(e) for e in EVENTS}), methods()],
    )
    assert of_functions == of_methods
    assert [event for event, *_ in of_methods[:7]] == [
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_test_begin",
    ]
    last = [event for event, *_ in of_methods[-3:]]
    assert last == ["on_test_end", "on_epoch_end", "on_train_end"]


def test_functions_of_batches_alone_make_fit_come_back_at_each():
    assert not callbacks.CallbackList([callbacks.LambdaCallback()], None, {}).every_batch
    given = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert callbacks.CallbackList([given], None, {}).every_batch
    for freq, every in (("epoch", False), (3, True)):
        one = callbacks.ModelCheckpoint("x", save_freq=freq)
        assert callbacks.CallbackList([one], None, {}).every_batch is every
    with pytest.raises(TypeError, match="LambdaCallback: expected on_test_end to be a function"):
        callbacks.LambdaCallback(on_test_end=3)


def test_callbacks_come_in_their_order_then_the_history_then_backups(tmp_path):
    seen = []

    class First(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["own"] = epoch
            seen.append([type(one).__name__ for one in self.params["callbacks"]])

    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    x = np.zeros((4, 1))
    rate = callbacks.LearningRateScheduler(lambda epoch: 0.5)
    history = linear().fit(x, x, verbose=2, callbacks=[backup, First(), rate])
    assert seen == [
        ["First", "LearningRateScheduler", "ProgressBar", "History", "BackupAndRestore"]
    ]
    assert list(history.history) == ["accuracy", "loss", "own", "learning_rate"]


def test_one_callback_and_parameters():
    seen = {}
    watch = callbacks.LambdaCallback(on_train_begin=lambda logs: seen.update(watch.params))
    x = np.zeros((5, 1))
    linear().fit(x, x, batch_size=2, epochs=1, verbose=0, callbacks=watch, validation_split=0.2)
    assert {name: seen[name] for name in ("epochs", "steps", "verbose", "validation")} == {
        "epochs": 1,
        "steps": 2,
        "verbose": 0,
        "validation": True,
    }
    with pytest.raises(TypeError, match="fit: expected callbacks to be Callback objects, got 'x'"):
        linear().fit(x, x, verbose=0, callbacks=["x"])


@pytest.mark.parametrize("event", EVENTS)
def test_a_callback_that_raises_ends_fit_and_the_model_trains_on(event, tmp_path):
    def fail(*_):
        raise RuntimeError("enough")

    x = np.zeros((4, 1))
    model = linear()
    log = tmp_path / "log.csv"
    failing = callbacks.LambdaCallback(**{event: fail})
    with pytest.raises(RuntimeError, match="enough"):
        model.fit(
            x,
            x,
            verbose=0,
            validation_data=(x, x),
            callbacks=[failing, callbacks.CSVLogger(log), callbacks.EarlyStopping()],
        )
    model.to("cpu")  # it is at rest
    history = model.fit(x, x, epochs=2, verbose=0, callbacks=callbacks.CSVLogger(log))
    assert history.epoch == [0, 1]
    assert len(log.read_text().splitlines()) == 3


def test_fit_in_a_callback_of_fit_leaves_the_outer_one_its_place(tmp_path):
    class Other(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.fit(x, x, epochs=5, verbose=0)

    places = []

    class Place(callbacks.Callback):
        last = True

        def on_epoch_end(self, epoch, logs=None):
            places.append(self.model.progress.epoch)

    x = np.zeros((4, 1))
    linear().fit(x, x, epochs=2, verbose=0, callbacks=[Place(), Other()])
    assert places == [1, 2]


# ---- CSV -----------------------------------------------------------------------------------------


def rows(path, separator=",") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_a_csv_file_has_a_line_for_each_epoch(tmp_path):
    path = tmp_path / "log.csv"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1))
    model = linear()
    history = model.fit(
        x, x, epochs=3, verbose=0, callbacks=callbacks.CSVLogger(path), validation_data=(x, x)
    )
    found = rows(path)
    assert list(found[0]) == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    for name, values in history.history.items():
        assert [float(row[name]) for row in found] == values
    model.fit(x, x, epochs=1, verbose=0, callbacks=callbacks.CSVLogger(path, separator=";"))
    assert path.read_text().splitlines()[0] == "epoch;accuracy;loss"
    assert len(rows(path, ";")) == 1


def test_columns_are_there_for_validation_that_comes_later(tmp_path):
    path = tmp_path / "log.csv"
    x = np.zeros((6, 1))
    rate = callbacks.LearningRateScheduler(lambda epoch: 0.5)
    linear().fit(
        x,
        x,
        epochs=4,
        verbose=0,
        callbacks=[rate, callbacks.CSVLogger(path)],
        validation_split=0.5,
        validation_freq=2,
    )
    found = rows(path)
    assert [row["val_loss"] for row in found] == ["NA", "0.0", "NA", "0.0"]
    assert list(found[0])[1:] == ["accuracy", "learning_rate", "loss", "val_accuracy", "val_loss"]


def test_lines_are_appended_in_the_columns_that_are_there(tmp_path):
    path = tmp_path / "log.csv"
    x = np.zeros((6, 1))
    model = linear()
    for append in (True, True):
        logger = callbacks.CSVLogger(path, append=append)
        model.fit(x, x, epochs=2, verbose=0, callbacks=logger)
    assert [row["epoch"] for row in rows(path)] == ["0", "1", "0", "1"]
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0, callbacks=callbacks.CSVLogger(path, append=True))
    assert rows(path)[-1] == {"epoch": "0", "accuracy": "NA", "loss": "0.0"}
    model.fit(x, x, verbose=0, callbacks=callbacks.CSVLogger(path))
    assert len(rows(path)) == 1  # anew


def test_where_no_csv_file_can_be_written_training_does_not_begin(tmp_path):
    x = np.zeros((6, 1))
    model = linear()
    with pytest.raises(OSError, match=r"missing"):
        model.fit(x, x, verbose=0, callbacks=callbacks.CSVLogger(tmp_path / "missing" / "log.csv"))
    assert model.optimizer.iterations.numpy() == 0


# ---- checkpoints ---------------------------------------------------------------------------------


def test_checkpoints_name_epochs_batches_and_scores(tmp_path):
    x = np.zeros((6, 1))
    path = tmp_path / "{epoch:02d}" / "{batch}-{loss:.2f}.safetensors"
    checkpoint = callbacks.ModelCheckpoint(path, save_freq=2)
    model = linear()
    for _ in range(2):  # batches are counted from one epoch, and one fit, to the next
        model.fit(x, x, batch_size=2, epochs=1, verbose=0, callbacks=checkpoint)
    model.fit(x, x, batch_size=2, epochs=2, initial_epoch=1, verbose=0, callbacks=checkpoint)
    found = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.safetensors"))
    assert found == [
        "01/1-0.00.safetensors",
        "01/2-0.00.safetensors",
        "01/3-0.00.safetensors",
        "02/2-0.00.safetensors",
    ]


def test_checkpoints_hold_models_or_weights(tmp_path, capfd):
    x = np.ones((2, 1))
    model = linear("adam")
    whole, weights = tmp_path / "whole.safetensors", tmp_path / "weights.safetensors"
    model.fit(
        x,
        x,
        epochs=2,
        verbose=0,
        callbacks=[
            callbacks.ModelCheckpoint(whole, verbose=1),
            callbacks.ModelCheckpoint(str(weights), save_weights_only=True),
        ],
    )
    assert capfd.readouterr().err == "".join(
        f"Epoch {epoch}: model saved to {whole}\n" for epoch in (1, 2)
    )
    loaded = load_model(whole)
    assert loaded.optimizer.iterations.numpy() == 2
    assert loaded.get_weights() == model.get_weights()
    with pytest.raises(ValueError, match=r"expected a file written by model\.save"):
        load_model(weights)
    loaded.load_weights(weights)
    assert weights.stat().st_size < whole.stat().st_size


def test_paths_of_checkpoints_are_checked(tmp_path):
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        with pytest.raises(ValueError, match=r"Checkpoint: expected a name such as model\.saf"):
            callbacks.ModelCheckpoint(name)
    x = np.zeros((2, 1))
    for name in ("{val_loss}", "{}", "{loss:d}", "{batch}"):
        checkpoint = callbacks.ModelCheckpoint(tmp_path / f"{name}.safetensors")
        text = "ModelCheckpoint: expected filepath to name scores among epoch, accuracy, loss, got"
        with pytest.raises(ValueError, match=text):
            linear().fit(x, x, verbose=0, callbacks=checkpoint)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        linear().fit(x, x, verbose=0, callbacks=callbacks.ModelCheckpoint(tmp_path))
    for freq in (0, "batch", 1.5):
        with pytest.raises((ValueError, TypeError), match="expected save_freq"):
            callbacks.ModelCheckpoint("x", save_freq=freq)


# ---- TensorBoard ---------------------------------------------------------------------------------


def read_events(folder):
    """{(run, tag): [(step, value)]} of scalars and {tag: [(step, number of values)]} of others."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    scalars, histograms = {}, {}
    for path in sorted(folder.rglob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = tensor_util.make_ndarray(value.tensor)
                plugin = value.metadata.plugin_data.plugin_name
                if array.ndim == 0:
                    key = (path.parent.name, value.tag)
                    scalars.setdefault(key, []).append((event.step, float(array)))
                    assert plugin in ("scalars", "")
                else:
                    histograms.setdefault(value.tag, []).append((event.step, array[:, 2].sum()))
                    assert plugin in ("histograms", "")
    return scalars, histograms


@pytest.fixture
def tensorboard():
    with warnings.catch_warnings():  # of its own imports
        warnings.simplefilter("ignore")
        pytest.importorskip("tensorboard")
        yield


def test_tensorboard_reads_scores_and_histograms(tensorboard, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1)).astype(np.float32)
    model = linear(optimizers.SGD(0.25))
    board = callbacks.TensorBoard(tmp_path, histogram_freq=2, update_freq=2)
    history = model.fit(
        x, x, batch_size=2, epochs=3, verbose=0, callbacks=board, validation_data=(x, x)
    )
    scalars, histograms = read_events(tmp_path)
    for name, values in history.history.items():
        run = "validation" if name.startswith("val_") else "train"
        steps, found = zip(*scalars[run, f"epoch_{name.removeprefix('val_')}"], strict=True)
        assert steps == (0, 1, 2)
        np.testing.assert_allclose(found, values, rtol=1e-6)
    assert scalars["train", "epoch_learning_rate"] == [(0, 0.25), (1, 0.25), (2, 0.25)]
    assert [step for step, _ in scalars["train", "batch_loss"]] == [2, 4, 6, 8]
    evaluated = scalars["validation", "evaluation_loss_vs_iterations"]
    assert [step for step, _ in evaluated] == [3, 6, 9]
    np.testing.assert_allclose([v for _, v in evaluated], history.history["val_loss"], rtol=1e-6)
    (name,) = histograms
    assert name == f"{model.weights[0].name}/histogram"
    assert histograms[name] == [(0, 1.0), (2, 1.0)]


def test_tensorboard_by_epochs_leaves_fit_alone(tensorboard, tmp_path):
    board = callbacks.TensorBoard(tmp_path)
    assert not callbacks.CallbackList([board], None, {}).every_batch
    x = np.zeros((4, 1))
    model = linear()
    model.fit(x, x, batch_size=2, epochs=2, verbose=0, callbacks=board)
    scalars, histograms = read_events(tmp_path)
    assert set(scalars) == {
        ("train", "epoch_loss"),
        ("train", "epoch_accuracy"),
        ("train", "epoch_learning_rate"),
    }
    assert not histograms
    model.evaluate(x, x, callbacks=board)
    assert ("validation", "evaluation_loss_vs_iterations") in read_events(tmp_path)[0]
    each = callbacks.TensorBoard(tmp_path / "each", update_freq="batch")
    model.fit(x, x, batch_size=2, epochs=2, verbose=0, callbacks=each)
    found, _ = read_events(tmp_path / "each")
    assert [step for step, _ in found["train", "batch_loss"]] == [1, 2, 3, 4]


def test_without_tensorboard_one_sentence_says_so(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    x = np.zeros((4, 1))
    board = callbacks.TensorBoard(tmp_path)
    text = "TensorBoard: expected the package tensorboard; pip install tensorboard"
    with pytest.raises(ImportError, match=text):
        linear().fit(x, x, verbose=0, callbacks=board)
    with pytest.raises(ImportError, match=text):
        linear().evaluate(x, x, callbacks=board)


def test_arguments_of_tensorboard_are_checked():
    for arguments in ({"histogram_freq": -1}, {"update_freq": 0}, {"update_freq": "never"}):
        (name,) = arguments
        with pytest.raises((ValueError, TypeError), match=f"TensorBoard: expected {name}"):
            callbacks.TensorBoard(**arguments)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: callbacks.EarlyStopping(patience=-1),
        lambda: callbacks.EarlyStopping(mode="up"),
        lambda: callbacks.EarlyStopping(start_from_epoch=0.5),
        lambda: callbacks.ReduceLROnPlateau(factor=1),
        lambda: callbacks.ReduceLROnPlateau(min_lr=-1),
        lambda: callbacks.ReduceLROnPlateau(cooldown=-1),
        lambda: callbacks.BackupAndRestore(""),
        lambda: callbacks.BackupAndRestore("x", save_freq=0),
    ],
)
def test_arguments_are_checked(make):
    with pytest.raises((ValueError, TypeError), match=r"^\w+: expected "):
        make()
