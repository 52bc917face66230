"""The score that a callback watches, and whether it became better."""

from __future__ import annotations

import re
import warnings
from typing import Any

from convkit import geometry
from convkit.callbacks.base import Logs

# Parts of the names of metrics, of the classes' too, that say which way is better.
FALLING = (
    "loss", "error", "entropy", "mse", "mae", "mape", "msle", "bce", "hinge", "poisson",
    "divergence", "logcosh", "log_cosh", "false",
)  # fmt: skip
GROWING = (
    "acc", "precision", "recall", "sensitivity", "specificity", "auc", "f1", "fbeta", "iou", "io_u",
    "true", "cosine",
)  # fmt: skip


class Monitor:
    """A score among the logs, and the best of it.

    Args:
        op: the callback's name, for messages.
        name: of the score.
        mode: "min", "max", or "auto": what is better is known of losses, and of metrics by the
            names of their classes.
        min_delta: what counts as better is better by more than this.
    """

    def __init__(self, op: str, name: str, mode: str, min_delta: float = 0.0) -> None:
        self.op = op
        self.name = name
        self.min_delta = abs(float(min_delta))
        self.mode = geometry.choice(op, "mode", mode, ("auto", "min", "max"))
        self.grows: bool | None = None if mode == "auto" else mode == "max"

    def value(self, model: Any, logs: Logs | None) -> float | None:
        """The score; None with a warning where there is none of this name.

        Raises:
            ValueError: nobody knows whether the score is to grow or to fall.
        """
        value = (logs or {}).get(self.name)
        if value is None:
            known = ", ".join(sorted(logs or {})) or "none"
            warnings.warn(
                f"{self.op}: expected a score named {self.name!r} to watch, got {known}",
                RuntimeWarning,
                stacklevel=3,
            )
        elif self.grows is None:
            self.grows = self._direction(model)
        return value

    def _direction(self, model: Any) -> bool:
        """Whether the score is one that is to grow."""
        name = self.name.removeprefix("val_")
        names = [_class_of(model, name), name]
        for one in names:
            for parts, grows in ((FALLING, False), (GROWING, True)):
                if any(part in one.lower() for part in parts):
                    return grows
        raise geometry.fail(
            self.op, f"mode 'min' or 'max' for a score named {self.name!r}", repr(self.mode)
        )

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; any number is where there is none."""
        if best is None:
            return value == value  # NaN is no improvement
        if self.grows:
            return value - self.min_delta > best
        return value + self.min_delta < best


def _class_of(model: Any, name: str) -> str:
    """The name of the class of the metric that logs show under this name; "" if it is none."""
    for one in model.objectives():
        for metric in one.metrics:
            # A second one of the same name is shown with a number.
            if re.fullmatch(rf"{re.escape(one.prefix + metric.name)}(_\d+)?", name):
                return type(metric).__name__
    return ""


def optional(value: Any) -> float | None:
    """A number or None."""
    return None if value is None else float(value)
