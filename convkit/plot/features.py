"""What a network has learnt to look for, and what it makes of an image, layer by layer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.geometry import fail
from convkit.plot import canvas
from convkit.plot.walk import Step, Walk, one_sample
from convkit.structure import flatten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]

_MOST_FILTERS = 64
_MOST_INPUTS = 16
_MOST_MAPS = 64
_CELL = 0.85  # inches of a small image

# Of the picture of all layers: inches of a map, between rows and columns; pixels of a map, between.
_MAP, _ROWS_APART, _COLUMNS_APART, _LABEL = 0.55, 0.1, 0.35, 0.17
_PIXELS, _PIXELS_APART = 64, 6
_TALLEST = 14.0  # inches; more goes side by side


def filters(
    layer: Any,
    *,
    colours: bool = False,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """The kernel of a convolution: red adds, blue subtracts, white leaves out.

    Args:
        layer: a built convolution of any kind. Each column is a filter, each row one of its input
            channels; filters that have one input channel stand in a block.
        colours: whether filters of three input channels are drawn as the colours that they look
            for, grey where they look for none, in place of a row per channel.
        title: above the picture; None: the layer's name and the shape of its kernel.
        path: where to save the picture.
    """
    kernel = kernel_of(layer)
    height, width, inputs, count = kernel.shape
    size = f"{height} × {width}" if inputs == 1 else f"{height} × {width} × {inputs}"
    if colours and inputs != 3:
        raise fail("plot.filters", "filters of three channels for colours", f"{inputs} channels")
    rows, columns = _filter_grid(kernel[:, :, :1] if colours else kernel)

    def paint(figure: Any) -> None:
        draw_filters(figure, kernel, colours)
        canvas.heading(figure, title or f"{layer.name}: {count} filters of {size}")

    return canvas.draw(max(_CELL * columns + 0.7, 3), _CELL * rows + 0.45, paint, path)


def kernel_of(layer: Any) -> np.ndarray:
    """The filters of a convolution: (height, width, inputs, filters)."""
    from convkit.layers import Conv2DTranspose, DepthwiseConv2D, SeparableConv2D

    if isinstance(layer, SeparableConv2D):
        variable = getattr(layer, "depthwise_kernel", None)
    else:
        variable = getattr(layer, "kernel", None)
    kernel = None if variable is None else np.asarray(variable)
    if kernel is None or kernel.ndim != 4:
        raise ValueError(f"plot.filters: expected a built convolution, got {layer!r}")
    if isinstance(layer, Conv2DTranspose):
        return kernel.transpose(0, 1, 3, 2)
    if isinstance(layer, (DepthwiseConv2D, SeparableConv2D)):
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    return kernel


def draw_filters(part: Any, kernel: np.ndarray, colours: bool = False) -> None:
    """The filters in a figure or in a part of one, with one scale of colours for all."""
    rows, columns = _filter_grid(kernel[:, :, :1] if colours else kernel)
    inputs, count = kernel.shape[2:]
    limit = float(np.abs(kernel).max()) or 1.0
    axes = canvas.grid(part, rows * columns, columns)
    image = None
    for i, ax in enumerate(axes):
        channel, number = (0, i) if inputs == 1 or colours else divmod(i, columns)
        if number >= count:
            continue
        if colours:
            ax.imshow(0.5 + kernel[:, :, :, number] / (2 * limit))
        else:
            image = ax.imshow(kernel[:, :, channel, number], cmap="RdBu_r", vmin=-limit, vmax=limit)
    if image is not None:
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
    walk = Walk("plot.feature_maps", model)
    x = one_sample(walk, image)
    step = _first_convolution(walk) if layer is None else walk.find(layer)
    (number, *_) = flatten(step.outputs)
    if len(walk.shapes[number]) != 4:
        raise ValueError(
            "plot.feature_maps: expected a layer with output (N, H, W, C), got "
            f"{step.name} with {walk.shapes[number]}"
        )
    return _last(step, x)[0], step.layer, _last(step, walk.values(x, [number])[0])[0]


def _first_convolution(walk: Walk) -> Step:
    for step in walk.steps:
        if "Conv2D" in type(step.layer).__name__:
            return step
    raise ValueError(f"{walk.op}: expected a model with a convolution, found none")


def _last(step: Step, x: np.ndarray) -> np.ndarray:
    """Images with their channels last, wherever the layer has them."""
    first = getattr(step.layer, "data_format", None) == "channels_first" and x.ndim == 4
    return np.moveaxis(x, 1, -1) if first else x


def draw_feature_maps(part: Any, image: np.ndarray, maps: np.ndarray) -> None:
    """The image and the maps in a figure or in a part of one; one scale of colours for all maps."""
    count = min(maps.shape[2], _MOST_MAPS)
    columns = _columns(count)
    rows = -(-count // columns)
    left, right = part.subfigures(1, 2, width_ratios=(1, columns + 0.6))
    ax = canvas.grid(left, 1, 1)[0]
    canvas.show_image(ax, image)
    ax.set_title("input", loc="center", fontsize=8, color=canvas.MUTED, pad=3)
    colours = _scale(maps)
    axes = canvas.grid(right, rows * columns, columns)
    shown = None
    for i in range(count):
        shown = axes[i].imshow(maps[:, :, i], **colours)
    _colour_bar(right, shown, axes)


def layer_outputs(
    model: Any,
    image: Any,
    layers: Any = None,
    *,
    most: int = 10,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """What every layer makes of one image: a row for each, from the input to the output.

    Maps are drawn as small images (the first ones, if there are many), vectors as strips. Each row
    has a scale of colours of its own: black for nothing, to the largest value; or, where there are
    negative ones, blue for these, white for nothing and red.

    Args:
        model: a built model with one input; models inside it are gone through, too.
        image: of the model's input shape, without or with the batch axis: (H, W, C), (1, H, W, C).
        layers: which: a list of layers, names or indices; None: all.
        most: maps of a layer that are shown.
        title: above the picture; None: the model's name.
        path: where to save the picture.
    """
    walk = Walk("plot.layer_outputs", model)
    x = one_sample(walk, image)
    steps = walk.steps if layers is None else [walk.find(layer) for layer in layers]
    numbers = [(step, number) for step in steps for number in flatten(step.outputs)]
    values = walk.values(x, [number for _, number in numbers])
    rows = [("input", _first_format(steps, x)[0], True)]
    for (step, _), value in zip(numbers, values, strict=True):
        rows.append((step.name, _last(step, value)[0], False))
    wide = most * (_MAP + 0.05)
    blocks = _blocks([_LABEL + _tall(value) + _ROWS_APART for _, value, _ in rows])
    top = 0.4
    width = len(blocks) * wide + (len(blocks) - 1) * _COLUMNS_APART + 0.3
    height = top + max(block[-1] for block in blocks) + 0.05

    def paint(figure: Any) -> None:
        said = title or f"{model.name}: what each layer makes of an image"
        figure.text(
            *(0.15 / width, 1 - 0.2 / height),
            said,
            fontsize=10.5,
            fontweight="bold",
            color=canvas.INK,
            va="center",
        )
        left = iter(rows)
        for column, block in enumerate(blocks):
            for upper in block[:-1]:
                name, value, is_input = next(left)
                corner = (0.15 + column * (wide + _COLUMNS_APART), top + upper)
                _draw_row(figure, (width, height), corner, wide, name, value, most, is_input)

    return canvas.draw(width, height, paint, path, constrained=False)


def _first_format(steps: list[Step], x: np.ndarray) -> np.ndarray:
    """The input with its channels last, as the first layer that cares has them."""
    for step in steps:
        if getattr(step.layer, "data_format", None) is not None:
            return _last(step, x)
    return x


def _tall(value: np.ndarray) -> float:
    """Inches of a row of maps, or of a strip."""
    return _MAP if value.ndim == 3 else _MAP / 2


def _blocks(heights: list[float]) -> list[list[float]]:
    """Rows in blocks side by side: for each its rows' upper edges, and its lower edge."""
    tallest = sum(heights) / -(-sum(heights) // _TALLEST) + max(heights) / 2
    blocks = [[0.0]]
    for height in heights:
        if blocks[-1][-1] + height > tallest:
            blocks.append([0.0])
        blocks[-1].append(blocks[-1][-1] + height)
    return blocks


def _draw_row(
    figure: Any,
    size: tuple[float, float],
    corner: tuple[float, float],
    wide: float,
    name: str,
    value: np.ndarray,
    most: int,
    is_input: bool,
) -> None:
    """A label and under it a row of maps or a strip; all lengths in inches."""
    width, height = size
    left, upper = corner
    shape = " × ".join(map(str, value.shape))
    images = value.ndim == 3
    if images and not is_input and value.shape[2] > most:
        shape += f", {most} of {value.shape[2]} maps"
    y = 1 - (upper + _LABEL / 2) / height
    figure.text(left / width, y, name, fontsize=8, fontweight="bold", va="center")
    after = left + canvas.text_width(name, 8, bold=True) + 0.1
    figure.text(after / width, y, shape, fontsize=8, color=canvas.MUTED, va="center")
    colours: dict[str, Any] = _scale(value)
    tall, across = _tall(value), wide
    if is_input and images:
        across = _MAP * value.shape[1] / value.shape[0]
    elif images:
        value, colours = _mosaic(value[:, :, :most], colours)
        across = _MAP * value.shape[1] / value.shape[0]
        tall, across = tall * min(1, wide / across), min(wide, across)
    else:
        value = value.reshape(1, -1)
        across = min(wide, max(0.12 * value.shape[1], 0.5))
    bottom = 1 - (upper + _LABEL + tall) / height
    ax = figure.add_axes((left / width, bottom, across / width, tall / height))
    if is_input and images:
        canvas.show_image(ax, value)
    else:
        ax.imshow(value, interpolation="nearest", **colours)
    ax.set(xticks=[], yticks=[], aspect="auto")
    for spine in ax.spines.values():
        spine.set_visible(not images or is_input)


def _scale(value: np.ndarray) -> dict[str, Any]:
    """The colours of values: two, white for zero, if some are negative, as after tanh."""
    low, high = float(value.min()), float(value.max())
    if low < 0:
        high = max(-low, high)
        return {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    return {"cmap": "magma", "vmin": 0, "vmax": high or 1.0}


def _mosaic(maps: np.ndarray, colours: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Maps (H, W, count) side by side as one image in colours, enlarged to whole pixels."""
    import matplotlib

    factor = max(1, -(-_PIXELS // maps.shape[0]))
    high, low = colours["vmax"], colours["vmin"]
    shown = matplotlib.colormaps[colours["cmap"]]((maps - low) / (high - low))
    shown = shown.repeat(factor, axis=0).repeat(factor, axis=1)
    apart = max(1, round(shown.shape[0] * _PIXELS_APART / _PIXELS))
    gap = np.ones((shown.shape[0], apart, 4))
    parts = [part for i in range(maps.shape[2]) for part in (shown[:, :, i], gap)]
    return np.concatenate(parts[:-1], axis=1), {}
