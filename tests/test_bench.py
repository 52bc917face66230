"""The benchmarks: networks as convkit builds them there, shapes, counts, and that they train; and
ops, which give what the baselines in NumPy give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import call_cost
import network
import numpy as np
import numpy_baseline
import ops_table
import pytest
from cpu_cases import NetworkRow, Row, cpu_cases
from data import random_data
from driver import Result
from engines import convkit_engine, fma_engine
from engines.clock import fastest
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
    [
        ("resnet8", 12_501_632, 78_042),
        ("mobilenet", 7_489_664, 213_586),
        # As published, but for the last layer's classes: 512 x 1000 weights and 1000 biases there.
        ("resnet18", 148_050_944, 11_689_512 - 513 * 990),
    ],
)
def test_counts_of_known_networks(name, multiply_adds, trained):
    net = NETWORKS[name]
    assert net.multiply_adds() == multiply_adds
    assert sum(w.size for w in net.weights()) == trained


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_and_predict(name):
    net = NETWORKS[name]
    x, targets = random_data(net, 6)
    epoch = convkit_engine.trainer(net, x, targets, 6)
    losses = [epoch()[0] for _ in range(3)]
    assert losses[0] > max(losses[1:])
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
    assert set(ops.__all__) - {"plan"} == {case.function for case in found}
    assert len({(case.function, case.shape) for case in found}) == len(found)


# ---- the table of what is asked ------------------------------------------------------------------


def small(row: Row) -> Row:
    """The same op on few and small samples."""
    if "groups" in row.options:
        shapes = ((17, 17, 6), (3, 3, 3, 6), (6,))
        inputs = [
            replace(given, shape=shape) for given, shape in zip(row.inputs, shapes, strict=True)
        ]
        return replace(row, inputs=tuple(inputs), batch=3, options={**row.options, "groups": 2})
    inputs = [
        replace(given, shape=tuple(min(size, 17) for size in given.shape)) for given in row.inputs
    ]
    return replace(row, inputs=tuple(inputs), batch=min(row.batch, 3))


@pytest.mark.parametrize(
    "row",
    [row for row in cpu_cases("table") if isinstance(row, Row)],
    ids=lambda row: f"{row.function} {row.shape}",
)
def test_rows_of_the_table(row: Row):
    case = small(row)
    arrays = case.arrays()
    if not case.backward:
        assert case.bind(numpy_baseline, arrays)().shape == case.output
    ours = arrays_of(convkit_engine.operation(case, arrays)())
    plain = arrays_of(case.bind(numpy_baseline, arrays)())
    for a, b in zip(ours, plain, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_rows_can_be_told_apart_and_chosen():
    rows = list(cpu_cases("table"))
    assert len({(row.function, row.shape) for row in rows}) == len(rows)
    assert all(0 < row.asked[0] <= row.asked[1] for row in rows)
    few = list(cpu_cases("table", only="max_pool2d_backward", batches=[1]))
    assert [(row.function, row.batch) for row in few] == [("max_pool2d_backward", 1)] * 2
    assert {row.batch for row in cpu_cases("lenet", batches=[32])} == {32}


def test_operations_and_bytes_of_a_row():
    forward = next(cpu_cases("table", only="1×56×56×64"))
    assert forward.flops == 2 * 56 * 56 * 64 * 64 * 9
    assert forward.bytes == 4 * (2 * 56 * 56 * 64 + 9 * 64 * 64 + 64)
    step = NetworkRow("resnet18", 2, training=True, asked=(1.0, 2.0))
    assert step.flops == 4 * NETWORKS["resnet18"].training_multiply_adds()


def test_what_the_table_says_of_a_row():
    one, two, three = list(cpu_cases("table", only="dense"))[:3]
    ours = Result("convkit", "", {"sums": [[[1, 2]], [], [[1, 2]]]}, [[1.0, 1.0, 1.0]] * 3)
    peer = Result("peer", "", {"sums": [[[1, 2]], [[3, 3]], [[1, 9]]]}, [[2.0, 1.2, math.nan]] * 3)
    numpy = Result("numpy", "", {"sums": [[], [], []]}, [[9.0, 9.0, 0.5]] * 3)
    limits = [1e9 / one.flops, *[0.25] * 3]
    rows = ops_table._rows([one, two, three], [ours, peer, numpy], limits)
    assert [row["best"] for row in rows] == [2.0, 1.2, 0.5]
    assert [row["reached"] for row in rows] == ["aim", "yes", "no"]
    assert rows[0]["shares"] == {"fma": 0.5, "copy": 0.25}
    text = ops_table._summary(rows, limits)
    assert "2 reach at least what is asked, 1 the aim" in text
    assert "2 of 3 are 3 times" in text


def test_results_that_differ_are_named(capsys):
    found = list(cpu_cases("table", only="dense"))[:2]
    ours = Result("convkit", "", {"sums": [[[1.0, 2.0]], [[1.0, 2.0]]]})
    peer = Result("peer", "", {"sums": [[[1.00001, 2.0]], [[1.01, 2.0]]]})
    ops_table.compare(found, [ours, peer])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"peer: {found[1].function} {found[1].shape} differs")


# ---- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", list(call_cost.small_cases()), ids=lambda case: f"{case.function} {case.shape}"
)
def test_kernels_can_be_repeated_without_python(case: Case):
    arrays = case.arrays()
    right = arrays_of(case.bind(ops, arrays)())
    found = arrays_of(call_cost.repeated(case, arrays, 3)())
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_fastest_call_is_found():
    def slow() -> int:
        return sum(range(20_000))

    assert fastest([slow, lambda: None, slow])() is None
    assert fastest([slow]) is slow


def test_copies_are_measured():
    fma_engine.set_up(2)
    copy = fma_engine.Copy(1 << 20)
    assert 0 < copy.measure(1 << 20) < 1
    assert math.isnan(copy.measure(1000))
