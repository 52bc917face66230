"""BackupAndRestore: a training that was interrupted, again and again, ends with the same bits."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import fake_cupy
import interrupted
import numpy as np
import pytest
from devices import DEVICES

import convkit
from convkit import callbacks, device, layers, losses, metrics, ops, optimizers, random, schedules
from convkit.data import Dataset
from convkit.layers.base import _names
from convkit.models import Model, files, load_model, saving
from convkit.models.feeds import place_of

CLASSES = 3
RNG = np.random.default_rng(3)
POINTS = RNG.normal(size=(22, 5)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 22)
IMAGES = RNG.integers(0, 256, (14, 6, 6, 1)).astype(np.uint8)


class Crash(callbacks.Callback):
    """Fails after so many batches, or at the first event of another kind."""

    def __init__(self, batches: int | None = None, event: str | None = None) -> None:
        self.batches, self.event = batches, event

    def on_train_batch_begin(self, batch, logs=None):
        if self.batches is not None:
            self.batches -= 1
            if self.batches < 0:
                raise InterruptedError

    def _at(self, event: str) -> None:
        if self.event == event:
            raise InterruptedError

    def on_epoch_end(self, epoch, logs=None):
        self._at("epoch")

    def on_test_begin(self, logs=None):
        self._at("test")

    def on_train_end(self, logs=None):
        self._at("train")


class Training:
    """A model, what `fit` is given, and callbacks: all made anew, as by a program that runs again.

    Attributes:
        files: that it writes, which are a part of its bits.
    """

    def __init__(self, folder) -> None:
        _names.clear()  # layers are named as those of a process that begins
        self.folder = folder
        self.files: list[str] = []
        self.callbacks: list[callbacks.Callback] = []
        self.options: dict[str, Any] = {"epochs": 3}
        self.make()

    def make(self) -> None:
        self.model, self.data = network(), (POINTS, LABELS)
        self.options["batch_size"] = 6

    def fit(self, *others: callbacks.Callback) -> None:
        self.history = self.model.fit(
            *self.data, verbose=0, callbacks=[*others, *self.callbacks], **self.options
        )

    def bits(self) -> dict[str, Any]:
        """All that came of it."""
        found: dict[str, Any] = {
            key: variable.host().tobytes() for key, variable in saving.variables(self.model).items()
        }
        found["history"] = repr(self.history.history), self.history.epoch
        found["rate"] = self.model.optimizer.learning_rate
        found["random"] = repr(random.state())
        found["stop"] = self.model.stop_training
        for i, callback in enumerate(self.callbacks):
            state = {k: v for k, v in callback.state().items() if k != "best_weights"}
            found[f"callback {i}"] = repr(state)
        for name in self.files:
            found[name] = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        return found


def network(optimizer: Any = "adam", *inside: layers.Layer, **options: Any) -> convkit.Sequential:
    model = convkit.Sequential(
        [
            layers.Input((5,)),
            layers.Dense(6, activation="relu"),
            *(inside or (layers.BatchNormalization(), layers.Dropout(0.3))),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    options.setdefault("metrics", ["accuracy"])
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


class Validated(Training):
    """With a rest, validation, and what is written."""

    def make(self) -> None:
        super().make()
        self.options |= {"validation_split": 0.3, "validation_freq": 2, "batch_size": 4}
        self.files = ["log.csv", "model.safetensors"]
        self.callbacks = [
            callbacks.CSVLogger(self.folder / "log.csv"),
            callbacks.ModelCheckpoint(
                self.folder / "model.safetensors", "loss", save_best_only=True, save_freq=3
            ),
        ]


class InOrder(Training):
    def make(self) -> None:
        super().make()
        self.options |= {"shuffle": False, "sample_weight": np.linspace(0, 2, 22)}


class FewSteps(Training):
    def make(self) -> None:
        super().make()
        self.options |= {"steps_per_epoch": 3, "initial_epoch": 1, "class_weight": {1: 2.5}}


class Averages(Training):
    """Moving averages of the weights take their place now and then, and at the end."""

    def make(self) -> None:
        super().make()
        rate = schedules.CosineDecay(0.05, 20, warmup_target=0.1, warmup_steps=3)
        self.model = network(
            optimizers.Nadam(
                rate, weight_decay=0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=5
            )
        )


class Stopping(Training):
    """Ends with the best weights, before its last epoch."""

    def make(self) -> None:
        self.model = network(optimizers.SGD(1.5, momentum=0.9))
        self.data = POINTS, LABELS
        self.options |= {"batch_size": 8, "epochs": 9, "validation_data": (POINTS[:7], LABELS[:7])}
        self.callbacks = [
            callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
        ]

    def fit(self, *others: callbacks.Callback) -> None:
        super().fit(*others)
        assert len(self.history.epoch) < 9


class Rates(Training):
    """Rates that follow from the rates before."""

    def make(self) -> None:
        super().make()
        self.options["epochs"] = 5
        self.callbacks = [
            callbacks.LearningRateScheduler(lambda epoch, rate: 1.25 * rate),
            callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=0.3, cooldown=1),
            callbacks.CSVLogger(self.folder / "log.csv", append=True),
        ]
        self.files = ["log.csv"]


class Unbounded(Training):
    """Ends in the middle of an epoch."""

    def make(self) -> None:
        points = POINTS.copy()
        points[9] = np.inf
        self.model = network("sgd", layers.Dropout(0.2))
        self.data = points, LABELS
        self.options |= {"batch_size": 4, "shuffle": False, "validation_data": (POINTS, LABELS)}
        self.callbacks = [callbacks.TerminateOnNaN()]

    def fit(self, *others: callbacks.Callback) -> None:
        super().fit(*others)
        assert self.history.epoch == [0]


class Images(Training):
    """Augmentation, noise, convolutions and batch norm."""

    def make(self) -> None:
        self.model = convkit.Sequential(
            [
                layers.Input((6, 6, 1)),
                layers.Rescaling(1 / 255),
                layers.RandomFlip(),
                layers.RandomTranslation(0.2, 0.2),
                layers.RandomRotation(0.1),
                layers.RandomZoom(0.1),
                layers.RandomContrast(0.3),
                layers.RandomCrop(5, 5),
                layers.GaussianNoise(0.1),
                layers.Conv2D(3, 3, kernel_regularizer="l2"),
                layers.BatchNormalization(),
                layers.PReLU(),
                layers.SpatialDropout2D(0.3),
                layers.LayerNormalization(),
                layers.Flatten(),
                layers.Dense(CLASSES, kernel_constraint="max_norm"),
            ]
        )
        loss = losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(optimizers.AdamW(global_clipnorm=1.0), loss, metrics=["accuracy"])
        self.data = IMAGES, LABELS[:14]
        self.options["batch_size"] = 4


class Wiggle(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(ops.square(x))
        return ops.tanh(x)


class SeveralOutputs(Training):
    def make(self) -> None:
        a, b = layers.Input((5,), name="a"), layers.Input((5,), name="b")
        both = layers.Concatenate()([a, Wiggle()(b)])
        hidden = layers.Dropout(0.2)(layers.Dense(6, activity_regularizer="l1")(both))
        kind = layers.Dense(CLASSES, activation="softmax", name="kind")(hidden)
        size = layers.Dense(1, activation="sigmoid", name="size")(hidden)
        self.model = Model({"b": b, "a": a}, {"size": size, "kind": kind})
        self.model.compile(
            "rmsprop",
            {"kind": "sparse_categorical_crossentropy", "size": "mse"},
            loss_weights={"size": 0.5},
            metrics={"kind": ["accuracy"], "size": [metrics.AUC(), metrics.F1Score("macro")]},
        )
        sizes = (POINTS[:, :1] > 0).astype(np.float32)
        self.data = {"a": POINTS, "b": POINTS[::-1].copy()}, {"kind": LABELS, "size": sizes}
        self.options["batch_size"] = 6


class Cube(layers.ArrayLayer):
    def forward(self, x):
        return x**3

    def backward(self, dy, x, y):
        return 3 * x**2 * dy


class InPython(Training):
    def make(self) -> None:
        super().make()
        self.model = network("adagrad", Cube(), layers.Dropout(0.3))


class Datasets(Training):
    """Both know their places, and validation goes on with an epoch that it began."""

    def make(self) -> None:
        self.model = network("adadelta")
        self.data = (Dataset.from_arrays(POINTS, LABELS, batch_size=5, shuffle=True),)
        self.options |= {
            "validation_data": Dataset.from_arrays(POINTS, LABELS, batch_size=4, shuffle=True),
        }


class DatasetsInParts(Training):
    def make(self) -> None:
        self.model = network("lion")
        items = list(zip(POINTS, LABELS, strict=True))
        self.data = (Dataset(items, tuple, batch_size=5, shuffle=True, drop_last=True, threads=2),)
        held_out = Dataset.from_arrays(POINTS, LABELS, batch_size=4, shuffle=True)
        self.options |= {
            "steps_per_epoch": 3,
            "validation_data": held_out,
            "validation_steps": 2,
        }


class OneDataset(Training):
    """Trained on and validated with."""

    def make(self) -> None:
        self.model = network("sgd")
        dataset = Dataset.from_arrays(POINTS, LABELS, batch_size=8, shuffle=True)
        self.data = (dataset,)
        self.options |= {"validation_data": dataset}


def batches(size: int, rows: int = 22):
    return [(POINTS[i : i + size], LABELS[i : i + size]) for i in range(0, rows, size)]


class Generators(Training):
    def make(self) -> None:
        self.model = network("sgd")
        self.data = (iter(itertools.cycle(batches(5))),)
        self.options |= {
            "steps_per_epoch": 4,
            "validation_data": (one for one in itertools.cycle(batches(6))),
            "validation_steps": 3,
        }


class Batches(Training):
    """A list of them, of which the last is smaller, and one has no samples."""

    def make(self) -> None:
        self.model = network("sgd")
        empty = (POINTS[:0], LABELS[:0])
        self.data = (Listed([*batches(8)[:1], empty, *batches(8)[1:]]),)


class BatchesInParts(Training):
    def make(self) -> None:
        self.model = network("sgd")
        self.data = (Listed(batches(8)),)
        self.options |= {"steps_per_epoch": 2, "validation_data": Listed(batches(9))}


class Listed:
    """What can be iterated over, and no more."""

    def __init__(self, given) -> None:
        self.given = given

    def __iter__(self):
        return iter(self.given)


TRAININGS = [
    Validated, InOrder, FewSteps, Averages, Stopping, Rates, Unbounded, Images, SeveralOutputs,
    InPython, Datasets, DatasetsInParts, OneDataset, Generators, Batches, BatchesInParts,
]  # fmt: skip


def whole(kind: type[Training], folder) -> dict[str, Any]:
    """The bits of a training that nobody disturbs."""
    convkit.utils.set_random_seed(7)
    folder.mkdir()
    training = kind(folder)
    training.fit()
    return training.bits()


def resumed(
    kind: type[Training], folder, frequency: Any, crash: Callable[[int], Crash | None]
) -> tuple[dict[str, Any], int]:
    """(the bits of one that is, how often it was).

    Args:
        frequency: of backups.
        crash: what disturbs the run of this number; None: nothing.
    """
    folder.mkdir()
    for number in range(200):
        backup = callbacks.BackupAndRestore(folder / "backup", save_freq=frequency)
        # Other weights and orders than those of the training that goes on, if one does.
        convkit.utils.set_random_seed(7 + (number if backup.path.exists() else 0))
        training = kind(folder)
        disturbing = crash(number)
        try:
            training.fit(*([] if disturbing is None else [disturbing]), backup)
        except InterruptedError:
            continue
        assert not list((folder / "backup").iterdir())
        return training.bits(), number
    raise AssertionError("the training does not come to its end")


@pytest.mark.parametrize("kind", TRAININGS)
@pytest.mark.filterwarnings("ignore:ModelCheckpoint")
def test_interrupted_at_every_batch(kind, tmp_path):
    expected = whole(kind, tmp_path / "whole")
    found, times = resumed(kind, tmp_path / "each", 1, lambda number: Crash(1))
    assert found == expected
    assert times >= 2
    found, times = resumed(kind, tmp_path / "some", 2, lambda number: Crash(3))
    assert found == expected
    found, times = resumed(kind, tmp_path / "epochs", "epoch", lambda number: Crash(6))
    assert found == expected


@pytest.mark.parametrize("event", ["epoch", "test", "train"])
@pytest.mark.parametrize("kind", [Validated, Stopping, Averages, Datasets, Unbounded])
def test_interrupted_between_batches(kind, event, tmp_path):
    expected = whole(kind, tmp_path / "whole")
    for frequency in (1, 2, "epoch"):

        def once(number: int) -> Crash | None:
            return Crash(event=event) if number == 0 else None

        found, _ = resumed(kind, tmp_path / str(frequency), frequency, once)
        assert found == expected


@pytest.mark.skipif("cuda_emulated" not in DEVICES, reason="no emulated device here")
@pytest.mark.parametrize("kind", [Validated, Averages, Images])
def test_interrupted_on_a_gpu(kind, tmp_path):
    class There(kind):
        def make(self):
            super().make()
            self.options["device"] = "cuda"
            self.options["epochs"] = 2

    with device.stand_in(fake_cupy, "cuda_emulated"):
        expected = whole(There, tmp_path / "whole")
        found, _ = resumed(There, tmp_path / "some", 2, lambda number: Crash(4))
    assert found == expected


@pytest.mark.parametrize("name", sorted(optimizers.NAMES))
def test_every_optimizer_goes_on(name, tmp_path):
    class One(Training):
        def make(self):
            super().make()
            options = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
            self.model = network(type(optimizers.get(name))(0.01, use_ema=True, **options))

    expected = whole(One, tmp_path / "whole")
    assert resumed(One, tmp_path / "each", 1, lambda number: Crash(2))[0] == expected


def test_two_threads_and_one_give_the_same_rest(tmp_path, threads):
    expected = whole(Images, tmp_path / "whole")

    def crash(number: int) -> Crash:
        threads(1 + number % 2)
        return Crash(2)

    assert resumed(Images, tmp_path / "each", 1, crash)[0] == expected


# ---- what is kept, and when ----------------------------------------------------------------------


def crashed(folder, *others: callbacks.Callback, kind: Any = Training, frequency: Any = 1):
    """A training that left a backup after five batches, in the middle of its second epoch."""
    training = kind(folder)
    with pytest.raises(InterruptedError):
        training.fit(*others, Crash(5), callbacks.BackupAndRestore(folder, save_freq=frequency))
    return training


def test_what_each_epoch_is_asked_for_again(tmp_path):
    crashed(tmp_path)
    log = []
    watch = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: log.append(epoch),
        on_train_batch_begin=lambda batch, logs: log.append((epoch_of(watch), batch)),
    )

    def epoch_of(callback):
        return callback.model.progress.epoch

    training = Training(tmp_path)
    training.fit(watch, callbacks.BackupAndRestore(tmp_path, save_freq=2))
    assert log == [1, (1, 1), (1, 2), (1, 3), 2, (2, 0), (2, 1), (2, 2), (2, 3)]
    assert training.history.epoch == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_a_backup_can_be_kept(tmp_path):
    for _ in range(2):
        training = Training(tmp_path)
        backup = callbacks.BackupAndRestore(tmp_path / "kept", delete_checkpoint=False)
        training.fit(backup)
        assert backup.path.is_file()
    assert training.history.epoch == [0, 1, 2]
    assert training.model.optimizer.iterations.numpy() == 12  # the second run had nothing to do
    more = Training(tmp_path)
    more.options["epochs"] = 5
    more.fit(backup)
    assert more.history.epoch == [0, 1, 2, 3, 4]


def test_what_killed_processes_left_is_removed(tmp_path):
    left = tmp_path / ".training.safetensors.4711.0123abcd"
    left.write_bytes(b"half")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"kept")
    crashed(tmp_path)
    assert not left.exists()
    assert other.read_bytes() == b"kept"


def test_backups_are_whole_files_of_safetensors(tmp_path):
    from safetensors import safe_open

    crashed(tmp_path)
    with safe_open(tmp_path / "training.safetensors", "numpy") as file:
        assert {"0/kernel", "optimizer/iterations", "counter/0"} <= set(file.keys())


def test_metrics_of_the_callers_show_the_whole_epoch(tmp_path):
    def trained(folder, *others):
        shown = metrics.SparseCategoricalAccuracy()
        training = Training(tmp_path)
        training.model.compile("sgd", "sparse_categorical_crossentropy", metrics=[shown])
        training.options["epochs"] = 1
        training.fit(*others, callbacks.BackupAndRestore(folder, save_freq=1))
        return shown.result()

    convkit.utils.set_random_seed(7)
    expected = trained(tmp_path / "whole")
    for batches in (2, 4):
        convkit.utils.set_random_seed(7)
        event = {4: "epoch"}.get(batches)
        with pytest.raises(InterruptedError):
            trained(tmp_path / str(batches), Crash(batches, event))
        assert trained(tmp_path / str(batches)) == expected


def test_a_bar_or_another_watcher_may_come_and_go(tmp_path, capfd):
    crashed(tmp_path)
    training = Training(tmp_path)
    training.options["epochs"] = 2
    watch = callbacks.LambdaCallback()
    backup = callbacks.BackupAndRestore(tmp_path, save_freq=1)
    training.model.fit(*training.data, callbacks=[watch, backup], verbose=2, epochs=2, batch_size=6)
    assert len(capfd.readouterr().err.splitlines()) == 1  # of the second epoch


class Counts(callbacks.Callback):
    """Knows something of its own."""

    def __init__(self) -> None:
        self.seen = {"batches": 0, "array": np.zeros(()), "parts": [(1, np.ones(2))]}

    def state(self):
        return self.seen

    def restore(self, state):
        self.seen = state

    def on_train_batch_end(self, batch, logs=None):
        self.seen["batches"] += 1
        self.seen["array"] = np.asarray(self.seen["array"] + 1)


def test_callbacks_of_ones_own_are_kept(tmp_path):
    crashed(tmp_path, Counts())
    counts = Counts()
    Training(tmp_path).fit(counts, callbacks.BackupAndRestore(tmp_path))
    assert counts.seen["batches"] == 12
    assert counts.seen["array"] == 12 and counts.seen["array"].shape == ()
    ((one, array),) = counts.seen["parts"]
    assert one == 1 and array.tolist() == [1, 1]


def test_backups_of_something_else_are_errors(tmp_path):
    crashed(tmp_path)
    backup = callbacks.BackupAndRestore(tmp_path)
    training = Training(tmp_path)
    with pytest.raises(ValueError, match=r"expected the callbacks History of .*, got Counts, Hist"):
        training.fit(Counts(), backup)
    training.model = network("sgd")
    with pytest.raises(ValueError, match=r"expected the optimizer Adam of .*, got SGD"):
        training.fit(backup)
    training.model = network("adam", layers.Dense(4))
    before = training.model.get_weights()
    with pytest.raises(ValueError, match=r"BackupAndRestore: expected the weights of this model"):
        training.fit(backup)
    for one, other in zip(before, training.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    load_error = r"expected a file written by model\.save"
    with pytest.raises(ValueError, match=load_error):
        load_model(backup.path)
    Training(tmp_path).model.save(backup.path)
    with pytest.raises(ValueError, match="BackupAndRestore: expected a backup of a training, got"):
        Training(tmp_path).fit(backup)
    backup.path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        Training(tmp_path).fit(backup)


def test_a_model_that_was_not_built_is_one_sentence(tmp_path):
    crashed(tmp_path, kind=Batches)
    training = Batches(tmp_path)
    training.model = convkit.Sequential([layers.Dense(CLASSES)])
    training.model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="BackupAndRestore: expected a built model"):
        training.fit(callbacks.BackupAndRestore(tmp_path))


def test_a_generator_that_is_too_short_is_an_error(tmp_path):
    crashed(tmp_path, kind=Generators)
    training = Generators(tmp_path)
    training.data = (iter(batches(8)),)
    with pytest.raises(ValueError, match="expected a generator with batches left to go on with"):
        training.fit(callbacks.BackupAndRestore(tmp_path))


def test_a_backup_that_cannot_be_written_ends_fit_and_leaves_the_old_one(tmp_path, monkeypatch):
    crashed(tmp_path)
    path = tmp_path / "training.safetensors"
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    training = Training(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            training.fit(callbacks.BackupAndRestore(tmp_path, save_freq=1))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_streams_that_do_not_know_their_place():
    assert place_of(Listed([])) is None
    assert place_of((POINTS, LABELS)) is None
    assert place_of(None) is None


# ---- processes that are killed -------------------------------------------------------------------


def test_killed_trainings_end_with_the_same_bits(tmp_path):
    same, trainings = interrupted.kills(tmp_path, 4)
    assert same == trainings
