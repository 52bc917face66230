"""LeNet on digits: the GPU's accuracy is the processor's, and weights go both ways."""

from __future__ import annotations

import gpu.required  # noqa: F401
import numpy as np
import pytest
from gpu.small_models import assert_same_state, digits, lenet, train

import convkit

EPOCHS = 5


@pytest.fixture(scope="module")
def trained() -> tuple:
    """Two models after the same training, on the processor and on the GPU, and their histories."""
    (x, y), held_out = digits()
    pair, histories = [], []
    for place in ("cpu", "cuda"):
        model = lenet()
        options = {"batch_size": 32, "epochs": EPOCHS, "validation_data": held_out}
        histories.append(train(model, x, y, device=place, **options))
        pair.append(model)
    return pair, histories


def test_accuracy_on_the_gpu_is_the_processors(trained):
    (here, there), (first, second) = trained
    assert there.device.startswith("cuda")
    # The first epoch is the same to rounding; from there on rounding grows, not the error.
    assert second["loss"][0] == pytest.approx(first["loss"][0], rel=1e-2)
    _, (x, y) = digits()
    scores = [model.evaluate(x, y, verbose=0)[1] for model in (here, there)]
    assert min(scores) > 0.9
    assert abs(scores[0] - scores[1]) < 0.02
    assert scores[1] == pytest.approx(second["val_accuracy"][-1])


def test_the_same_training_twice_has_the_same_bits(trained):
    (x, y), _ = digits()
    pair = [lenet().to("cuda") for _ in range(2)]
    for model in pair:
        train(model, x, y, batch_size=32, epochs=2)
    assert_same_state(*pair)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_training_with_tensor_cores_learns_too(precision, cp):
    (x, y), (test_x, test_y) = digits()
    model = lenet().to("cuda")
    try:
        convkit.set_precision(precision)
        train(model, x, y, batch_size=32, epochs=EPOCHS)
        assert model.evaluate(test_x, test_y, verbose=0)[1] > 0.9
    finally:
        convkit.set_precision("float32")


def test_weights_saved_on_one_are_loaded_on_the_other(trained, tmp_path):
    (here, there), _ = trained
    _, (x, _) = digits()
    for source, target in ((here, lenet(7).to("cuda")), (there, lenet(7))):
        path = tmp_path / f"{source.device[:4]}.safetensors"
        source.save_weights(path)
        target.load_weights(path)
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(target.predict(x), source.predict(x), 1e-4, 1e-5)


def test_a_model_that_goes_there_and_back(trained):
    (here, _), _ = trained
    _, (x, _) = digits()
    expected = here.predict(x)
    there = here.to("cuda").predict(x)
    np.testing.assert_allclose(there, expected, 1e-4, 1e-5)
    np.testing.assert_array_equal(here.to("cpu").predict(x), expected)
