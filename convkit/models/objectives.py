"""What a model is trained for: for each output a loss, its share of the whole, and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convkit import geometry, losses, metrics
from convkit.geometry import Shape
from convkit.models.data import listed

# Reductions of a loss that are what training goes by: the mean over all rows.
MEANS = ("sum_over_batch_size", "mean")


@dataclass(frozen=True)
class Objective:
    """What one output is compared with its targets by.

    Attributes:
        name: the output's.
        shape: that of predictions: (None, ...).
        loss: None: the output has no targets.
        weight: factor of the loss in the sum of all.
        metrics: shown, not trained for.
        prefix: of the names in logs: "" where there is one output alone.
    """

    name: str
    shape: Shape
    loss: losses.Loss | None
    weight: float
    metrics: list[metrics.Metric]
    prefix: str


def objectives(
    names: Sequence[str], shapes: Sequence[Shape], loss: Any, weights: Any, chosen: Any
) -> list[Objective]:
    """One for each output, from what `compile` was given: one thing, a list or a dictionary.

    Args:
        names, shapes: of the outputs.
        loss: a loss for all outputs, or a list or a dictionary of them (None: no targets).
        weights: None, a list or a dictionary of numbers.
        chosen: metrics: for one output a list; for several a list of lists, a dictionary of lists
            by the outputs' names, or a list for all.
    """
    found = [
        None if one is None else losses.get(one) for one in _spread("loss", names, loss, every=True)
    ]
    factors = _spread("loss_weights", names, weights, every=False)
    shown = _metrics(names, chosen, [loss is None or one is not None for one in found])
    result = []
    for name, shape, one, factor, given in zip(names, shapes, found, factors, shown, strict=True):
        if one is None and given and loss is not None:
            raise geometry.fail(
                "compile", f"metrics for outputs with a loss, as {name} has none", given
            )
        sparse = one is not None and one.sparse
        if one is not None and one.reduction not in MEANS:
            raise geometry.fail(
                "compile", f"a loss with reduction {' or '.join(MEANS)}", repr(one.reduction)
            )
        result.append(
            Objective(
                name,
                shape,
                one,
                1.0
                if factor is None
                else geometry.number(
                    "compile", "loss_weights", factor, -float("inf"), float("inf")
                ),
                [metrics.get(metric, shape, sparse) for metric in given],
                f"{name}_" if len(names) > 1 else "",
            )
        )
    return result


def _spread(what: str, names: Sequence[str], given: Any, every: bool) -> list[Any]:
    """One for each output.

    Args:
        every: whether a single thing serves for all.
    """
    if given is None:
        return [None] * len(names)
    if isinstance(given, dict):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise geometry.fail(
                "compile", f"{what} for outputs among {', '.join(names)}", ", ".join(unknown)
            )
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != len(names):
            raise geometry.fail("compile", f"{what} for {len(names)} outputs", len(given))
        return list(given)
    if every or len(names) == 1:
        return [given] * len(names)
    raise geometry.fail("compile", f"{what} as a list or a dictionary", repr(given))


def _metrics(names: Sequence[str], given: Any, has_losses: Sequence[bool]) -> list[list[Any]]:
    if not given:
        return [[] for _ in names]
    if isinstance(given, dict):
        return [listed(one) for one in _spread("metrics", names, given, every=False)]
    nested = any(isinstance(one, (list, tuple)) for one in given)
    if len(names) > 1 and (nested or len(given) == len(names)):
        return [listed(one) for one in _spread("metrics", names, given, every=False)]
    flat = [one for part in given for one in listed(part)]
    return [flat if has_loss else [] for has_loss in has_losses]
