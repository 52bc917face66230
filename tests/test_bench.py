"""The benchmarks' networks, as convkit builds them there: shapes, counts, and that they train."""

from __future__ import annotations

import networks
import numpy as np
import pytest
from data import random_data
from engines import convkit_engine
from networks import NETWORKS


def test_counts_of_lenet():
    """Worked out by hand: two convolutions and three dense layers."""
    forward = [28 * 28 * 6 * 25, 10 * 10 * 16 * 150, 400 * 120, 120 * 84, 84 * 10]
    lenet = NETWORKS["lenet"]
    assert lenet.multiply_adds() == sum(forward)
    assert lenet.training_multiply_adds() == 3 * sum(forward) - forward[0]


def test_a_skip_brings_the_channels_of_the_layer_it_names():
    net = networks.Network(
        (4, 6, 1),
        (
            networks.Conv(2, 3, "same"),
            networks.Pool(2),
            networks.Conv(3, 3, "same"),
            networks.Upsample(2),
            networks.Concatenate(0),
        ),
    )
    assert net.shapes()[1:] == [(4, 6, 2), (2, 3, 2), (2, 3, 3), (4, 6, 3), (4, 6, 5)]


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
