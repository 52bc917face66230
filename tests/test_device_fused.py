"""Models whose steps blocks of threads of a GPU carry out depth-first, by `fit` and the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits
from test_device_program import (  # noqa: F401 (fixtures)
    OPTIMIZERS,
    assert_close_state,
    assert_same_state,
    emulated,
    images,
    kernels,
    program_of,
    small,
    state,
    train,
)

import convkit
from convkit import _core, config, device, graph, layers, models, utils
from convkit.models import placement

pytestmark = pytest.mark.usefixtures("cp")


def lenet(optimizer: Any = "adam", dtype: str = "float32") -> models.Sequential:
    """As LeNet-5, of fewer filters, on images of 12 x 12."""
    utils.set_random_seed(7)
    like: Any = {"dtype": dtype}
    model = models.Sequential(
        [
            layers.Input((12, 12, 1), dtype=dtype),
            layers.Rescaling(1 / 255, **like),
            layers.Conv2D(4, 5, padding="same", activation="relu", **like),
            layers.MaxPooling2D(2, **like),
            layers.Conv2D(6, 3, activation="relu", **like),
            layers.MaxPooling2D(2, **like),
            layers.Flatten(**like),
            layers.Dense(10, activation="relu", **like),
            layers.Dense(5, activation="softmax", **like),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def pictures(count: int = 37) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    x = rng.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8)
    return x, rng.integers(0, 5, count)


def wide(optimizer: Any = "adam") -> models.Sequential:
    """A dense layer that no block of threads takes."""
    utils.set_random_seed(7)
    model = models.Sequential(
        [
            layers.Input((12, 12, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(2000, activation="relu"),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plan(model: models.Model) -> str:
    text: list[str] = []
    model.summary(text.append, plan=True, batch_size=8)
    return text[0].partition("batches of 8")[2]


def node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.Model, "_depth_first", lambda *_, **__: False)


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lenet, small])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_training_is_that_of_the_processor_to_rounding(make, name):
    data = pictures if make is lenet else images
    here, there = (make(optimizer=OPTIMIZERS[name]()) for _ in range(2))
    options = {"validation_data": data(11), "epochs": 2}  # a smaller batch comes last
    first = train(here, *data(), **options)
    second = train(there, *data(), **options, device="cuda")
    assert program_of(there).fused and not program_of(here).fused
    for key in first:
        np.testing.assert_allclose(first[key], second[key], 1e-4)
    for a, b in zip(state(here), state(there), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 2e-5)
    assert there.optimizer.iterations.numpy() == 2 * 5


def test_it_is_the_node_by_node_training_to_rounding(monkeypatch):
    x, y = images()
    fused, single = small(), small()
    train(fused, x, y, device="cuda")
    node_by_node(monkeypatch)
    train(single, x, y, device="cuda")
    assert program_of(fused).fused and not program_of(single).fused
    assert_close_state(fused, single)


def test_a_step_is_two_kernels(emulated):  # noqa: F811
    x, y = pictures(40)
    model = lenet().to("cuda")
    train(model, x, y, epochs=1)
    before = emulated.emulator_run_kernels()
    train(model, x, y, epochs=1)
    assert emulated.emulator_run_kernels() - before <= 2 * 5 + 1  # and the order of the epoch


def test_graphs_are_replayed_bit_for_bit():
    x, y = pictures(150)
    models_ = [lenet().to("cuda") for _ in range(3)]
    arrays = models_[2]._arrays("fit", x, y)
    models_[2]._training_step(arrays, 4).program.profile(True)  # no graphs
    for model in models_:
        train(model, x, y, batch_size=4, epochs=2)
    # For full batches and for the last one of each epoch; on a fast device for several at a time.
    graphs = [program_of(model)._run.graphs() for model in models_]
    assert graphs[0] in (2, 3) and graphs[2] == 0
    assert_same_state(models_[0], models_[1])
    assert_same_state(models_[0], models_[2])
    seconds = program_of(models_[2]).seconds()
    assert seconds[0] > 0 and not any(seconds[1:])


def test_larger_and_smaller_batches_one_after_the_other():
    x, y = pictures()
    here, there = lenet(), lenet().to("cuda")
    for model in (here, there):
        for batch in (4, 16, 3, 37, 8):
            train(model, x, y, epochs=1, batch_size=batch)
            model.train_on_batch(x[:batch], y[:batch])
    assert program_of(there).fused
    for a, b in zip(state(here), state(there), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 2e-5)


@pytest.mark.parametrize("window", [1, 2000, 1 << 30])
def test_data_that_do_not_fit_train_the_same(monkeypatch, window):
    x, y = pictures(101)
    fits, streamed = lenet().to("cuda"), lenet().to("cuda")
    train(fits, x, y)
    monkeypatch.setenv(placement.LIMIT, "0")
    step = streamed._training_step(streamed._arrays("fit", x, y), 8)
    step.program.set_window(window)
    train(streamed, x, y)
    assert step.program.fused
    assert_same_state(fits, streamed)


def test_arrays_that_are_not_aligned(cp):
    rng = np.random.default_rng(1)
    # A row of this data is 3 bytes, so it begins anywhere.
    x = rng.integers(0, 256, (20, 3), dtype=np.uint8)
    y = rng.integers(0, 2, 20)
    utils.set_random_seed(2)
    model = models.Sequential([layers.Input((3,)), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    expected = model.predict(x[1:])
    model.to("cuda")
    there = cp.asarray(x)[1:]
    found = model.predict(there)
    np.testing.assert_allclose(device.to_numpy(found), expected, 1e-5, 1e-6)
    out = cp.zeros((20, 2), np.float32)
    run = model.compiled(19)
    assert run(there, out[1:]) is not None
    assert_same_bits(device.to_numpy(out)[1:], device.to_numpy(found))
    assert not device.to_numpy(out)[0].any()
    other = models.Sequential([layers.Input((3,)), layers.Dense(2, activation="softmax")])
    other.set_weights(model.get_weights())
    other.compile("sgd", "sparse_categorical_crossentropy")
    train(model, there, cp.asarray(y)[1:])
    train(other, x[1:], y[1:], device="cuda")
    assert_same_state(model, other)


def test_memory_that_no_block_can_read_is_refused(cp):
    x = pictures(4)[0]
    model = lenet().to("cuda")
    expected = model.predict(x)
    (prediction,) = (made for key, made in model._programs.items() if key[0][0] == "predict")
    program = prediction.program
    raw, y = cp.zeros(x.size + 16, np.uint8), cp.zeros(expected.shape, np.float32)
    value = program._ids[id(graph.root(prediction.x[0]))]
    with program.bound((prediction.y[0], y)):
        program._run.bind_device(value, device.pointer(raw) + 1, 1, x.size, len(x), raw)
        with pytest.raises(ValueError, match=r"^stretch: expected .* 16-byte aligned$"):
            program.run(0, 4, 4)
        program._run.unbind(value)
    assert_same_bits(model.predict(x), expected)


# ---- evaluation and prediction -------------------------------------------------------------------


def test_evaluation_and_prediction(cp):
    x, y = pictures(60)
    model = lenet()
    expected, scores = model.predict(x), model.evaluate(x, y, verbose=0)
    model.to("cuda")
    found = model.predict(x)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    for n in (1, 5, 60):
        assert_same_bits(model.predict(x[:n]), found[:n])
        assert_same_bits(device.to_numpy(model.predict(cp.asarray(x[:n]))), found[:n])
        assert_same_bits(model.compiled(n)(x[:n]), found[:n])
    for given in ((x, y), (cp.asarray(x), y), (x, cp.asarray(y)), (cp.asarray(x), cp.asarray(y))):
        np.testing.assert_allclose(model.evaluate(*given, verbose=0), scores, 1e-5)
    assert all(
        program.program.fused
        for key, program in model._programs.items()
        if key[0][0] in ("predict", "evaluate")
    )


def test_profiles_are_of_single_kernels():
    x, y = pictures()
    model = lenet().to("cuda")
    train(model, x, y, epochs=1)
    before = state(model)
    for targets in (y, None):
        result = convkit.profile(model, x, targets, batch_size=8, seconds=0, print_fn=None)
        assert all(row.seconds is not None for row in result.rows)
        assert {row.schedule for row in result.rows} == {"breadth-first"}
    for a, b in zip(before, state(model), strict=True):
        assert_same_bits(a, b)


# ---- what is chosen ------------------------------------------------------------------------------


def test_the_plan_says_so():
    model = lenet().to("cuda")
    text = plan(model)
    assert "fused" in text and "breadth-first" not in text and "not fused" not in text
    assert "per block of threads for its sample" in text
    model.to("cpu")
    assert "fused" not in plan(model)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: lenet(dtype="float64"), "a block of threads has no float64"),
        (wide, "a block of threads has no use for dense layers of more than"),
    ],
)
def test_what_does_not_fit_goes_node_by_node(make, reason):
    x, y = pictures()
    here, there = make(), make()
    train(here, x, y)
    train(there, x, y, device="cuda")
    assert not program_of(there).fused
    text = plan(there)
    assert f"not fused: {reason}" in text and "breadth-first" in text
    for a, b in zip(there.predict(x), here.predict(x), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-4)


def test_other_precisions_go_node_by_node():
    x, y = pictures()
    model = lenet().to("cuda")
    train(model, x, y, epochs=1)
    assert program_of(model).fused
    config.set_precision("tf32")
    try:
        train(model, x, y, epochs=1)
        assert not program_of(model).fused
        assert "not fused: precision tf32" in plan(model)
    finally:
        config.set_precision("float32")
    assert " fused" in plan(model)
    train(model, x, y, epochs=1)


def test_a_plan_that_does_not_fit_is_its_own_error():
    native = _core.Program("float32")
    with pytest.raises(_core.DoesNotFit, match="a program without a stretch"):
        _core.DeviceProgram(native, device.backend(), 0, True)
    assert issubclass(_core.DoesNotFit, ValueError)
