"""What all pictures share: the style, new figures, saving, and grids of small images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that people with any colour vision tell apart (Okabe and Ito, 2008).
BLUE, VERMILION = "#0072B2", "#D55E00"
INK, MUTED, LINES = "#1F2933", "#616E7C", "#D9DEE4"
RIGHT, WRONG = BLUE, VERMILION
DPI = 120
_FONT = "DejaVu Sans"

_STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": [_FONT],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINES,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": LINES,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "convkit",
}


@contextmanager
def style() -> Iterator[None]:
    """Our settings of Matplotlib, in place of the user's, for as long as a picture is made."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "convkit.plot needs Matplotlib: pip install 'convkit-nn[plot]'"
        ) from error
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "agg"}
    with matplotlib.rc_context(settings):
        yield


def draw(
    width: float,
    height: float,
    paint: Callable[[Any], None],
    path: str | os.PathLike[str] | None,
    constrained: bool = True,
) -> Figure:
    """A figure of so many inches on which `paint` has drawn, saved if there is a path.

    Args:
        constrained: whether Matplotlib finds the places of axes; otherwise `paint` says them.
    """
    with style():
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06) if constrained else None
        figure = Figure(figsize=(width, height), layout=layout)
        paint(figure)
        if path is not None:
            figure.savefig(Path(path))
    return figure


def heading(canvas: Any, title: str, size: float = 10.5) -> None:
    """The title of a figure or of a part of one, above all else, at its left."""
    canvas.suptitle(title, x=0.01, ha="left", fontsize=size, fontweight="bold", color=INK)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """How many inches a line takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def heading_width(title: str) -> float:
    """How many inches `heading` takes at least."""
    with style():
        return text_width(title, 10.5, bold=True) + 0.2


def grid(canvas: Any, count: int, columns: int) -> list[Axes]:
    """Axes for so many small images, row by row, without frames or ticks."""
    axes = canvas.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
    for ax in axes[count:]:
        ax.set_visible(False)
    return list(axes[:count])


def frame(ax: Axes, colour: str) -> None:
    """A border around a small image."""
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=2)


def show_image(ax: Axes, image: np.ndarray) -> None:
    """An image (H, W) or (H, W, channels), 0 to 255 if it holds bytes, else 0 to 1 or -1 to 1.

    Three channels are colours; of any other number, the mean is shown.
    """
    highest = 255 if image.dtype == np.uint8 else max(1.0, float(image.max()))
    if image.ndim == 3 and image.shape[2] != 3:
        image = image.mean(axis=2)
    lowest = -1 if image.dtype != np.uint8 and image.min() < 0 else 0
    ax.imshow(image, cmap="gray", vmin=lowest, vmax=highest)


def names_of(class_names: Sequence[str] | None, count: int) -> list[str]:
    """One name for each of so many classes."""
    names = [str(name) for name in class_names or range(count)]
    if len(names) < count:
        raise ValueError(f"plot: expected {count} class names, got {len(names)}")
    return names


def percent(probability: float) -> str:
    """A probability in so many words as it deserves."""
    return f"{probability * 100:.0f} %" if probability < 0.995 else ">99 %"
