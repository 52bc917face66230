"""The benchmarks: networks as convkit builds them there, shapes, counts, and that they train; and
ops, which give what the baselines in NumPy give."""

from __future__ import annotations

from typing import Any

import network
import numpy as np
import numpy_baseline
import pytest
from data import random_data
from engines import convkit_engine
from measured import NETWORKS
from op_cases import Case, cases

from convkit import ops


def test_counts_of_lenet():
    """Worked out by hand: two convolutions and three dense layers."""
    forward = [28 * 28 * 6 * 25, 10 * 10 * 16 * 150, 400 * 120, 120 * 84, 84 * 10]
    lenet = NETWORKS["lenet"]
    assert lenet.multiply_adds() == sum(forward)
    assert lenet.training_multiply_adds() == 3 * sum(forward) - forward[0]


def test_a_skip_brings_the_channels_of_the_layer_it_names():
    net = network.Network(
        (4, 6, 1),
        (
            network.Conv(2, 3, "same"),
            network.Pool(2),
            network.Conv(3, 3, "same"),
            network.Upsample(2),
            network.Concatenate(0),
        ),
    )
    assert net.shapes()[1:] == [(4, 6, 2), (2, 3, 2), (2, 3, 3), (4, 6, 3), (4, 6, 5)]
    assert net.skips == {0}


def test_a_branch_goes_on_from_the_layer_it_names():
    net = network.Network(
        (5, 7, 1),
        (
            network.Conv(2, 3, "same", stride=2, bias=False),
            network.Depthwise(3, stride=2),
            network.Branch(0),
            network.Depthwise(3, stride=2),
            network.Add(1, "relu"),
            network.GlobalPool(),
        ),
    )
    assert net.shapes()[1:] == [(3, 4, 2), (2, 2, 2), (3, 4, 2), (2, 2, 2), (2, 2, 2), (2,)]
    assert net.multiply_adds() == 3 * 4 * 2 * 9 + 2 * (2 * 2 * 2 * 9)
    assert [w.shape for w in net.weights()] == [(3, 3, 1, 2), (3, 3, 2, 1), (3, 3, 2, 1)]
    assert net.weights_channels_first()[1].shape == (2, 1, 3, 3)
    x = random_data(net, 3)[0]
    y = convkit_engine.model(net).predict(x, verbose=0)
    first, one, other = net.weights()
    half = ops.conv2d(x, first, strides=2, padding=1)
    both = [ops.depthwise_conv2d(half, kernel, strides=2, padding=1) for kernel in (one, other)]
    np.testing.assert_allclose(y, ops.relu(both[0] + both[1]).mean((1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "multiply_adds", "trained"),
    [("resnet8", 12_501_632, 78_042), ("mobilenet", 7_489_664, 213_586)],
)
def test_counts_of_those_of_mlperf_tiny(name, multiply_adds, trained):
    net = NETWORKS[name]
    assert net.multiply_adds() == multiply_adds
    assert sum(w.size for w in net.weights()) == trained


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_and_predict(name):
    net = NETWORKS[name]
    x, targets = random_data(net, 6)
    epoch = convkit_engine.trainer(net, x, targets, 6)
    losses = [epoch()[0] for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]
    predict = convkit_engine.predictor(net)
    many = predict(x)
    assert many.shape == (6, *net.output_shape)
    np.testing.assert_allclose(predict(x[:1]), many[:1], rtol=1e-4, atol=1e-6)


# ---- ops -----------------------------------------------------------------------------------------


def arrays_of(result: Any) -> list[np.ndarray]:
    found = list(result) if isinstance(result, (list, tuple)) else [result]
    return [array for array in found if array is not None]


@pytest.mark.parametrize(
    "case", list(cases((3,))), ids=lambda case: f"{case.function} {case.shape}"
)
def test_ops_give_what_the_baselines_give(case: Case):
    arrays = case.arrays()
    ours = arrays_of(convkit_engine.operation(case, arrays)())
    plain = arrays_of(case.bind(numpy_baseline, arrays)())
    for a, b in zip(ours, plain, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_every_op_has_a_case_and_every_case_a_name_of_its_own():
    found = list(cases((3,)))
    assert set(ops.__all__) == {case.function for case in found}
    assert len({(case.function, case.shape) for case in found}) == len(found)
