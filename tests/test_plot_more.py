"""Pictures of networks: their graph, what each layer makes of an image, where they look."""

from __future__ import annotations

import numpy as np
import pytest
from test_plot import size_of, texts

from convkit import Input, Model, Sequential, layers, models, optimizers, plot, schedules, utils
from convkit.plot.grad_cam import enlarged
from convkit.plot.layout import arrange
from convkit.plot.walk import Walk
from convkit.structure import flatten

matplotlib = pytest.importorskip("matplotlib")


def small() -> Sequential:
    return Sequential(
        [
            Input((12, 12, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax"),
        ]
    )


def branches() -> Model:
    """Two inputs and outputs, parallel paths, a value that skips layers."""
    x = first = Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    a = layers.Conv2D(4, 1, name="one")(x)
    b = layers.Conv2D(4, 3, padding="same", name="three")(layers.ReLU(name="relu")(x))
    c = layers.MaxPooling2D(3, strides=1, padding="same", name="pool")(x)
    x = layers.Add(name="sum")([layers.Concatenate(name="join")([a, b, c]), a_wide(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    extra = Input((5,), name="extra")
    z = layers.Concatenate(name="both")([x, layers.Dense(3, name="small")(extra)])
    return Model(
        [first, extra], [layers.Dense(2, name="left")(z), layers.Dense(1, name="right")(z)]
    )


def a_wide(x):
    return layers.Concatenate(name="wide")([x, x, x])


def nested() -> Model:
    inner = small()
    inner.name = "inner"
    a, b = Input((12, 12, 1), name="a"), Input((12, 12, 1), name="b")
    return Model([a, b], layers.Subtract(name="difference")([inner(a), inner(b)]), name="twice")


def dense_block() -> Model:
    x = first = Input((6, 6, 2))
    values = [x]
    for _ in range(4):
        values.append(layers.Conv2D(2, 3, padding="same")(x))
        x = layers.Concatenate()(list(values))
    return Model(first, x)


NETWORKS = {
    "small": small,
    "branches": branches,
    "nested": nested,
    "dense": dense_block,
    "lenet": models.lenet,
    "resnet": lambda: models.resnet(18, 10, (32, 32, 3)),
    "unet": lambda: models.unet(2, (32, 32, 1), filters=2, depth=3),
}


# ---- the graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("expand", [False, True], ids=["nested", "expanded"])
def test_every_layer_and_value_is_drawn_and_nothing_lies_on_anything(network, expand):
    model = network()
    walk = Walk("test", model, expand)
    figure = plot.model(model, expand_nested=expand)
    said = texts(figure)
    for step in walk.steps:
        assert step.layer.name in said
    for layer in walk.input_layers:
        assert layer.name in said

    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    (ax,) = figure.axes
    found = [p for p in ax.patches if isinstance(p, FancyBboxPatch) and p.get_zorder() == 4]
    boxes = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in found]
    assert len(boxes) == len(walk.steps) + len(walk.inputs)
    for i, (x, y, width, height) in enumerate(boxes):
        assert 0 < x < x + width < figure.get_figwidth()
        assert 0 < y < y + height < figure.get_figheight()
        for other_x, other_y, other_width, other_height in boxes[:i]:
            assert (
                *(x + width < other_x, other_x + other_width < x),
                *(y + height < other_y, other_y + other_height < y),
            ).count(True)

    lines = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    made_by = dict(zip(walk.inputs, [f"input {i}" for i in walk.inputs], strict=True))
    pairs = set()
    for i, step in enumerate(walk.steps):
        pairs |= {(made_by[number], i) for number in flatten(step.inputs)}
        made_by.update(dict.fromkeys(flatten(step.outputs), i))
    assert len(lines) == len(pairs)
    for line in lines:
        path = line.get_path().interpolated(30)
        for x, y, width, height in boxes:
            inside = (path.vertices > (x + 0.01, y + 0.01)) & (
                path.vertices < (x + width - 0.01, y + height - 0.01)
            )
            assert not inside.all(axis=1).any()


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_what_is_written_fits_into_its_box(network):
    figure = plot.model(network(), show_dtype=True, show_trainable=True)
    figure.draw_without_rendering()
    from matplotlib.patches import FancyBboxPatch

    (ax,) = figure.axes
    frames = [p.get_window_extent() for p in ax.patches if isinstance(p, FancyBboxPatch)]
    extents = [text.get_window_extent() for text in ax.texts[1:]]
    for extent in extents:
        assert any(
            frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 < extent.y0 < frame.y1
            for frame in frames
        )
    for i, one in enumerate(extents):
        assert not any(one.overlaps(other) for other in extents[:i])


def test_what_boxes_say():
    model = small()
    model.layers[0].trainable = False
    said = texts(plot.model(model, show_dtype=True, show_trainable=True, title="Mine"))
    assert "Mine" in said
    assert {"Conv2D 3 × 3, relu, frozen", "MaxPooling2D 2 × 2", "Dropout, 0.2", "InputLayer"} <= {
        *said
    }
    assert {"10 × 10 × 4  float32", "100  float32"} <= set(said)
    bare = texts(plot.model(model, show_shapes=False, show_names=False))
    assert "10 × 10 × 4" not in bare
    assert model.layers[0].name not in bare
    names = texts(plot.model(model, show_types=False))
    assert not any("Conv2D" in text for text in names)


def test_a_model_inside_the_model_is_a_box_or_a_frame():
    model = nested()
    closed = texts(plot.model(model))
    assert closed.count("inner") == 2
    assert closed.count("Sequential, 5 layers") == 2
    opened = texts(plot.model(model, expand_nested=True))
    assert opened.count("inner") == 2
    assert opened.count(model.get_layer("inner").layers[0].name) == 2


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot_model_with_keras_s_name(ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    figure = utils.plot_model(small(), to_file=path, show_shapes=True)
    assert path.stat().st_size > 5000
    assert "10 × 10 × 4" in texts(figure)
    if ending == "png":
        assert size_of(path)[0] > 300


def test_a_long_model_is_cut_into_columns():
    assert models.resnet(18, 10, (32, 32, 3)).count_params()
    figure = plot.model(models.resnet(18, 10, (32, 32, 3)))
    assert 0.5 < figure.get_figwidth() / figure.get_figheight() < 2
    straight = plot.model(models.lenet())
    assert straight.get_figheight() > straight.get_figwidth()


def test_lanes_of_a_block_of_parallel_paths():
    #    0 - 1 - 2 - 3 - 7     the longest path; 4, 5 and 6 beside it, and 1 to 7 round all
    pairs = [(0, 1), (1, 2), (2, 3), (3, 7), (1, 4), (4, 7), (1, 5), (5, 6), (6, 7), (1, 7)]
    layout = arrange(8, pairs)
    assert [layout.lanes[i] for i in (0, 1, 2, 3, 7)] == [0] * 5
    assert layout.lanes[5] == layout.lanes[6] != layout.lanes[4]
    assert {layout.lanes[4], layout.lanes[5]} == {1, 2}
    assert layout.rows == [0, 1, 2, 3, 2, 2, 3, 4]
    ways = {(e.source, e.target): e.way for e in layout.edges}
    assert ways[1, 7] == "left"
    assert ways[1, 4] == ways[6, 7] == "right"
    assert ways[1, 2] == ways[5, 6] == "down"
    assert layout.cuts() == [0]


def test_bad_models():
    with pytest.raises(TypeError, match=r"plot\.model: expected a model, got 3"):
        plot.model(3)
    with pytest.raises(ValueError, match="expected a built model"):
        plot.model(Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="show_names or show_types"):
        plot.model(small(), show_names=False, show_types=False)


# ---- what layers make of an image ----------------------------------------------------------------


@pytest.fixture
def image(rng):
    return rng.random((12, 12, 1), np.float32)


def rows_of_maps(figure):
    return [ax.images[0].get_array() for ax in figure.axes]


def test_every_layer_has_a_row(image):
    model = small()
    figure = plot.layer_outputs(model, image, most=3)
    said = texts(figure)
    assert [text for text in said if text in {layer.name for layer in model.layers}] == [
        layer.name for layer in model.layers
    ]
    assert "10 × 10 × 4, 3 of 4 maps" in said
    rows = rows_of_maps(figure)
    np.testing.assert_array_equal(rows[0], image[..., 0])
    x = image[np.newaxis]
    for layer, row in zip(model.layers, rows[1:], strict=True):
        x = layer(x)
        if x.ndim == 2:
            np.testing.assert_allclose(row, x, rtol=1e-5, atol=1e-6)
    chosen = plot.layer_outputs(model, image[np.newaxis], layers=[0, model.layers[-1]])
    assert len(chosen.axes) == 3


@pytest.mark.parametrize("network", ["resnet", "unet"])
def test_values_inside_functional_models_are_those_of_the_model(network, rng):
    model = NETWORKS[network]()
    x = rng.random((1, *model.input_shape[1:]), np.float32)
    walk = Walk("test", model)
    numbers = [number for step in walk.steps for number in flatten(step.outputs)]
    values = dict(zip(numbers, walk.values(x, numbers), strict=True))
    np.testing.assert_allclose(values[walk.outputs[0]], model.predict(x), rtol=1e-4, atol=1e-6)
    for step in walk.steps[::7]:
        part = Model(model.inputs, model.symbol_of(step.layer)).predict(x)
        (number,) = flatten(step.outputs)
        np.testing.assert_allclose(values[number], part, rtol=1e-3, atol=1e-4)


def test_layers_of_models_inside_the_model(image):
    inner = small()
    x = Input((12, 12, 1))
    model = Model(x, layers.Dense(2)(inner(x)))
    conv = inner.layers[0]
    said = texts(plot.layer_outputs(model, image))
    assert f"{inner.name}/{conv.name}" in said
    expected = conv(image[np.newaxis])[0]
    for layer in (conv, conv.name, f"{inner.name}/{conv.name}"):
        figure = plot.feature_maps(model, image, layer)
        np.testing.assert_allclose(
            figure.axes[1].images[0].get_array(), expected[..., 0], rtol=1e-5, atol=1e-6
        )


def test_channels_first_maps_are_images(rng):
    x = Input((3, 9, 8))
    y = layers.Conv2D(4, 3, data_format="channels_first")(x)
    figure = plot.layer_outputs(Model(x, y), rng.random((3, 9, 8), np.float32))
    assert rows_of_maps(figure)[0].shape == (9, 8, 3)
    assert "7 × 6 × 4" in texts(figure)


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (layers.Conv2D(5, 3), 15),
        (layers.Conv2DTranspose(5, 3), 15),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 6),
        (layers.SeparableConv2D(5, 3), 3),
    ],
)
def test_filters_of_all_convolutions(layer, count):
    layer.build((None, 8, 8, 3))
    figure = plot.filters(layer)
    assert sum(len(ax.images) for ax in figure.axes if ax.get_label() != "<colorbar>") == count


def test_filters_as_colours():
    layer = layers.Conv2D(5, 3)
    layer.build((None, 8, 8, 3))
    figure = plot.filters(layer, colours=True)
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == 5
    assert all(part.shape == (3, 3, 3) and 0 <= part.min() <= part.max() <= 1 for part in shown)
    grey = layers.Conv2D(5, 3)
    grey.build((None, 8, 8, 1))
    with pytest.raises(ValueError, match="three channels"):
        plot.filters(grey, colours=True)


# ---- Grad-CAM ------------------------------------------------------------------------------------


def by_differences(model, x, layer, label, before):
    """Grad-CAM from differences of the class's score, as the layer's output changes."""
    maps = Model(model.inputs, model.symbol_of(layer)).predict(x)[0].astype(np.float64)
    rest = before.predict

    def score(values):
        return rest(values[np.newaxis])[0, label]

    slope = np.zeros_like(maps)
    for place in np.ndindex(maps.shape):
        for sign in (1, -1):
            changed = maps.copy()
            changed[place] += sign * 1e-4
            slope[place] += sign * score(changed) / 2e-4
    return np.maximum((maps * slope.mean(axis=(0, 1))).sum(axis=-1), 0)


@pytest.mark.parametrize("end", ["softmax", "activation layer", "linear"])
def test_grad_cam_is_what_differences_say(rng, end):
    head = [
        layers.MaxPooling2D(dtype="float64"),
        layers.Flatten(dtype="float64"),
        layers.Dense(5, activation="tanh", dtype="float64"),
        layers.Dense(3, activation="softmax" if end == "softmax" else None, dtype="float64"),
    ]
    conv = layers.Conv2D(3, 3, activation="sigmoid", dtype="float64")
    tail = [layers.Softmax(dtype="float64")] if end == "activation layer" else []
    model = Sequential([Input((6, 6, 2), dtype="float64"), conv, *head, *tail])
    # The same head without the softmax, on the convolution's maps.
    source = y = Input((4, 4, 3), dtype="float64")
    for layer in head[:-1]:
        y = layer(y)
    last = layers.Dense(3, dtype="float64")
    y = last(y)
    last.set_weights(head[-1].get_weights())
    scores = Model(source, y)

    x = rng.random((2, 6, 6, 2))
    maps, classes = plot.grad_cam_maps(model, x, classes=[2, 0])
    assert classes.tolist() == [2, 0]
    assert maps.shape == (2, 4, 4)
    for i, label in enumerate((2, 0)):
        expected = by_differences(model, x[i : i + 1], conv, label, scores)
        np.testing.assert_allclose(maps[i], expected, rtol=1e-5, atol=1e-8)


def test_grad_cam_of_any_layer_of_any_model(rng):
    model = models.resnet(18, 4, (32, 32, 3))
    images = rng.random((3, 32, 32, 3), np.float32)
    maps, classes = plot.grad_cam_maps(model, images)
    assert maps.shape == (3, 4, 4)
    np.testing.assert_array_equal(classes, model.predict(images).argmax(axis=1))
    early = next(layer for layer in model.layers if isinstance(layer, layers.Add))
    assert plot.grad_cam_maps(model, images, early)[0].shape == (3, 32, 32)
    inner = small()
    x = Input((12, 12, 1))
    outer = Model(x, layers.Dense(2)(inner(x)))
    image = rng.random((12, 12, 1), np.float32)
    assert plot.grad_cam_maps(outer, image, inner.layers[0].name)[0].shape == (1, 10, 10)


def test_grad_cam_of_one_sigmoid_speaks_for_it_or_against(rng):
    conv = layers.Conv2D(1, 3, kernel_initializer="ones")
    dense = layers.Dense(1, activation="sigmoid", kernel_initializer="ones")
    model = Sequential([Input((6, 6, 1)), conv, layers.Flatten(), dense])
    image = np.ones((6, 6, 1), np.float32)
    (positive,), _ = plot.grad_cam_maps(model, image, classes=1)
    np.testing.assert_allclose(positive, 9, rtol=1e-6)
    (negative,), _ = plot.grad_cam_maps(model, image, classes=0)
    np.testing.assert_array_equal(negative, 0)
    assert plot.grad_cam_maps(model, image)[1].tolist() == [1]


def test_the_picture_of_grad_cam(rng, tmp_path):
    model = small()
    images = rng.random((3, 12, 12, 1), np.float32)
    names = ["cat", "dog", "owl"]
    path = tmp_path / "cam.png"
    figure = plot.grad_cam(model, images, class_names=names, columns=2, path=path)
    assert sum(len(ax.images) for ax in figure.axes) == 3 * 3
    assert size_of(path)[0] > 500
    chosen = [names[label] for label in model.predict(images).argmax(axis=1)]
    assert [text for text in texts(figure) if text in names] == chosen
    one = plot.grad_cam(model, images[0], classes=1, class_names=names)
    assert "dog" in texts(one)


def test_enlarging_keeps_the_middle_of_pixels():
    np.testing.assert_allclose(enlarged(np.array([[1.0]]), (3, 2)), 1)
    np.testing.assert_allclose(enlarged(np.array([[0.0, 4.0]]), (1, 4)), [[0, 1, 3, 4]])
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(enlarged(x, (3, 4)), x)


def test_bad_arguments(rng):
    model = small()
    image = rng.random((12, 12, 1), np.float32)
    with pytest.raises(ValueError, match=r"images of shape \(N, 12, 12, 1\)"):
        plot.grad_cam(model, image[:5])
    with pytest.raises(ValueError, match="classes between 0 and 2"):
        plot.grad_cam(model, image, classes=3)
    with pytest.raises(ValueError, match="classes as a number"):
        plot.grad_cam(model, image, classes=[0, 1])
    with pytest.raises(ValueError, match=r"with output \(N, H, W, C\)"):
        plot.grad_cam(model, image, layer=-1)
    with pytest.raises(ValueError, match="a layer of the model"):
        plot.grad_cam(model, image, layer="nothing")
    with pytest.raises(ValueError, match="one input and one output"):
        plot.grad_cam(branches(), image)
    with pytest.raises(ValueError, match=r"outputs \(N, classes\)"):
        plot.grad_cam(models.unet(2, (32, 32, 1), filters=2, depth=1), image)
    flat = Sequential([Input((12, 12, 1)), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(ValueError, match="with a convolution"):
        plot.grad_cam(flat, image)
    with pytest.raises(ValueError, match="one image of shape"):
        plot.layer_outputs(model, image[:5])
    with pytest.raises(ValueError, match="one input"):
        plot.layer_outputs(branches(), image)


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (schedules.CosineDecay(0.0, 900, warmup_target=0.1, warmup_steps=100), 1000),
        (schedules.ExponentialDecay(0.1, 100, 0.5), 100),
        (schedules.PiecewiseConstantDecay([100, 200], [0.1, 0.01, 0.001]), 250),
        (schedules.CosineDecayRestarts(0.1, 100, t_mul=2.0), 699),
        (schedules.OneCycle(0.1, 300), 299),
    ],
)
def test_the_learning_rate_of_a_schedule(schedule, last):
    figure = plot.learning_rate(schedule)
    x, y = figure.axes[0].lines[0].get_data()
    assert x[-1] == last
    np.testing.assert_allclose(y, [schedule(int(step)) for step in x])
    assert {type(schedule).__name__, "step", "learning rate"} <= set(texts(figure))


def test_the_learning_rate_of_a_function_an_optimizer_and_a_training():
    def halved(step):
        return 0.5**step

    x, y = plot.learning_rate(halved, 4).axes[0].lines[0].get_data()
    assert y.tolist() == [1, 0.5, 0.25, 0.125]
    assert "halved" in texts(plot.learning_rate(halved, 4))
    optimizer = optimizers.Adam(schedules.OneCycle(0.1, 50))
    assert len(plot.learning_rate(optimizer).axes[0].lines[0].get_data()[0]) == 50
    history = {"loss": [3.0, 2.0, 1.0], "learning_rate": [0.1, 0.1, 0.0001]}
    figure = plot.learning_rate(history)
    x, y = figure.axes[0].lines[0].get_data()
    assert x.tolist() == [1, 2, 3]
    assert y.tolist() == history["learning_rate"]
    assert figure.axes[0].get_yscale() == "log"
    assert "learning rate" in texts(plot.history(history))
    with pytest.raises(ValueError, match="a history with learning_rate"):
        plot.learning_rate({"loss": [1.0]})
    with pytest.raises(ValueError, match="expected steps"):
        plot.learning_rate(halved)


def test_mistakes_are_shown_worst_first():
    images = np.zeros((5, 8, 8), np.uint8)
    y_pred = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.05, 0.95]])
    figure = plot.mistakes(images, [0, 0, 0, 1, 0], y_pred, class_names=["no", "yes"])
    said = texts(figure)
    assert said[-1] == "3 mistakes in 5 images" or "3 mistakes in 5 images" in said
    assert [text for text in said if text.startswith("✗")] == [
        "✗ yes  95 %\nis no",
        "✗ yes  80 %\nis no",
        "✗ yes  60 %\nis no",
    ]
    assert "3 mistakes in 5 images, the 2 that the model is surest of" in texts(
        plot.mistakes(images, [0, 0, 0, 1, 0], y_pred, most=2)
    )
    assert texts(plot.mistakes(images, [0, 1, 1, 1, 1], y_pred)) == ["No mistakes in 5 images"]
    with pytest.raises(ValueError, match=r"probabilities \(N, classes\)"):
        plot.mistakes(images, [0] * 5, [0] * 5)


def test_a_confusion_matrix_of_many_classes_has_no_numbers(tmp_path):
    y = np.arange(100)
    path = tmp_path / "c.png"
    figure = plot.confusion_matrix(y, np.roll(y, 1), [f"name {i}" for i in y], path=path)
    assert not figure.axes[0].texts
    assert max(size_of(path)) < 2400


def test_models_on_a_gpu_are_drawn_too(place, rng):
    utils.set_random_seed(0)
    model = small()
    images = rng.random((2, 12, 12, 1), np.float32)
    expected, _ = plot.grad_cam_maps(model, images, classes=1)
    walk = Walk("test", model)
    (value,) = walk.values(images[:1], [walk.outputs[0]])
    if place is not None:
        model.to("cuda")
    found, _ = plot.grad_cam_maps(model, images, classes=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    there = Walk("test", model).values(images[:1], [walk.outputs[0]])[0]
    np.testing.assert_allclose(there, value, rtol=1e-5, atol=1e-6)
    assert len(plot.filters(model.layers[0]).axes) == 5
