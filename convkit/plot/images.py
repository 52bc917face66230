"""Pictures made of small images: predictions, filters, feature maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.plot import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]

_MOST_FILTERS = 64
_MOST_INPUTS = 16
_MOST_MAPS = 64
_CELL = 0.85  # inches of a small image


def predictions(
    images: Any,
    y_true: Any,
    y_pred: Any,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
    most: int = 40,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """Images with what a model took them for: right ones blue with ✓, wrong ones red with ✗.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3); bytes or numbers from 0 to 1.
        y_true: labels (N,); None where they are not known.
        y_pred: probabilities (N, classes), or labels (N,).
        class_names: a name per class; None: their numbers.
        columns: images side by side.
        most: only the first so many images are shown.
        title: above the picture; None: how many of all the images are right.
        path: where to save the picture; its ending says as what (.png, .svg, .pdf).
    """
    images, y_pred = np.asarray(images), np.asarray(y_pred)
    y_true = None if y_true is None else np.asarray(y_true).reshape(-1)
    for name, array in (("y_true", y_true), ("y_pred", y_pred)):
        if array is not None and len(array) != len(images):
            raise ValueError(
                f"plot.predictions: expected {name} with as many rows as images "
                f"({len(images)}), got {len(array)}"
            )
    if not len(images) or images.ndim not in (3, 4):
        raise ValueError(
            "plot.predictions: expected images of shape (N, H, W) or (N, H, W, channels), "
            f"got {images.shape}"
        )
    count = min(len(images), most)
    columns = min(columns, count)
    if title is None and y_true is not None:
        hits = int(np.count_nonzero(_labels(y_pred) == y_true))
        title = f"{hits:,} of {len(images):,} right"

    def paint(figure: Any) -> None:
        draw_predictions(
            figure,
            images[:count],
            None if y_true is None else y_true[:count],
            y_pred[:count],
            canvas.names_of(class_names, _classes(y_pred, y_true)),
            columns,
        )
        if title:
            canvas.heading(figure, title)

    rows = -(-count // columns)
    size = 1.3 * _CELL
    return canvas.draw(max(size * columns, 2.5), (size + 0.3) * rows + 0.35, paint, path)


def draw_predictions(
    part: Any,
    images: np.ndarray,
    y_true: np.ndarray | None,
    y_pred: np.ndarray,
    names: list[str],
    columns: int,
) -> None:
    """The images in a figure or in a part of one."""
    labels = _labels(y_pred)
    for i, ax in enumerate(canvas.grid(part, len(images), columns)):
        canvas.show_image(ax, images[i])
        said = names[labels[i]]
        if y_pred.ndim == 2:
            said += f"  {_percent(float(y_pred[i, labels[i]]))}"
        colour = canvas.INK
        if y_true is not None:
            right = labels[i] == y_true[i]
            colour = canvas.RIGHT if right else canvas.WRONG
            said = f"✓ {said}" if right else f"✗ {said}\nis {names[y_true[i]]}"
            canvas.frame(ax, colour)
        ax.set_title(said, color=colour, fontsize=8, loc="center", pad=3, linespacing=1.1)


def _percent(probability: float) -> str:
    return f"{probability * 100:.0f} %" if probability < 0.995 else ">99 %"


def _labels(y_pred: np.ndarray) -> np.ndarray:
    return y_pred.argmax(axis=1) if y_pred.ndim == 2 else y_pred.astype(np.int64).reshape(-1)


def _classes(y_pred: np.ndarray, y_true: np.ndarray | None) -> int:
    highest = y_pred.shape[1] - 1 if y_pred.ndim == 2 else int(y_pred.max())
    return 1 + max(highest, -1 if y_true is None else int(y_true.max()))


def filters(layer: Any, *, title: str | None = None, path: Path | None = None) -> Figure:
    """The kernel of a convolution: red adds, blue subtracts, white leaves out.

    Args:
        layer: a built `Conv2D`. Each column is a filter, each row one of its input channels; the
            filters of a layer with one input channel stand in a block.
        title: above the picture; None: the layer's name and the shape of its kernel.
        path: where to save the picture.
    """
    kernel = getattr(layer, "kernel", None)
    kernel = None if kernel is None else np.asarray(kernel)
    if kernel is None or kernel.ndim != 4:
        raise ValueError(f"plot.filters: expected a built convolution, got {layer!r}")
    rows, columns = _filter_grid(kernel)

    def paint(figure: Any) -> None:
        draw_filters(figure, kernel)
        height, width, inputs, count = kernel.shape
        size = f"{height} × {width}" if inputs == 1 else f"{height} × {width} × {inputs}"
        canvas.heading(figure, title or f"{layer.name}: {count} filters of {size}")

    return canvas.draw(max(_CELL * columns + 0.7, 3), _CELL * rows + 0.45, paint, path)


def draw_filters(part: Any, kernel: np.ndarray) -> None:
    """The filters in a figure or in a part of one, with one scale of colours for all."""
    rows, columns = _filter_grid(kernel)
    inputs, count = kernel.shape[2:]
    limit = float(np.abs(kernel).max()) or 1.0
    axes = canvas.grid(part, rows * columns, columns)
    image = None
    for i, ax in enumerate(axes):
        channel, number = (0, i) if inputs == 1 else divmod(i, columns)
        if number < count:
            image = ax.imshow(kernel[:, :, channel, number], cmap="RdBu_r", vmin=-limit, vmax=limit)
    _colour_bar(part, image, axes)


def _filter_grid(kernel: np.ndarray) -> tuple[int, int]:
    inputs, count = kernel.shape[2:]
    if inputs > 1:
        return min(inputs, _MOST_INPUTS), min(count, _MOST_INPUTS)
    columns = _columns(min(count, _MOST_FILTERS))
    return -(-min(count, _MOST_FILTERS) // columns), columns


def _columns(count: int) -> int:
    """Up to ten side by side, in rows as even as can be."""
    return -(-count // -(-count // 10))


def _colour_bar(part: Any, image: Any, axes: list[Any]) -> None:
    bar = part.colorbar(image, ax=axes, fraction=0.03, pad=0.02, aspect=25)
    bar.outline.set_visible(False)


def feature_maps(
    model: Any,
    image: Any,
    layer: Any = None,
    *,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """What a layer makes of one image: the image, then one map per channel of the layer's output.

    Args:
        model: a built model.
        image: of the model's input shape, without or with the batch axis: (H, W, C), (1, H, W, C).
        layer: a layer of the model, its name or its index; None: the first convolution.
        title: above the picture; None: the layer's name and the shape of its output.
        path: where to save the picture.
    """
    image, chosen, maps = maps_of(model, image, layer)
    count = min(maps.shape[2], _MOST_MAPS)
    columns = _columns(count) + 1

    def paint(figure: Any) -> None:
        draw_feature_maps(figure, image, maps)
        height, width, channels = maps.shape
        canvas.heading(figure, title or f"{chosen.name}: {channels} maps of {height} × {width}")

    rows = -(-count // (columns - 1))
    return canvas.draw(1.3 * _CELL * columns + 0.7, 1.3 * _CELL * rows + 0.45, paint, path)


def maps_of(model: Any, image: Any, layer: Any = None) -> tuple[np.ndarray, Any, np.ndarray]:
    """The image (H, W, C), the layer, and its output (H, W, channels) for the image."""
    from convkit.models import Model

    if not model.built:
        raise ValueError("plot.feature_maps: expected a built model, got one without input shape")
    image = np.asarray(image)
    if image.shape == tuple(model.input_shape[1:]):
        image = image[np.newaxis]
    if image.shape != (1, *model.input_shape[1:]):
        raise ValueError(
            f"plot.feature_maps: expected one image of shape {tuple(model.input_shape[1:])}, "
            f"got {image.shape}"
        )
    chosen, symbol = _output(model, layer)
    maps = Model(model.inputs, symbol).predict(image)[0]
    if getattr(chosen, "data_format", None) == "channels_first":
        maps, image = np.moveaxis(maps, 0, -1), np.moveaxis(image, 1, -1)
    return image[0], chosen, maps


def _output(model: Any, layer: Any) -> tuple[Any, Any]:
    """A layer of the model that makes maps, and the symbol of its output."""
    if isinstance(layer, str):
        layer = model.get_layer(layer)
    elif isinstance(layer, int):
        layer = model.get_layer(index=layer)
    for candidate in model.layers:
        if candidate is layer or (layer is None and hasattr(candidate, "filters")):
            symbol = model.symbol_of(candidate)
            if len(symbol.shape) != 4:
                raise ValueError(
                    "plot.feature_maps: expected a layer with output (N, H, W, C), got "
                    f"{candidate.name} with {symbol.shape}"
                )
            return candidate, symbol
    wanted = "a convolution" if layer is None else f"{layer!r} to be a layer"
    raise ValueError(f"plot.feature_maps: expected {wanted} of the model, found none")


def draw_feature_maps(part: Any, image: np.ndarray, maps: np.ndarray) -> None:
    """The image and the maps in a figure or in a part of one; one scale of colours for all maps."""
    count = min(maps.shape[2], _MOST_MAPS)
    columns = _columns(count)
    rows = -(-count // columns)
    left, right = part.subfigures(1, 2, width_ratios=(1, columns + 0.6))
    ax = canvas.grid(left, 1, 1)[0]
    canvas.show_image(ax, image)
    ax.set_title("input", loc="center", fontsize=8, color=canvas.MUTED, pad=3)
    low, high = float(maps.min()), float(maps.max())
    colours: dict[str, Any] = {"cmap": "magma", "vmin": 0, "vmax": high or 1.0}
    if low < 0:  # as after tanh: two colours, white for zero
        high = max(-low, high)
        colours = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    axes = canvas.grid(right, rows * columns, columns)
    shown = None
    for i in range(count):
        shown = axes[i].imshow(maps[:, :, i], **colours)
    _colour_bar(right, shown, axes)
