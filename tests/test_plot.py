"""Pictures: they are made, show what was given, and leave Matplotlib's state alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from convkit import Model, layers, models, plot, utils
from convkit.datasets import digits

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.figure import Figure  # noqa: E402 - only where there is Matplotlib


@pytest.fixture(scope="module")
def test_set():
    _, (x, y) = digits.load_data(size=28)
    return x[:100, ..., np.newaxis] / np.float32(255), y[:100].astype(np.int32)


@pytest.fixture(scope="module")
def trained(test_set):
    utils.set_random_seed(0)
    model = models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*test_set, epochs=2, verbose=0, validation_data=test_set)
    return model, history


def texts(figure: Figure) -> list[str]:
    """All that is written in a figure."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(Text) if t.get_visible() and t.get_text()]


def size_of(path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_predictions(test_set, trained, tmp_path):
    x, y = test_set
    y_pred = np.full((100, 10), 0.01, np.float32)
    y_pred[np.arange(100), y] = 0.91
    y_pred[3] = np.roll(y_pred[3], 1)
    figure = plot.predictions(x, y, y_pred, path=tmp_path / "p.png")
    assert isinstance(figure, Figure)
    assert size_of(tmp_path / "p.png")[0] > 900
    said = texts(figure)
    assert "99 of 100 right" in said
    assert sum(text.startswith("✓") for text in said) == 39
    assert [text for text in said if text.startswith("✗")] == [
        f"✗ {(y[3] + 1) % 10}  91 %\nis {y[3]}"
    ]


def test_predictions_by_name_and_without_truth(test_set):
    x, y = test_set
    names = [f"class {i}" for i in range(10)]
    said = texts(plot.predictions(x[:3, ..., 0], None, y[:3], class_names=names, title="seen"))
    assert sorted(said) == sorted(["seen", *(f"class {label}" for label in y[:3])])
    colour = np.zeros((2, 8, 8, 3), np.uint8)
    assert "1 of 2 right" in texts(plot.predictions(colour, [0, 1], [0, 0]))


def test_history(trained):
    _, history = trained
    figure = plot.history(history, validation="test", title="Two epochs")
    assert len(figure.axes) == 2
    said = texts(figure)
    assert {"Two epochs", "loss", "accuracy", "training", "test", "epoch"} <= set(said)
    lines = figure.axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), history.history["loss"])
    np.testing.assert_array_equal(lines[1].get_ydata(), history.history["val_loss"])
    assert len(plot.history({"loss": [2.0]}).axes) == 1


def test_filters(trained):
    model, _ = trained
    name = model.layers[0].name
    assert f"{name}: 6 filters of 5 × 5" in texts(plot.filters(model.layers[0]))
    figure = plot.filters(model.layers[2])
    assert sum(len(ax.images) for ax in figure.axes) == 6 * 16
    np.testing.assert_array_equal(
        figure.axes[17].images[0].get_array(), np.asarray(model.layers[2].kernel)[:, :, 1, 1]
    )


def test_feature_maps_are_the_layer_s_output(test_set, trained):
    model, _ = trained
    x = test_set[0][0]
    expected = model.layers[0](x[np.newaxis])[0]
    figure = plot.feature_maps(model, x)
    maps = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_array_equal(maps[0], x[..., 0])
    for i in range(6):
        np.testing.assert_allclose(maps[1 + i], expected[..., i], rtol=1e-5, atol=1e-6)
    by_name = plot.feature_maps(model, x[np.newaxis], model.layers[2].name)
    assert any("16 maps of 10 × 10" in text for text in texts(by_name))
    plot.feature_maps(model, x, layer=3)
    plot.feature_maps(model, x, layer=model.layers[1])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_feature_maps_of_channels_first_and_of_signed_outputs(channels):
    x = layers.Input((channels, 8, 8))
    y = layers.Conv2D(4, 3, data_format="channels_first", activation="tanh")(x)
    image = np.random.default_rng(0).random((channels, 8, 8), np.float32)
    figure = plot.feature_maps(Model(x, layers.Flatten()(y)), image)
    assert any("4 maps of 6 × 6" in text for text in texts(figure))


def test_confusion_matrix(tmp_path):
    y_true, y_pred = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    figure = plot.confusion_matrix(y_true, y_pred, ["cat", "dog", "owl"], path=tmp_path / "c.svg")
    said = texts(figure)
    assert {"cat", "dog", "owl", "66.67% of 6 right"} <= set(said)
    cells = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text()
        for t in figure.axes[0].texts
    }
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "2", (2, 0): "1"}
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


def test_overview(test_set, trained, tmp_path):
    model, history = trained
    figure = plot.overview(model, history, *test_set, path=tmp_path / "o.png")
    width, height = size_of(tmp_path / "o.png")
    assert width >= 1200
    assert height < width
    assert (tmp_path / "o.png").stat().st_size < 300_000
    assert any("of 100 test images right" in text for text in texts(figure))


def test_overview_of_a_model_without_mistakes_and_with_two_classes(test_set):
    x, y = test_set
    x, y = x[y < 2], y[y < 2]
    model = models.lenet(classes=2)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=15, batch_size=4, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] == 1
    plot.overview(model, history, x, y, class_names=["nought", "one"])


def test_bad_arguments(test_set, trained):
    x, y = test_set
    model, _ = trained
    with pytest.raises(ValueError, match="as many rows as images"):
        plot.predictions(x, y[:5], y)
    with pytest.raises(ValueError, match="expected images of shape"):
        plot.predictions(y, y, y)
    with pytest.raises(ValueError, match="expected 10 class names, got 2"):
        plot.predictions(x, y, y, class_names=["a", "b"])
    with pytest.raises(ValueError, match="at least one epoch"):
        plot.history({})
    with pytest.raises(ValueError, match="expected a built convolution"):
        plot.filters(model.layers[1])
    with pytest.raises(ValueError, match="expected a built convolution"):
        plot.filters(layers.Conv2D(3, 3))
    with pytest.raises(ValueError, match=r"expected one image of shape \(28, 28, 1\)"):
        plot.feature_maps(model, x)
    with pytest.raises(ValueError, match=r"with output \(N, H, W, C\)"):
        plot.feature_maps(model, x[0], layer=-1)
    with pytest.raises(ValueError, match="expected a layer of the model"):
        plot.feature_maps(model, x[0], layer=layers.Conv2D(3, 3))
    with pytest.raises(ValueError, match="as many predictions as labels"):
        plot.confusion_matrix(y, y[:3])
    with pytest.raises(ValueError, match="whole numbers from 0"):
        plot.confusion_matrix(y, y - 1)


def test_the_user_s_settings_are_neither_read_nor_changed(trained):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        figure = plot.history(trained[1])
        assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].get_facecolor() != (0, 0, 0, 1)


def test_pyplot_is_not_imported(tmp_path):
    code = """
import sys
from convkit import plot
assert "matplotlib" not in sys.modules
plot.history({"loss": [2, 1]}, path="h.png")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)


def test_matplotlib_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"convkit-nn\[plot\]"):
        plot.history({"loss": [1.0]})
