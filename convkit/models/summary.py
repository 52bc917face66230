"""The table that `model.summary()` prints."""

from __future__ import annotations

from typing import Any

from convkit.geometry import Shape


def _shape(shape: Shape) -> str:
    return "(" + ", ".join("None" if size is None else str(size) for size in shape) + ")"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} GB"


def summary_table(model: Any) -> str:
    """Layers, output shapes and parameters, as Keras lays them out."""
    rows = [("Layer (type)", "Output Shape", "Param #")]
    for layer in model.layers:
        name = f"{layer.name} ({type(layer).__name__})"
        rows.append((name, _shape(layer.output_shape), f"{layer.count_params():,}"))
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(3)]

    def rule(left: str, middle: str, right: str, line: str) -> str:
        return left + middle.join(line * width for width in widths) + right

    def row(cells: tuple[str, str, str]) -> str:
        text = [
            f" {cells[0]:<{widths[0] - 1}}",
            f" {cells[1]:<{widths[1] - 1}}",
            f"{cells[2]:>{widths[2] - 1}} ",
        ]
        return "│" + "│".join(text) + "│"

    lines = [
        f'Model: "{model.name}"',
        rule("┌", "┬", "┐", "─"),
        row(rows[0]),
        rule("├", "┼", "┤", "─"),
        *(row(cells) for cells in rows[1:]),
        rule("└", "┴", "┘", "─"),
    ]
    trainable = sum(v.value.size for v in model.trainable_weights)
    total = sum(v.value.size for v in model.weights)
    item = 8 if model.dtype == "float64" else 4
    for title, count in (
        ("Total params", total),
        ("Trainable params", trainable),
        ("Non-trainable params", total - trainable),
    ):
        lines.append(f" {title}: {count:,} ({_bytes(count * item)})")
    return "\n".join(lines)
