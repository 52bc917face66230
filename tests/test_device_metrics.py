"""Losses and metrics on a GPU, or on the emulated one with tests/fake_cupy.py in CuPy's place."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from devices import DEVICES, emulator
from test_metrics_more import classifier, everything, samples

from convkit import device, losses, metrics
from convkit.utils import to_categorical

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
        emulator().emulator_recover()


def up(array: np.ndarray) -> Any:
    return device.from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize("loss", ["huber", "dice", "categorical_focal_crossentropy", "poisson"])
def test_training_with_counters_is_that_of_the_processor(loss):
    x, labels = samples()
    y = to_categorical(labels, 3)
    found = []
    for where in ("cpu", "cuda"):
        chosen = everything()
        model = classifier(loss, chosen)
        history = model.fit(x, y, batch_size=20, epochs=2, verbose=0, device=where).history
        found.append((history, [metric.result() for metric in chosen], model.predict(x)))
    assert found[0][0].keys() == found[1][0].keys()
    for name, values in found[0][0].items():
        np.testing.assert_allclose(found[1][0][name], values, rtol=2e-4, err_msg=name)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-4)
    np.testing.assert_allclose(np.asarray(found[1][2]), found[0][2], rtol=1e-4, atol=1e-6)


def test_evaluation_of_labels():
    x, labels = samples()
    matrix, union = metrics.ConfusionMatrix(), metrics.MeanIoU(3, sparse_y_pred=False)
    top = metrics.SparseTopKCategoricalAccuracy(2)
    model = classifier("sparse_categorical_crossentropy", [matrix, union, top])
    here = model.evaluate(x, labels, return_dict=True)
    counts = matrix.result()
    model.to("cuda")
    there = model.evaluate(x, labels, return_dict=True)
    np.testing.assert_array_equal(matrix.result(), counts)
    assert there == pytest.approx(here, rel=1e-5)
    model.to("cpu")
    assert model.evaluate(x, labels, return_dict=True) == here


@pytest.mark.parametrize("metric", everything(), ids=lambda metric: metric.name)
def test_arrays_on_a_gpu_are_counted_there(metric, rng):
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 40)]
    p = rng.uniform(0.05, 0.95, (40, 3)).astype(np.float32)
    right = type(metric).from_config(metric.get_config())(y, p)
    metric.update_state(up(y[:25]), up(p[:25]))
    metric.update_state(up(y[25:]), up(p[25:]))
    np.testing.assert_allclose(metric.result(), right, rtol=1e-5)
    assert metric.variables[0].gpu is not None
    metric.update_state(y, p)  # counters come back
    assert metric.variables[0].gpu is None
    metric.reset_state()
    np.testing.assert_allclose(metric(up(y), up(p)), right, rtol=1e-5)


def test_labels_on_a_gpu(rng):
    labels, p = rng.integers(0, 3, 40), rng.uniform(size=(40, 3)).astype(np.float32)
    for make in (
        metrics.SparseCategoricalAccuracy,
        metrics.ConfusionMatrix,
        lambda: metrics.SparseTopKCategoricalAccuracy(2),
        lambda: metrics.MeanIoU(3, sparse_y_pred=False),
    ):
        np.testing.assert_allclose(make()(up(labels), up(p)), make()(labels, p), rtol=1e-6)


def test_losses_of_arrays_on_a_gpu(rng):
    t, p = rng.uniform(size=(5, 4)).astype("f4"), rng.uniform(0.1, 0.9, (5, 4)).astype("f4")
    weights = np.arange(5.0)
    for loss in (losses.Huber(), losses.Dice(), losses.Poisson(reduction="none")):
        np.testing.assert_allclose(loss(up(t), up(p)), loss(t, p), rtol=1e-5)
        right = loss(t, p, sample_weight=weights)
        np.testing.assert_allclose(loss(up(t), up(p), sample_weight=weights), right, rtol=1e-5)
