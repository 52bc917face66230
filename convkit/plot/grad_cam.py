"""Where a network looks: Grad-CAM.

Source: R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra, "Grad-CAM: Visual
Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit import _core, gradients, graph, ops
from convkit.geometry import ACTIVATION_KINDS, fail
from convkit.graph import Symbol
from convkit.models.steps import make_program
from convkit.plot import canvas
from convkit.plot.walk import Step, Walk
from convkit.structure import flatten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 1.25  # inches of an image
_MOST = 32
_OVERLAY = 0.75  # how much of the colours covers the image where a map is highest


def grad_cam(
    model: Any,
    images: Any,
    layer: Any = None,
    classes: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 4,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Each image, and on it in colours the places that speak for a class (Grad-CAM).

    Args:
        model, images, layer, classes: as for `grad_cam_maps`.
        class_names: a name per class; None: their numbers.
        columns: pairs of an image and its map side by side.
        title: above the picture; None: the layer's name.
        path: where to save the picture; its ending says as what (.png, .svg, .pdf).
    """
    walk, x = _walk_and_images(model, images)
    step = _chosen(walk, layer)
    maps, chosen, y = _maps(walk, x[:_MOST], step, classes)
    count = len(maps)
    names = canvas.names_of(class_names, max(y.shape[1], 2))
    columns = min(columns, count)
    first = getattr(step.layer, "data_format", None) == "channels_first"
    shown = np.moveaxis(x, 1, -1) if first else x

    def paint(figure: Any) -> None:
        for i, part in enumerate(canvas.grid(figure, 2 * count, 2 * columns)):
            image = shown[i // 2]
            canvas.show_image(part, image)
            label = int(chosen[i // 2])
            if i % 2 == 0:
                part.set_title(names[label], loc="left", fontsize=8, pad=3)
                continue
            part.imshow(_overlay(maps[i // 2], image.shape[:2]), interpolation="bilinear")
            part.set_title(
                _percent(y, i // 2, label), loc="right", fontsize=8, pad=3, color=canvas.MUTED
            )
        canvas.heading(figure, said)

    said = title or f"What speaks for a class, seen by {step.name}"
    rows = -(-count // columns)
    width = max(_CELL * 2 * columns, canvas.heading_width(said))
    return canvas.draw(width + 0.1, (_CELL + 0.27) * rows + 0.4, paint, path)


def grad_cam_maps(
    model: Any, images: Any, layer: Any = None, classes: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """How much each place of an image speaks for a class, as a layer of the model sees it.

    The layer's maps are added up, each with the mean of the gradient of the class's score to it;
    what speaks against the class is left out. The score is what goes into the softmax or sigmoid.

    Args:
        model: a built model with one input, and probabilities or scores (N, classes) as its output.
        images: of the model's input shape, several or one.
        layer: a layer with maps as its output: itself, its name (inside another model
            "model/layer"), or its index; None: the last convolution.
        classes: a number for all images or one for each; None: the class that each is taken for.
            Of a model with one output, 1 is what it speaks for and 0 the contrary.

    Returns:
        Maps (N, height, width) of the layer's size, at least 0; and the classes (N,).
    """
    walk, x = _walk_and_images(model, images)
    maps, chosen, _ = _maps(walk, x, _chosen(walk, layer), classes)
    return maps, chosen


def _walk_and_images(model: Any, images: Any) -> tuple[Walk, np.ndarray]:
    walk = Walk("plot.grad_cam", model)
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(flatten(model.outputs)) != 1:
        raise ValueError(f"{walk.op}: expected a model with one input and one output")
    output = flatten(model.outputs)[0].shape
    if len(output) != 2:
        raise fail(walk.op, "a model with outputs (N, classes)", output)
    x = np.asarray(images)
    if x.shape == tuple(shape[1:]):
        x = x[np.newaxis]
    if x.shape[1:] != tuple(shape[1:]) or not len(x):
        raise fail(walk.op, f"images of shape (N, {', '.join(map(str, shape[1:]))})", x.shape)
    return walk, x


def _chosen(walk: Walk, layer: Any) -> Step:
    if layer is not None:
        step = walk.find(layer)
    else:
        found = [step for step in walk.steps if "Conv2D" in type(step.layer).__name__]
        if not found:
            raise ValueError(f"{walk.op}: expected a model with a convolution, found none")
        step = found[-1]
    shape = walk.shapes[flatten(step.outputs)[0]]
    if len(shape) != 4:
        raise fail(walk.op, "a layer with output (N, H, W, C)", f"{step.name} with {shape}")
    return step


def _maps(
    walk: Walk, x: np.ndarray, step: Step, classes: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, classes, and the model's outputs."""
    model = walk.model
    (x,) = model._inputs(walk.op, x)
    y = np.asarray(model.predict(x))
    chosen = _classes(walk.op, classes, y)
    weights = np.zeros(y.shape, model.dtype)
    if y.shape[1] == 1:
        weights[:, 0] = np.where(chosen > 0, 1, -1)
    else:
        weights[np.arange(len(x)), chosen] = 1

    fed = Symbol((None, *x.shape[1:]), model.dtype, place="fed")
    wanted = Symbol((None, y.shape[1]), model.dtype, place="fed")
    values = walk.run([fed])
    maps = values[flatten(step.outputs)[0]]
    score = ops.multiply(_before_activation(values[walk.outputs[0]]), wanted)
    spec = _core.Mean(rows=y.shape[1])
    (mean,) = graph.call("mean", spec, None, [score], [(1,)], model.dtype)
    (slope,) = gradients.gradients([mean], [maps])
    if slope is None or graph.root(maps).node is None:
        raise ValueError(
            f"{walk.op}: expected a layer that the model's output depends on, got {step.name}"
        )
    program = make_program(model, results=[maps, slope])
    shape = (len(x), *maps.shape[1:])
    found, slopes = np.empty(shape, model.dtype), np.empty(shape, model.dtype)
    given = np.ascontiguousarray(x, model.dtype)
    pairs = ((fed, given), (wanted, weights), (maps, found), (slope, slopes))
    with program.bound(*pairs):
        program.run(0, len(x), len(x))
    places = (2, 3) if getattr(step.layer, "data_format", None) == "channels_first" else (1, 2)
    # The mean over images and classes divided what is a sum.
    factors = slopes.mean(axis=places, keepdims=True) * y.size
    channels = ({1, 2, 3} - set(places)).pop()
    return np.maximum((found * factors).sum(axis=channels), 0), chosen, y


def _before_activation(y: Symbol) -> Symbol:
    """What a softmax or sigmoid at the end was given; other outputs as they are."""
    node = graph.root(y).node
    if node is None:
        return y
    last = node.kernel == "softmax" or (
        node.kernel == "activation" and node.spec.kind == ACTIVATION_KINDS["sigmoid"]
    )
    source = node.inputs[0]
    assert not last or source is not None
    return graph.reshape(source, y.shape) if last else y


def _classes(op: str, classes: Any, y: np.ndarray) -> np.ndarray:
    count = max(y.shape[1], 2)
    if classes is None:
        return y.argmax(axis=1) if y.shape[1] > 1 else (y[:, 0] > 0.5).astype(np.int64)
    chosen = np.asarray(classes)
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (len(y),)):
        raise fail(op, f"classes as a number or {len(y)} of them", classes)
    if chosen.min() < 0 or chosen.max() >= count:
        raise fail(op, f"classes between 0 and {count - 1}", classes)
    return np.broadcast_to(chosen, len(y))


def _percent(y: np.ndarray, row: int, label: int) -> str:
    if y.shape[1] > 1:
        value = float(y[row, label])
    else:
        value = float(y[row, 0]) if label else 1 - float(y[row, 0])
    return canvas.percent(value) if 0 <= value <= 1 else f"{value:.3g}"


def _overlay(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map in colours, (H, W, 4): the higher, the less the image shines through."""
    import matplotlib

    high = float(values.max())
    shares = enlarged(values / high if high else values, size)
    colours: np.ndarray = matplotlib.colormaps["inferno"](0.25 + 0.75 * shares)
    colours[..., 3] = _OVERLAY * np.sqrt(shares)
    return colours


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of another size, bilinear between the middles of its pixels."""
    for axis, length in enumerate(size):
        count = values.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        low = np.minimum(at.astype(np.int64), max(count - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, count - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values
