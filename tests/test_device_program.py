"""Programs on a GPU, or on the emulated one with tests/fake_cupy.py in CuPy's place: training,
evaluation and prediction, held to the processor's."""

from __future__ import annotations

import gc
import importlib.util
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits
from devices import DEVICES, emulator

import convkit
from convkit import _core, callbacks, device, layers, models, optimizers, utils
from convkit.graph import Symbol, Variable
from convkit.models import placement
from convkit.program import Program, gather

BACKENDS = [
    name
    for name in DEVICES
    if name == "cuda_emulated" or importlib.util.find_spec("cupy") is not None
]
pytestmark = pytest.mark.usefixtures("cp")


@pytest.fixture(params=BACKENDS or [pytest.param("", marks=pytest.mark.skip("no device"))])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    if request.param == "cuda_emulated":
        emulator().emulator_fail_allocation(0)
        emulator().emulator_fail_kernel(0)
        emulator().emulator_recover()


@pytest.fixture
def emulated(cp: Any) -> Any:
    """The emulator's functions."""
    if cp.__name__ != "fake_cupy":
        pytest.skip("of the emulated device")
    return emulator()


def small(dtype: str = "float32", optimizer: Any = "adam", seed: int = 3) -> models.Sequential:
    """A convolution, dropout twice, and dense layers, on images of 8 x 8."""
    utils.set_random_seed(seed)
    model = models.Sequential(
        [
            layers.Input((8, 8, 1), dtype=dtype),
            layers.Conv2D(4, 3, activation="relu", dtype=dtype),
            layers.MaxPooling2D(2, dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(9, activation="tanh", dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            layers.Dense(5, activation="softmax", dtype=dtype),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def one_layer(seed: int = 3) -> models.Sequential:
    """As little as can be trained: many steps take no time."""
    utils.set_random_seed(seed)
    model = models.Sequential([layers.Input((3,)), layers.Dense(2)])
    model.compile(optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def images(count: int = 37, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = (
        rng.integers(0, 256, (count, 8, 8, 1))
        if dtype == np.uint8
        else rng.random((count, 8, 8, 1))
    )
    return x.astype(dtype), rng.integers(0, 5, count)


def points(count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    return rng.random((count, 3), dtype=np.float32), rng.random((count, 2), dtype=np.float32)


def train(model: Any, x: Any, y: Any, seed: int = 1, **options: Any) -> dict[str, list[float]]:
    utils.set_random_seed(seed)
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, **options}
    return model.fit(x, y, **options).history


def state(model: Any) -> list[np.ndarray]:
    """Weights and all that the optimizer keeps."""
    return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]


def assert_same_state(one: Any, other: Any) -> None:
    for a, b in zip(state(one), state(other), strict=True):
        assert_same_bits(a, b)


def assert_close_state(one: Any, other: Any, dtype: str = "float32") -> None:
    bound = 2e-5 if dtype == "float32" else 1e-11
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_allclose(a, b, bound, bound)


def program_of(model: Any) -> Program:
    """Of the training step that was recorded last."""
    steps = [p for key, p in model._programs.items() if key[0][0] == "train"]
    return steps[-1].program


# ---- training ------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_the_processor_to_rounding(name, dtype):
    x, y = images()
    held_out = images(11)
    here, there = (small(dtype, OPTIMIZERS[name]()) for _ in range(2))
    assert_same_state(here, there)
    options = {"validation_data": held_out, "epochs": 3}  # a smaller batch comes last
    first = train(here, x, y, **options)
    second = train(there, x, y, **options, device="cuda")
    assert there.device == "cuda:0" and here.device == "cpu"
    assert first.keys() == second.keys() == {"accuracy", "loss", "val_accuracy", "val_loss"}
    for key in first:
        np.testing.assert_allclose(first[key], second[key], 1e-5 if dtype == "float32" else 1e-12)
    assert_close_state(here, there, dtype)
    assert there.optimizer.iterations.numpy() == 3 * 5


@pytest.mark.parametrize("shuffle", [True, False])
def test_graphs_are_replayed_and_are_the_steps_kernel_by_kernel_bit_for_bit(shuffle):
    x, y = points(100)
    replayed, single = (one_layer().to("cuda") for _ in range(2))
    train(single, x, y, epochs=1, batch_size=1, shuffle=shuffle)  # records its program
    single = one_layer().to("cuda")
    step = single._training_step(single._arrays("fit", x, y), 1)
    step.program.profile(True)  # no graphs
    for model in (replayed, single):
        train(model, x, y, batch_size=3, epochs=3, shuffle=shuffle)
    assert program_of(single)._run.graphs() == 0
    # For full batches, one at a time and several unless those take long, and for the last one of
    # each epoch.
    assert program_of(replayed)._run.graphs() in (2, 3)
    assert_same_state(replayed, single)


def test_the_same_bits_twice_and_wherever_the_data_are(cp):
    x, y = images(dtype=np.uint8)
    trained = [small() for _ in range(4)]
    train(trained[0], x, y, device="cuda")
    train(trained[1], x, y, device="cuda:0")
    train(trained[2].to("cuda"), cp.asarray(x), y)
    train(trained[3].to("cuda"), cp.asarray(x), cp.asarray(y))
    for model in trained[1:]:
        assert_same_state(trained[0], model)


def test_targets_that_are_numbers_may_be_on_the_gpu(cp):
    x, y = points()
    here, there = one_layer().to("cuda"), one_layer().to("cuda")
    train(here, x, y)
    train(there, cp.asarray(x), cp.asarray(y))
    assert_same_state(here, there)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_the_order_of_an_epoch_is_the_processors(cp, rows):
    x = np.arange(rows, dtype=np.float32).reshape(rows, 1)
    order = np.zeros(rows, np.int64)
    source = Symbol((None, 1), "float32", place="source")
    index = Symbol((None,), "int64", place="fed")
    y = gather(source, index, "float32")
    host = Program("float32", results=[y])
    expected = np.empty((rows, 1), np.float32)
    with host.bound((source, x), (index, order), (y, expected)):
        host.run(0, rows, 4, shuffle=12345)
    assert sorted(order) == list(range(rows))

    program = Program("float32", results=[y], gpu=0)
    found = cp.empty((rows, 1), np.float32)
    unused = np.full(rows, -1)
    with program.bound((source, cp.asarray(x)), (index, unused), (y, found)):
        program.run(0, rows, 4, shuffle=12345)
        assert_same_bits(device.to_numpy(found), expected)
        # The order stays for runs without a seed, and a run may begin anywhere.
        found[...] = cp.zeros((rows, 1), np.float32)
        for row in range(rows):
            program.run(row, row + 1, 4)
        assert_same_bits(device.to_numpy(found), expected)
        # Larger steps need more memory, and still know it.
        program.run(0, rows, rows)
        assert_same_bits(device.to_numpy(found), expected)
    assert np.all(unused == -1)
    with program.bound((source, cp.asarray(x)), (index, order[::-1].copy()), (y, found)):
        program.run(0, rows, 4)
        assert_same_bits(device.to_numpy(found), expected[::-1].copy())


def test_rows_that_there_are_not(cp):
    source = Symbol((None, 1), "float32", place="source")
    index = Symbol((None,), "int64", place="fed")
    y = gather(source, index, "float32")
    program = Program("float32", results=[y], gpu=0)
    on_gpu, found = cp.zeros((3, 1), np.float32), cp.empty((4, 1), np.float32)
    for x in (on_gpu, np.zeros((3, 1), np.float32)):
        for rows in ([0, 1, 3, 0], [-1, 0, 0, 0]):
            with program.bound((source, x), (index, np.array(rows)), (y, found)):
                with pytest.raises(IndexError, match="outside the 3 rows of its source"):
                    program.run(0, 4, 4)
                with pytest.raises(ValueError, match="an index of at most the 3 rows"):
                    program.run(0, 4, 4, shuffle=1)
        with program.bound((source, x), (index, np.zeros(4, np.int64)), (y, found)):
            with pytest.raises(ValueError, match="arrays with enough rows"):
                program.run(0, 5, 4)
            assert program.run(0, 4, 4) == 4
            assert program.run(2, 2, 4) == 2
    with pytest.raises(ValueError, match="every value to be bound"):
        program.run(0, 1, 1)


def test_one_step_at_a_time_is_the_same(cp):
    class Seen(callbacks.Callback):
        def __init__(self):
            self.losses = []

        def on_train_batch_end(self, batch, logs=None):
            self.losses.append((batch, logs["loss"]))

    x, y = images()
    at_once, one_by_one, here = small().to("cuda"), small().to("cuda"), small()
    train(at_once, x, y)
    seen, expected = Seen(), Seen()
    train(one_by_one, x, y, callbacks=[seen])
    train(here, x, y, callbacks=[expected])
    assert_same_state(at_once, one_by_one)
    assert [batch for batch, _ in seen.losses] == [batch for batch, _ in expected.losses]
    np.testing.assert_allclose(
        [loss for _, loss in seen.losses], [loss for _, loss in expected.losses], 1e-5
    )


def test_a_callback_may_use_the_model_and_end_the_training():
    class Ends(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.scores = self.model.evaluate(*images(9), verbose=0)
            self.model.optimizer.learning_rate = 0.002
            self.model.stop_training = epoch == 1
            with pytest.raises(RuntimeError, match=r"^to: expected a model at rest"):
                self.model.to("cpu")

    x, y = images()
    here, there = small(), small()
    for model in (here, there.to("cuda")):
        assert len(train(model, x, y, epochs=9, callbacks=[Ends()])["loss"]) == 2
    assert_close_state(here, there)
    assert there.optimizer._rates["float32"].numpy() == np.float32(0.002)
    there.to("cpu")


def test_train_on_batch(cp):
    x, y = images(8)
    here, there = small(), small().to("cuda")
    for _ in range(4):
        np.testing.assert_allclose(here.train_on_batch(x, y), there.train_on_batch(x, y), 1e-5)
    np.testing.assert_allclose(
        here.train_on_batch(x, y), there.train_on_batch(cp.asarray(x), y), 1e-5
    )
    np.testing.assert_allclose(
        here.train_on_batch(x, y), there.train_on_batch(x, cp.asarray(y)), 1e-5
    )
    assert_close_state(here, there)


def test_a_progress_bar(capsys):
    x, y = images()
    model = small().to("cuda")
    train(model, x, y, verbose=1)
    assert "Epoch 2/2 - " in capsys.readouterr().err


def test_a_part_of_the_data_kept_for_validation(cp):
    x, y = images()
    here, there = small(), small().to("cuda")
    first = train(here, x, y, validation_split=0.3)
    second = train(there, cp.asarray(x), cp.asarray(y), validation_split=0.3)
    np.testing.assert_allclose(first["val_loss"], second["val_loss"], 1e-5)


# ---- data that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2000, 1 << 30])
@pytest.mark.parametrize("shuffle", [True, False])
def test_data_that_do_not_fit_train_the_same(monkeypatch, window, shuffle):
    x, y = images(101, np.uint8)
    fits, streamed = small().to("cuda"), small().to("cuda")
    train(fits, x, y, shuffle=shuffle, validation_data=(x, y))
    monkeypatch.setenv(placement.LIMIT, "0")
    step = streamed._training_step(streamed._arrays("fit", x, y), 8)
    step.program.set_window(window)
    train(streamed, x, y, shuffle=shuffle, validation_data=(x, y))
    assert_same_state(fits, streamed)


def test_data_that_do_not_fit_and_callbacks(monkeypatch):
    monkeypatch.setenv(placement.LIMIT, "0")
    batches = []
    called = callbacks.Callback

    class Counts(called):
        def on_train_batch_end(self, batch, logs=None):
            batches.append(batch)

    x, y = images()
    here, there = small(), small().to("cuda")
    for model in (here, there):
        train(model, x, y, callbacks=[Counts()])
    assert batches == 4 * list(range(5))
    assert_close_state(here, there)


def test_what_is_on_the_gpu_comes_back_where_the_rest_does_not_fit(cp, monkeypatch):
    monkeypatch.setenv(placement.LIMIT, "0")
    x, y = points()
    here, there = one_layer().to("cuda"), one_layer().to("cuda")
    train(here, x, y)
    train(there, x, cp.asarray(y))
    assert_same_state(here, there)


# ---- prediction and evaluation -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_predictions(cp, dtype):
    x, _ = images(dtype=dtype)
    model = small()
    expected = model.predict(x)
    model.to("cuda")
    found = model.predict(x)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    for size in (1, 5, 64):
        assert_same_bits(model.predict(x, batch_size=size), found)
    there = model.predict(cp.asarray(x))
    assert isinstance(there, cp.ndarray)
    assert_same_bits(device.to_numpy(there), found)
    assert model.predict(x[:0]).shape == model.predict(cp.asarray(x[:0])).shape == (0, 5)


@pytest.mark.parametrize("batch", [3, 7])
def test_predictions_window_by_window(cp, batch):
    x, _ = images(60)
    model = small().to("cuda")
    model.predict(x)
    forward = next(p for key, p in model._programs.items() if key[0][0] == "predict")
    expected = device.to_numpy(forward.run([cp.asarray(x)], batch)[0])
    forward.program.set_window(7 * 300)
    assert_same_bits(forward.run([x], batch)[0], expected)
    model.to("cpu")
    np.testing.assert_allclose(model.predict(x), expected, 1e-5, 1e-6)


def test_one_image_is_replayed(cp):
    x, _ = images(6)
    model = small()
    expected = np.concatenate([model.predict(x[i : i + 1]) for i in range(6)])
    model.to("cuda")
    found = [model.predict(x[i : i + 1]) for i in range(6)]
    np.testing.assert_allclose(np.concatenate(found), expected, 1e-5, 1e-6)
    forward = next(p for key, p in model._programs.items() if key[0][0] == "predict")
    assert forward.program._run.graphs() == 1


def test_evaluation(cp):
    x, y = images(60)
    model = small()
    expected = model.evaluate(x, y, verbose=0)
    model.to("cuda")
    for given in ((x, y), (cp.asarray(x), y), (x, cp.asarray(y)), (cp.asarray(x), cp.asarray(y))):
        np.testing.assert_allclose(model.evaluate(*given, verbose=0), expected, 1e-5)
    scores = next(p for key, p in model._programs.items() if key[0][0] == "evaluate")
    scores.program.set_window(2000)
    arrays = model._arrays("evaluate", x, y)
    np.testing.assert_allclose(list(scores.run(arrays, 3).values())[::-1], expected, 1e-5)


def test_labels_are_looked_at_wherever_they_are(cp):
    x, y = images()
    y[3] = 5
    model = small().to("cuda")
    for labels in (y, cp.asarray(y)):
        with pytest.raises(ValueError, match="y between 0 and 4, got the label 5"):
            model.fit(x, labels, verbose=0)


def test_work_in_a_stream_of_the_callers(cp):
    x, _ = images()
    model = small().to("cuda")
    expected = model.predict(x)
    with cp.cuda.Stream(non_blocking=True):
        there = cp.asarray(x)
        for _ in range(3):
            y = model.predict(there)
        found = device.to_numpy(y)
    assert_same_bits(found, expected)


def test_several_threads_may_predict(cp):
    x, _ = images(20)
    model = small().to("cuda")
    expected = model.predict(x)
    failed = []

    def work():
        try:
            for _ in range(3):
                assert_same_bits(model.predict(x), expected)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# ---- models that move ----------------------------------------------------------------------------


def test_there_and_back_again(tmp_path):
    x, y = images()
    model, stays = small(), small().to("cuda")
    train(model.to("cuda"), x, y, epochs=1)
    before = state(model)
    assert all(v.gpu == 0 for v in [*model.weights, *model.optimizer.variables])
    assert model.to("cpu") is model and model.device == "cpu"
    assert all(isinstance(v.value, np.ndarray) for v in model.weights)
    for a, b in zip(before, state(model), strict=True):
        assert_same_bits(a, b)
    model.to("cpu").to("cuda").to("cuda")
    # Optimizer, dropout and counters go on as if nothing had been.
    train(model, x, y, epochs=1, seed=2)
    train(stays, x, y, epochs=1)
    train(stays, x, y, epochs=1, seed=2)
    assert_same_state(model, stays)


def test_training_goes_on_elsewhere():
    x, y = images()
    here, moves = small(), small()
    for place in ("cuda", "cpu", "cuda"):
        train(here, x, y, epochs=1)
        train(moves, x, y, epochs=1, device=place)
    assert_close_state(here, moves)


def test_weights_of_one_device_are_loaded_on_another(tmp_path):
    path = tmp_path / "w.safetensors"
    there, here = small().to("cuda"), small(seed=4)
    there.save_weights(path)
    here.load_weights(path)
    for a, b in zip(here.get_weights(), there.get_weights(), strict=True):
        assert_same_bits(a, b)
    other = tmp_path / "v.safetensors"
    here.save_weights(other)
    assert path.read_bytes() == other.read_bytes()
    fresh = small(seed=5).to("cuda")
    values = [v.value for v in fresh.weights]
    fresh.load_weights(other)
    assert all(v.value is value for v, value in zip(fresh.weights, values, strict=True))
    for a, b in zip(fresh.get_weights(), there.get_weights(), strict=True):
        assert_same_bits(a, b)


def test_new_weights_count_at_once(cp):
    x, _ = images()
    model = small().to("cuda")
    model.predict(x)
    other = small(seed=9)
    model.set_weights(other.get_weights())
    np.testing.assert_allclose(model.predict(x), other.predict(x), 1e-5, 1e-6)
    bias = model.weights[-1]
    bias.assign(cp.asarray(np.ones(5, np.float32)))
    assert_same_bits(bias.numpy(), np.ones(5, np.float32))
    assert np.asarray(bias).tolist() == [1] * 5
    with pytest.raises(ValueError, match=r"expected a value of shape \(5,\), got \(4,\)"):
        bias.assign(np.ones(4))


def test_weights_that_models_share_are_where_they_were_used_last(cp):
    x, _ = images()
    whole = small()
    inner = models.Model(whole.inputs, whole.symbol_of(whole.layers[-2]))
    expected, hidden = whole.predict(x), inner.predict(x)
    compiled = whole.compiled()
    whole.to("cuda")
    np.testing.assert_allclose(whole.predict(x), expected, 1e-5, 1e-6)
    assert inner.device == "cpu"
    assert_same_bits(inner.predict(x), hidden)
    assert whole.weights[0].gpu is None
    np.testing.assert_allclose(whole.predict(x), expected, 1e-5, 1e-6)
    assert whole.weights[0].gpu == 0
    with pytest.raises(RuntimeError, match=r"^compiled: expected the model's weights where they"):
        compiled(x[:1])


def test_a_callback_may_use_a_model_elsewhere_that_has_the_same_weights():
    class Elsewhere(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.inner.predict(x)

    x, y = images()
    here, there = small(), small()
    for model in (here, there):
        Elsewhere.inner = models.Model(model.inputs, model.symbol_of(model.layers[-2]))
        train(model, x, y, callbacks=[Elsewhere()], device="cpu" if model is here else "cuda")
    assert_close_state(here, there)

    class Too(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            Elsewhere.inner.predict(x)

    with pytest.raises(RuntimeError, match="expected weights where they were"):
        train(there, x, y, callbacks=[Too()])
    train(there, x, y)


def test_layers_on_arrays_of_the_gpu(cp):
    x, _ = images(3)
    model = small()
    expected = model(x)
    there = model.to("cuda")(cp.asarray(x))
    assert isinstance(there, cp.ndarray)
    np.testing.assert_allclose(device.to_numpy(there), expected, 1e-5, 1e-6)


def test_a_model_that_is_not_built_yet():
    x, y = points()
    here, there = (models.Sequential([layers.Dense(2)]) for _ in range(2))
    for model in (here, there.to("cuda")):
        model.compile(optimizers.SGD(0.1, momentum=0.9), "mse")
        train(model, x, y)
    assert_close_state(here, there)
    assert all(v.gpu == 0 for v in there.weights)


def test_devices_that_there_are_not(cp):
    model = one_layer()
    for name in ("gpu", "cuda:", "cuda:x", None, 0):
        with pytest.raises(
            ValueError, match=r'^to: expected device "cpu", "cuda" or "cuda:0", got'
        ):
            model.to(name)
    with pytest.raises(ValueError, match=r"^to: expected one of [0-9]+ GPUs?, got 'cuda:999'"):
        model.to("cuda:999")
    x, y = points()
    there = cp.asarray(x)
    for call in (
        lambda: model.predict(there),
        lambda: model.fit(there, y, verbose=0),
        lambda: model.fit(x, there, verbose=0),
        lambda: model.evaluate(there, y, verbose=0),
        lambda: model.compiled()(there[:1]),
    ):
        with pytest.raises(TypeError, match=r'got an array on a GPU, .*model\.to\("cuda"\)'):
            call()
    assert model.device == "cpu"


def test_without_cuda_models_say_so_and_stay(monkeypatch):
    def missing(path=None):
        raise RuntimeError("cuda: no GPU was found")

    monkeypatch.setattr(device, "_binding", None)
    monkeypatch.setattr(_core, "load_device", missing)
    model = one_layer()
    x, y = points()
    with pytest.raises(RuntimeError, match=r"^to: no GPU was found$"):
        model.to("cuda")
    with pytest.raises(RuntimeError, match=r"no GPU was found$"):
        model.fit(x, y, device="cuda", verbose=0)
    assert model.device == "cpu"
    train(model, x, y)


# ---- compiled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64, np.int32])
def test_compiled(cp, dtype):
    x, _ = images(12, dtype)
    model = small()
    expected = model.predict(x)
    model.to("cuda")
    run = model.compiled(8)
    for n in (0, 1, 3, 8, 1):
        found = run(x[:n])
        assert isinstance(found, np.ndarray) and found.shape == (n, 5)
        np.testing.assert_allclose(found, expected[:n], 1e-5, 1e-6)
        there = run(cp.asarray(x[:n]))
        assert isinstance(there, cp.ndarray)
        assert_same_bits(device.to_numpy(there), found)
    out, out_there = np.empty((8, 5), np.float32), cp.empty((8, 5), np.float32)
    assert run(x[:8], out) is out
    assert run(cp.asarray(x[:8]), out_there) is out_there
    np.testing.assert_allclose(out, expected[:8], 1e-5, 1e-6)
    assert_same_bits(device.to_numpy(out_there), out)
    with pytest.raises(TypeError, match=r"^compiled: expected out to be a CuPy array"):
        run(cp.asarray(x[:8]), out)
    with pytest.raises(TypeError, match=r"^compiled: expected out to be a NumPy array"):
        run(x[:8], out_there)
    with pytest.raises(ValueError, match="N up to 8"):
        run(cp.asarray(x))
    with pytest.raises(ValueError, match="N up to 8"):
        run(x)


def test_compiled_sees_new_weights():
    x, y = images()
    model = small().to("cuda")
    run = model.compiled(8)
    run(x[:8])
    train(model, x, y)
    assert_same_bits(run(x[:8]), model.predict(x[:8]))
    model.to("cpu")
    with pytest.raises(RuntimeError, match=r"another by model\.compiled\(\)"):
        run(x[:8])


# ---- plans and profiles --------------------------------------------------------------------------


def test_the_plan_says_where(kernels):
    text = []
    model = small().to("cuda")
    model.summary(text.append, plan=True, batch_size=16)
    assert "fused" in text[0] and "depth-first" not in text[0] and "breadth-first" not in text[0]
    assert (
        convkit.profile(model, *images(), batch_size=16, seconds=0, print_fn=None).backend
        == kernels
    )


def test_profiles(kernels):
    x, y = images()
    model = small().to("cuda")
    train(model, x, y, epochs=1)
    before = state(model)
    text = []
    result = convkit.profile(model, x, y, batch_size=16, seconds=0, print_fn=text.append)
    assert result.seconds is not None and result.seconds > 0
    assert all(row.seconds is not None and row.share is None for row in result.rows)
    assert text[0].splitlines()[-1] == kernels
    for a, b in zip(before, state(model), strict=True):
        assert_same_bits(a, b)
    assert convkit.profile(model, x, batch_size=16, seconds=0, print_fn=None).seconds > 0


# ---- what goes wrong -----------------------------------------------------------------------------


def test_allocations_that_fail(emulated, cp):
    x, y = images(20)
    expected = small().to("cuda")
    train(expected, x, y)
    messages = []
    for k in range(1, 60):
        model = small()
        gc.collect()
        cp.get_default_memory_pool().free_all_blocks()
        emulated.emulator_fail_allocation(k)
        try:
            train(model, x, y, device="cuda")
        except MemoryError as error:
            messages.append(str(error))
        emulated.emulator_fail_allocation(0)
        if model.device == "cpu":
            assert all(v.gpu is None for v in model.weights)
        assert model.predict(x).shape == (20, 5)
        if model.optimizer.iterations.numpy() == 0:
            train(model, x, y, device="cuda")
        assert_same_state(model, expected)
    assert len(messages) > 20
    assert all("no room on the GPU for" in message for message in messages)
    assert {message.partition(":")[0] for message in messages} >= {"fit", "program", "loss", "one"}


def test_batches_that_there_is_no_room_for(emulated, cp):
    x, y = images(200)
    there = cp.asarray(x)
    model = small("float64").to("cuda")  # not fused: it needs memory for each sample of a batch
    train(model, x, y)
    expected, scores = model.predict(x), model.evaluate(x, y, verbose=0)
    model.forget()  # and with its programs goes their memory
    gc.collect()
    cp.get_default_memory_pool().free_all_blocks()
    emulated.emulator_set(b"memory", emulated.emulator_allocated_bytes() + 60_000)
    message = r"no room on the GPU for [0-9,]+ bytes in steps of 200; expected a smaller batch_size"
    try:
        with pytest.raises(MemoryError, match=message):
            train(model, there, y, batch_size=200)
        # Where the size of steps does not matter, smaller ones are taken.
        found = device.to_numpy(model.predict(there, batch_size=10))
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
        found = model.evaluate(there, y, batch_size=10, verbose=0)
        np.testing.assert_allclose(found, scores, 1e-5)
        with pytest.raises(MemoryError, match=message):
            model.predict(there, batch_size=200)
    finally:
        emulated.emulator_set(b"memory", 16 << 30)
    train(model, x, y, batch_size=200)


def test_a_kernel_that_fails_is_named(emulated):
    x, y = images()
    model = small().to("cuda")
    emulated.emulator_fail_kernel(4)
    with pytest.raises(RuntimeError, match=r"[a-z0-9_]+: a failure that a test asked for"):
        train(model, x, y)
    emulated.emulator_recover()
    assert model.to("cpu").predict(x).shape == (37, 5)


def test_nothing_leaks(emulated, cp, monkeypatch):
    def use() -> None:
        x, y = images()
        model = small()
        train(model, x, y, device="cuda", validation_data=(x, y))
        model.predict(cp.asarray(x))
        model.compiled(3)(x[:2])
        with pytest.raises(ValueError):
            model.predict(x[..., 0])
        monkeypatch.setenv(placement.LIMIT, "0")
        train(model, x, y)
        monkeypatch.delenv(placement.LIMIT)
        model.to("cpu")

    def left() -> str:
        gc.collect()
        cp.get_default_memory_pool().free_all_blocks()
        return emulated.emulator_leaks().decode()

    use()
    before = left()
    use()
    assert left() == before


def test_ctrl_c_ends_training_between_steps():
    class Interrupts(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                signal.setitimer(signal.ITIMER_REAL, 0.15)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    x, y = points(400)
    model = one_layer().to("cuda")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(model, x, y, batch_size=1, epochs=10_000, callbacks=[Interrupts()])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert model.optimizer.iterations.numpy() > 400
    assert all(np.isfinite(w).all() for w in model.get_weights())
    train(model, x, y)


def test_a_model_is_trained_by_one_fit_at_a_time():
    class Again(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.fit(*points(), verbose=0)

    model = one_layer().to("cuda")
    with pytest.raises(RuntimeError, match="fit: expected a model at rest"):
        train(model, *points(), callbacks=[Again()])
    train(model, *points())


def test_plans_that_a_device_does_not_take():
    native = _core.Program("float32")
    x, t, y = native.fed(4, 4), native.tile(4, 4), native.fed(4, 4)
    rows = _core.Gather(size=4, type=3, scale=1.0, offset=0.0)
    native.node("tile_gather", rows, [x, -1, t], True)
    native.node("untile", _core.Elementwise(size=4), [t, y], True)
    with pytest.raises(ValueError, match="expected a breadth-first plan"):
        _core.DeviceProgram(native, device.backend(), 0)
    with pytest.raises(ValueError, match="got 'rocm'"):
        _core.DeviceProgram(_core.Program("float32"), "rocm", 0)


def test_arrays_that_a_program_does_not_take(cp):
    weight = Variable(np.ones(4, np.float32), "weight")
    x = Symbol((None, 4), "float32", place="fed")
    y = gather(x, None, "float32")
    program = Program("float32", results=[y], gpu=0)
    for array, message in (
        (np.zeros((3, 4)), "another dtype"),
        (cp.zeros((3, 4), np.float64), "another dtype"),
        (np.zeros((3, 5), np.float32), "another size"),
        (cp.zeros((3, 5), np.float32), "another size"),
        (np.zeros((4, 3), np.float32).T, "C-contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            program.bind(x, array)
    out = np.zeros((3, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="a writable array"):
        program.bind(y, out)
    assert weight.gpu is None


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_line(monkeypatch, tmp_path, capsys):
    from convkit import cli

    x, y = images(40, np.uint8)
    wide = np.repeat(np.repeat(x[..., 0], 4, 1), 4, 2)[:, 2:30, 2:30]
    np.savez(tmp_path / "d.npz", x_train=wide, y_train=y, x_test=wide, y_test=y)
    monkeypatch.chdir(tmp_path)
    for place, said in (("cuda", "cuda:0"), ("auto", "cuda:0"), ("cpu", "thread")):
        arguments = ["train", "--data", "d.npz", "--epochs", "1", "--device", place]
        monkeypatch.setattr(sys, "argv", ["convkit", *arguments])
        assert cli.main(arguments) in (0, None)
        assert said in capsys.readouterr().out
