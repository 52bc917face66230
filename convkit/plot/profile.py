"""A picture of where a model's time goes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from convkit.plot import canvas
from convkit.profiling import WIDEST_KERNEL, WIDEST_LAYER, cut, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convkit.profiling import Profile, Row

# Kernels that take a smaller share of the time are put together as one bar.
_LEAST_SHARE = 0.005
_COLOURS = {
    "depth-first": canvas.BLUE,
    "breadth-first": canvas.VERMILION,
    "update": "#009E73",
    "more": "#9AA5B1",
}
_BAR = 0.25  # inches from one bar to the next


def profile(
    profile: Profile,
    *,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """The time of each kernel, with its share of the arithmetic peak of one core at the bar's end.

    Kernels stand in the order in which they run; those that take less than half a percent of the
    time are put together at the end.

    Args:
        profile: what `convkit.profile` returned.
        title: above the picture; None: what was measured, its time and its share of the peak.
        path: where to save the picture.
    """
    total = getattr(profile, "seconds", None)
    if not total:
        raise ValueError(
            "plot.profile: expected what convkit.profile(model, x, y) returned, with times, "
            f"got {'a plan without times' if hasattr(profile, 'rows') else repr(profile)}"
        )
    shown = [row for row in profile.rows if (row.seconds or 0) >= _LEAST_SHARE * total]
    more = len(profile.rows) - len(shown)

    def paint(figure: Any) -> None:
        _draw(figure.subplots(), profile, shown, more, total)
        scale, unit = _unit(total)
        share = (
            "" if profile.share is None else f", {percent(profile.share)} of the arithmetic peak"
        )
        said = f"{profile.title}: {total * scale:.3g} {unit} a sample{share}"
        canvas.heading(figure, title or said)

    return canvas.draw(8, _BAR * (len(shown) + bool(more)) + 1.2, paint, path)


def _draw(ax: Axes, profile: Profile, shown: list[Row], more: int, total: float) -> None:
    labels = _labels(shown)
    times = [row.seconds or 0.0 for row in shown]
    kinds = [row.schedule for row in shown]
    if more:
        labels.append(f"{more} more".ljust(len(labels[0]) if labels else 0))
        times.append(total - sum(times))
        kinds.append("more")
    scale, unit = _unit(max(times))
    for kind, colour in _COLOURS.items():
        bars = [i for i, this in enumerate(kinds) if this == kind]
        if bars:
            label = None if kind == "more" else kind
            ax.barh(bars, [times[i] * scale for i in bars], 0.7, color=colour, label=label)
    for i, row in enumerate(shown):
        if row.share is not None:
            ax.annotate(
                f"{percent(row.share)} of {row.peak_name}",
                (times[i] * scale, i),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=canvas.MUTED,
            )
    ax.set_yticks(
        range(len(labels)), labels, family="DejaVu Sans Mono", fontsize=7, color=canvas.INK
    )
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.margins(x=0.14)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{unit} per sample: batches of {profile.batch_size}, {profile.where}")
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _labels(rows: list[Row]) -> list[str]:
    """The layer and the kernel of each row, in two columns of letters of one width."""
    layers = [cut(row.layer, WIDEST_LAYER) for row in rows]
    kernels = [cut(row.kernel, WIDEST_KERNEL) for row in rows]
    widths = [max(map(len, column), default=0) for column in (layers, kernels)]
    return [
        f"{layer:<{widths[0]}}  {kernel:<{widths[1]}}"
        for layer, kernel in zip(layers, kernels, strict=True)
    ]


def _unit(seconds: float) -> tuple[float, str]:
    """A factor and a unit in which such a time can be read."""
    for scale, unit in ((1e3, "ms"), (1e6, "µs")):
        if seconds * scale >= 1:
            return scale, unit
    return 1e9, "ns"
