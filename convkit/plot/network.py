"""A picture of a model's graph: a box for each call of a layer, a line for each value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.geometry import fail
from convkit.layers import Layer
from convkit.models import Model
from convkit.plot import canvas
from convkit.plot.layout import Edge, Layout, arrange
from convkit.plot.walk import Walk
from convkit.structure import flatten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
_ROW, _GAP, _TRACK, _LANES_APART, _MARGIN = 0.27, 0.15, 0.13, 0.22, 0.15
_STRIPE, _PAD, _BETWEEN = 0.07, 0.09, 0.16
_COLUMNS_APART = 0.5
_GROUP_PAD, _GROUP_TITLE = 0.07, 0.2
_TITLE = 0.36
_CORNER = 0.06
_SIZE = 8.0  # points, of what is written in boxes
_TALLEST_COLUMN = 6.0  # inches; more is cut into columns, side by side
_PROPORTIONS = 1.4  # width to height that is aimed at

_COLOURS = {
    "input": canvas.INK,
    "convolution": canvas.BLUE,
    "size": "#E69F00",
    "dense": canvas.VERMILION,
    "normalization": "#009E73",
    "activation": "#CC79A7",
    "merging": "#56B4E9",
    "model": "#6B5B95",
    "shape": "#9AA5B1",
}
# Parts of the names of layers' classes, the first that fits.
_KINDS = (
    ("Conv", "convolution"),
    ("Pool", "size"),
    ("UpSampling", "size"),
    ("Dense", "dense"),
    ("Norm", "normalization"),
    ("Dropout", "normalization"),
    ("Noise", "normalization"),
    ("Random", "normalization"),
    ("Input", "input"),
    *((name, "merging") for name in ("Add", "Concat", "Multiply", "Subtract", "Average")),
    *((name, "merging") for name in ("Maximum", "Minimum")),
    *((name, "activation") for name in ("ReLU", "LU", "Softmax", "Hardswish", "Activation")),
)


@dataclass
class _Box:
    layer: Layer
    name: str
    kind: str
    shape: str
    path: tuple[tuple[str, int], ...]
    texts: tuple[str, str]  # bold and plain
    width: float = 0.0
    bold_width: float = 0.0
    x: float = 0.0
    y: float = 0.0  # of its upper edge
    colour: str = ""

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def model(
    model: Any,
    *,
    show_shapes: bool = True,
    show_names: bool = True,
    show_types: bool = True,
    show_dtype: bool = False,
    show_trainable: bool = False,
    expand_nested: bool = False,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """The graph of a model, from its inputs above to its outputs below.

    A box is one call of a layer: a layer that is called twice has two boxes. The longest path
    stands in one column; what runs beside it stands to its right, and values that skip layers go
    round them on the left. Long models are cut into columns, where only one value passes.

    Args:
        model: a built model.
        show_shapes: whether boxes tell the shape of a sample's output.
        show_names: whether they tell the layers' names.
        show_types: whether they tell the layers' classes and what they are made with.
        show_dtype: whether they tell the dtype of outputs.
        show_trainable: whether layers are marked whose weights `fit` does not change.
        expand_nested: whether models inside the model are drawn layer by layer, in a frame.
        title: above the picture; None: the model's name and how many parameters it has.
        path: where to save the picture; its ending says as what (.png, .svg, .pdf).
    """
    walk = Walk("plot.model", model, expand=expand_nested)
    if title is None:
        title = f"{model.name}: {model.count_params():,} parameters"
    if not (show_names or show_types):
        raise fail("plot.model", "show_names or show_types", "neither")

    def texts(layer: Layer, name: str) -> tuple[str, str]:
        said = _type_of(layer) if show_types else ""
        if show_trainable and layer.ordered_weights() and not layer.trainable:
            said += ", frozen"
        return (name, said) if show_names else (said, "")

    def shape(numbers: Any) -> str:
        shown = [_shape(walk.shapes[number]) for number in flatten(numbers)]
        said = ", ".join(dict.fromkeys(shown)) if show_shapes else ""
        return f"{said}  {model.dtype}".strip() if show_dtype else said

    boxes: list[_Box] = []
    made_by: dict[int, int] = {}
    for number, layer in zip(walk.inputs, walk.input_layers, strict=True):
        made_by[number] = len(boxes)
        boxes.append(_box(layer, "input", shape(number), (), texts(layer, layer.name)))
    pairs: dict[tuple[int, int], None] = {}
    for step in walk.steps:
        for number in flatten(step.inputs):
            pairs[made_by[number], len(boxes)] = None
        made_by.update({number: len(boxes) for number in flatten(step.outputs)})
        said = texts(step.layer, step.layer.name)
        boxes.append(_box(step.layer, _kind(step.layer), shape(step.outputs), step.path, said))
    layout = arrange(len(boxes), list(pairs))

    with canvas.style():  # says what to do where there is no Matplotlib
        for box in boxes:
            _measure(box)
        picture = _Picture(boxes, layout, canvas.text_width(title, 10.5, bold=True))

    def paint(figure: Any) -> None:
        picture.paint(figure, title)

    return canvas.draw(picture.width, picture.height, paint, path, constrained=False)


def _box(
    layer: Layer, kind: str, shape: str, path: tuple[tuple[str, int], ...], texts: tuple[str, str]
) -> _Box:
    return _Box(layer, layer.name, kind, shape, path, texts, colour=_COLOURS[kind])


def _kind(layer: Layer) -> str:
    if isinstance(layer, Model):
        return "model"
    name = type(layer).__name__
    return next((kind for part, kind in _KINDS if part in name), "shape")


def _shape(shape: Any) -> str:
    return " × ".join("?" if size is None else str(size) for size in shape[1:]) or "1"


def _type_of(layer: Layer) -> str:
    """Conv2D 5 × 5 / 2, relu"""
    said = [type(layer).__name__]
    if isinstance(layer, Model):
        return f"{said[0]}, {len(layer.layers)} layers"
    for name in ("kernel_size", "pool_size", "size"):
        value = getattr(layer, name, None)
        if isinstance(value, tuple) and len(value) == 2:
            said[0] += f" {value[0]} × {value[1]}"
            break
    strides = getattr(layer, "strides", None)
    if isinstance(strides, tuple) and strides not in ((1, 1), getattr(layer, "pool_size", None)):
        said.append(f"stride {strides[0]}" if strides[0] == strides[1] else f"strides {strides}")
    if isinstance(rate := getattr(layer, "rate", None), float):
        said.append(f"{rate:g}")
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", None) or ""
    if name and name != "linear":
        said.append(name)
    return ", ".join(said)


def _measure(box: _Box) -> None:
    bold, plain = box.texts
    box.bold_width = canvas.text_width(bold, _SIZE, bold=True)
    width = box.bold_width + (canvas.text_width(plain, _SIZE) + 0.08 if plain else 0)
    if box.shape:
        width += _BETWEEN + canvas.text_width(box.shape, _SIZE)
    box.width = width + _STRIPE + 2 * _PAD


class _Picture:
    """Boxes and lines in inches, the origin above on the left."""

    def __init__(self, boxes: list[_Box], layout: Layout, title_width: float) -> None:
        self.boxes = boxes
        self.layout = layout
        self.groups = _groups(boxes, layout.rows)
        self.columns = self._cut()
        self.top: dict[int, float] = {}
        self.tracks: dict[tuple[int, int, int], float] = {}  # (column, lane, track): x
        self._column_of: dict[int, int] = {}
        x, lowest = _MARGIN, 0.0
        for number, (first, last) in enumerate(self.columns):
            if number:
                x += _COLUMNS_APART
            x = self._place(number, first, last, x)
            lowest = max(lowest, self.top[last] + _ROW + _below(self.groups, layout.rows, last))
        self.width = max(x + _MARGIN, title_width + 2 * _MARGIN, 2.0)
        self.height = lowest + _MARGIN

    def _cut(self) -> list[tuple[int, int]]:
        """(first row, last row) of each column."""
        rows = max(self.layout.rows) + 1
        height = rows * (_ROW + _GAP)
        widest = max(box.width for box in self.boxes)
        lanes = max(self.layout.lanes) + 1
        wanted = 1
        if height > _TALLEST_COLUMN:
            across = widest * min(lanes, 2) + _COLUMNS_APART
            wanted = max(1, round((height * _PROPORTIONS / across) ** 0.5))
            wanted = min(wanted, round(height / (_TALLEST_COLUMN / 2)))
        allowed = [
            row
            for row in self.layout.cuts()
            if not any(g.first <= row < g.last for g in self.groups)
        ]
        ends: list[int] = []
        for part in range(1, wanted):
            ideal = rows * part / wanted - 1
            near = [row for row in allowed if abs(row - ideal) < rows / wanted / 3]
            if near:
                ends.append(min(near, key=lambda row: abs(row - ideal)))
        starts = [0, *(end + 1 for end in ends)]
        return list(zip(starts, [*ends, rows - 1], strict=True))

    def _place(self, number: int, first: int, last: int, left: float) -> float:
        """Gives the boxes of a column their places; the right edge of what is in it."""
        rows, lanes = self.layout.rows, self.layout.lanes
        inside = [i for i in range(len(self.boxes)) if first <= rows[i] <= last]
        y = _TITLE + _MARGIN
        for row in range(first, last + 1):
            y += _GROUP_TITLE * sum(group.first == row for group in self.groups)
            self.top[row] = y
            y += _ROW + _GAP + _GROUP_PAD * sum(group.last == row for group in self.groups)
        x = left
        for lane in range(max(lanes[i] for i in inside) + 1):
            around = [
                e
                for e in self.layout.edges
                if e.way == "left" and e.lane == lane and first <= rows[e.source] <= last
            ]
            tracks = 1 + max((e.track for e in around), default=-1)
            here = [i for i in inside if lanes[i] == lane]
            depth = max((len(self.boxes[i].path) for i in here), default=0)
            x += depth * _GROUP_PAD
            for track in reversed(range(tracks)):
                self.tracks[number, lane, track] = x + _TRACK / 2
                x += _TRACK
            if tracks:
                x += _TRACK
            width = max((self.boxes[i].width for i in here), default=0.0)
            for i in here:
                box = self.boxes[i]
                box.width, box.x, box.y = width, x, self.top[rows[i]]
                self._column_of[i] = number
            x += width + depth * _GROUP_PAD + _LANES_APART
        return x - _LANES_APART

    # ---- drawing ---------------------------------------------------------------------------------

    def paint(self, figure: Any, title: str) -> None:
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, self.width), ylim=(self.height, 0))
        ax.axis("off")
        ax.text(
            *(_MARGIN, _MARGIN + 0.1),
            title,
            fontsize=10.5,
            fontweight="bold",
            color=canvas.INK,
            va="center",
        )
        for group in self.groups:
            self._frame(ax, group)
        ends = self._ends()
        for i, edge in enumerate(self.layout.edges):
            _line(ax, self._points(edge, *ends[i]))
        for box in self.boxes:
            _draw_box(ax, box)

    def _frame(self, ax: Axes, group: _Group) -> None:
        from matplotlib.patches import FancyBboxPatch

        inside = [self.boxes[i] for i in group.boxes]
        pad = _GROUP_PAD * group.inner
        tracks = [
            self.tracks[self._column_of[e.source], e.lane, e.track]
            for e in self.layout.edges
            if e.way == "left" and e.source in group.boxes and e.target in group.boxes
        ]
        left = min([box.x for box in inside] + tracks) - pad
        right = max(box.x + box.width for box in inside) + pad
        top = min(box.y for box in inside) - _GROUP_TITLE * group.inner
        bottom = max(box.y for box in inside) + _ROW + pad
        ax.add_patch(
            FancyBboxPatch(
                (left, top),
                right - left,
                bottom - top,
                boxstyle=f"round,pad=0,rounding_size={_CORNER}",
                facecolor="#F3F1F7",
                edgecolor=_COLOURS["model"],
                linewidth=0.8,
                zorder=0.1 + 0.01 * (10 - group.inner),
            )
        )
        ax.text(
            left + 0.08,
            top + _GROUP_TITLE / 2,
            group.name,
            fontsize=_SIZE,
            fontweight="bold",
            color=_COLOURS["model"],
            va="center",
        )

    def _ends(self) -> list[tuple[float, float]]:
        """The heights at which each edge leaves and enters a box's side, apart from each other."""
        found = [[0.0, 0.0] for _ in self.layout.edges]
        for way in ("left", "right"):
            for box in range(len(self.boxes)):
                # What comes in is above what goes out, so that they do not seem to be one line.
                into = [
                    i for i, e in enumerate(self.layout.edges) if (e.target, e.way) == (box, way)
                ]
                out = [
                    i for i, e in enumerate(self.layout.edges) if (e.source, e.way) == (box, way)
                ]
                if way == "right":  # one line that splits, or several that meet, is the picture
                    slots = [(into, 1), (out, 0)]
                    marks = [group for group in slots if group[0]]
                    for place, (group, end) in enumerate(marks):
                        for i in group:
                            found[i][end] = (place + 1) / (len(marks) + 1)
                    continue
                # Far tracks enter lowest and leave highest: so lines beside a box do not cross.
                into.sort(key=lambda i: self.layout.edges[i].track)
                out.sort(key=lambda i: -self.layout.edges[i].track)
                for place, (i, end) in enumerate([*((i, 1) for i in into), *((i, 0) for i in out)]):
                    found[i][end] = (place + 1) / (len(into) + len(out) + 1)
        return [(out * _ROW, into * _ROW) for out, into in found]

    def _points(self, edge: Edge, leaves: float, enters: float) -> list[tuple[float, float]]:
        source, target = self.boxes[edge.source], self.boxes[edge.target]
        out, top = source.y + _ROW, target.y
        columns = self._column_of[edge.source], self._column_of[edge.target]
        if edge.way == "down":
            if columns[0] == columns[1]:
                return [(source.middle, out), (target.middle, top)]
            right = self._right_edge(columns[0]) + _COLUMNS_APART / 2
            gap = _GAP * 0.6
            return [
                *((source.middle, out), (source.middle, out + gap), (right, out + gap)),
                *((right, top - gap), (target.middle, top - gap), (target.middle, top)),
            ]
        if edge.way == "right":
            if edge.lane == self.layout.lanes[edge.target]:
                y = source.y + leaves
                return [(source.x + source.width, y), (target.middle, y), (target.middle, top)]
            y = target.y + enters
            return [(source.middle, out), (source.middle, y), (target.x + target.width, y)]
        x = self.tracks[columns[0], edge.lane, edge.track]
        points = []
        if self.layout.lanes[edge.source] == edge.lane:
            points += [(source.x, source.y + leaves), (x, source.y + leaves)]
        else:
            gap = out + _GAP / 2
            points += [(source.middle, out), (source.middle, gap), (x, gap)]
        if self.layout.lanes[edge.target] == edge.lane:
            points += [(x, target.y + enters), (target.x, target.y + enters)]
        else:
            gap = top - _GAP / 2
            points += [(x, gap), (target.middle, gap), (target.middle, top)]
        return points

    def _right_edge(self, column: int) -> float:
        return max(
            box.x + box.width for i, box in enumerate(self.boxes) if self._column_of[i] == column
        )


@dataclass
class _Group:
    """The boxes of one call of a model inside the model.

    Attributes:
        inner: 1 more than how many frames are inside of this one.
        first, last: rows.
    """

    name: str
    boxes: list[int]
    inner: int
    first: int
    last: int


def _groups(boxes: Sequence[_Box], rows: Sequence[int]) -> list[_Group]:
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for i, box in enumerate(boxes):
        for depth in range(1, len(box.path) + 1):
            found.setdefault(box.path[:depth], []).append(i)
    groups = []
    for path, inside in found.items():
        inner = 1 + max(len(boxes[i].path) for i in inside) - len(path)
        lines = [rows[i] for i in inside]
        groups.append(_Group(path[-1][0], inside, inner, min(lines), max(lines)))
    return groups


def _below(groups: Sequence[_Group], rows: Sequence[int], row: int) -> float:
    """What frames need below a row."""
    return _GROUP_PAD * sum(group.last == row for group in groups)


def _line(ax: Axes, points: list[tuple[float, float]]) -> None:
    """A line with round corners and an arrowhead."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for i in range(1, len(points) - 1):
        corner = points[i]
        near, far = (_towards(corner, points[j]) for j in (i - 1, i + 1))
        vertices += [near, corner, far]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    vertices.append(points[-1])
    codes.append(Path.LINETO)
    ax.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>,head_length=2.6,head_width=1.6",
            mutation_scale=1,
            linewidth=0.9,
            color=canvas.MUTED,
            joinstyle="round",
            capstyle="butt",
            zorder=1,
        )
    )


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """A point a little way from a corner."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5
    share = min(_CORNER, length / 2) / length if length else 0.0
    return corner[0] + dx * share, corner[1] + dy * share


def _draw_box(ax: Axes, box: _Box) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    shape = f"round,pad=0,rounding_size={_CORNER}"
    size = (box.width, _ROW)
    frame = FancyBboxPatch(
        (box.x, box.y), *size, boxstyle=shape, facecolor="white", edgecolor="none", zorder=2
    )
    ax.add_patch(frame)
    stripe = Rectangle((box.x, box.y), _STRIPE, _ROW, facecolor=box.colour, zorder=3)
    ax.add_patch(stripe)
    stripe.set_clip_path(frame)
    ax.add_patch(
        FancyBboxPatch(
            (box.x, box.y),
            *size,
            boxstyle=shape,
            facecolor="none",
            edgecolor=box.colour if box.kind == "model" else "#B8C2CC",
            linewidth=0.9,
            zorder=4,
        )
    )
    bold, plain = box.texts
    left, middle = box.x + _STRIPE + _PAD, box.y + _ROW / 2 + 0.005
    written: dict[str, Any] = {"va": "center_baseline", "fontsize": _SIZE, "zorder": 5}
    ax.text(left, middle, bold, fontweight="bold", color=canvas.INK, **written)
    if plain:
        ax.text(left + box.bold_width + 0.08, middle, plain, color=canvas.MUTED, **written)
    if box.shape:
        right = box.x + box.width - _PAD
        ax.text(right, middle, box.shape, ha="right", color=canvas.INK, **written)
