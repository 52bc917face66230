"""The score that a callback watches, and whether it became better."""

from __future__ import annotations

import warnings
from typing import Any

from convkit import geometry
from convkit.callbacks.base import Logs

# Parts of names of scores that are to grow; Keras asks the metric, which comes to the same.
GROWING = ("acc", "precision", "recall", "auc", "f1", "fbeta", "iou", "true_", "cosine_similarity")


class Monitor:
    """A score among the logs, and the best of it.

    Args:
        op: the callback's name, for messages.
        name: of the score.
        mode: "min", "max", or "auto": by the score's name.
        min_delta: what counts as better is better by more than this.
    """

    def __init__(self, op: str, name: str, mode: str, min_delta: float = 0.0) -> None:
        self.op = op
        self.name = name
        self.min_delta = abs(float(min_delta))
        mode = geometry.choice(op, "mode", mode, ("auto", "min", "max"))
        if mode == "auto":
            mode = "max" if any(part in name for part in GROWING) else "min"
        self.grows = mode == "max"

    def value(self, logs: Logs | None) -> float | None:
        """The score; None with a warning where there is none of this name."""
        value = (logs or {}).get(self.name)
        if value is None:
            known = ", ".join(sorted(logs or {})) or "none"
            warnings.warn(
                f"{self.op}: expected a score named {self.name!r} to watch, got {known}",
                RuntimeWarning,
                stacklevel=3,
            )
        return value

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; any is where there is none."""
        if best is None:
            return value == value  # NaN is no improvement
        if self.grows:
            return value > best + self.min_delta
        return value < best - self.min_delta


def optional(value: Any) -> float | None:
    """A number or None."""
    return None if value is None else float(value)
