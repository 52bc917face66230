"""Learning-rate schedules: the rate as a function of the step, with Keras's names and definitions.

A schedule takes the place of the learning rate of any optimizer. It is called with the number of
updates before this one (0 at first) and must depend on that alone: `Optimizer.prepare` asks for the
rates of many steps at once, so that an epoch runs without Python. A schedule of one's own is a
subclass, or any function of the step:

    >>> class Inverse(schedules.LearningRateSchedule):
    ...     def __init__(self, initial):
    ...         self.initial = initial
    ...     def __call__(self, step):
    ...         return self.initial / (step + 1)
    >>> optimizers.SGD(Inverse(0.1))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, cos, floor, inf, pi
from typing import Any

from convkit import configuration, geometry, registered


class LearningRateSchedule(configuration.Configured):
    """Base class. Arguments that are kept as attributes of the same names make `get_config`."""

    def __call__(self, step: int) -> float:
        """The learning rate of the update before which `step` others were made."""
        raise TypeError(f"{type(self).__name__}: a subclass must define __call__(step)")


class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps).

    Args:
        initial_learning_rate: at least 0.
        decay_steps: above 0.
        decay_rate: above 0.
        staircase: whether the exponent is rounded down to whole numbers.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = _rate(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _positive(self, "decay_steps", decay_steps)
        self.decay_rate = _positive(self, "decay_rate", decay_rate)
        self.staircase = bool(staircase)
        self.name = name

    def __call__(self, step: int) -> float:
        share = step / self.decay_steps
        exponent = floor(share) if self.staircase else share
        return float(self.initial_learning_rate * self.decay_rate**exponent)


class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps).

    Args:
        initial_learning_rate: at least 0.
        decay_steps: above 0.
        decay_rate: at least 0.
        staircase: whether step / decay_steps is rounded down to whole numbers.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = _rate(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _positive(self, "decay_steps", decay_steps)
        self.decay_rate = _rate(self, "decay_rate", decay_rate)
        self.staircase = bool(staircase)
        self.name = name

    def __call__(self, step: int) -> float:
        share = step / self.decay_steps
        times = floor(share) if self.staircase else share
        return self.initial_learning_rate / (1 + self.decay_rate * times)


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[0] up to and with step boundaries[0], values[1] up to and with boundaries[1], ...

    Args:
        boundaries: steps, each larger than the one before.
        values: one more than boundaries.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        self.boundaries = [
            geometry.number(_op(self), "boundaries", b, -inf, inf) for b in boundaries
        ]
        self.values = [_rate(self, "values", value) for value in values]
        if len(self.boundaries) != len(self.values) - 1:
            raise geometry.fail(
                _op(self),
                "one value more than boundaries",
                f"{len(self.values)} values and {len(self.boundaries)} boundaries",
            )
        if any(a >= b for a, b in pairwise(self.boundaries)):
            raise geometry.fail(_op(self), "boundaries that increase", boundaries)
        self.name = name

    def __call__(self, step: int) -> float:
        return self.values[sum(step > boundary for boundary in self.boundaries)]


class PolynomialDecay(LearningRateSchedule):
    """From initial_learning_rate to end_learning_rate by (1 - step / decay_steps) ** power.

    Args:
        initial_learning_rate, end_learning_rate: at least 0.
        decay_steps: above 0.
        power: at least 0; 1 is a straight line.
        cycle: whether the steps are stretched to the next multiple of decay_steps, where the rate
            begins anew; otherwise it stays at end_learning_rate.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = _rate(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _positive(self, "decay_steps", decay_steps)
        self.end_learning_rate = _rate(self, "end_learning_rate", end_learning_rate)
        self.power = _rate(self, "power", power)
        self.cycle = bool(cycle)
        self.name = name

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, ceil(step / steps))
        share = 1 - min(step, steps) / steps
        change = self.initial_learning_rate - self.end_learning_rate
        return float(change * share**self.power + self.end_learning_rate)


class CosineDecay(LearningRateSchedule):
    """Half a wave of a cosine from the initial rate to `alpha` of it (Loshchilov and Hutter, 2017),
    after a rise in a straight line, if there is one (Goyal et al., 2017).

    Args:
        initial_learning_rate: at least 0; where the rise begins, or else the decay.
        decay_steps: above 0; of the decay alone.
        alpha: the rate at the end, as a share of the rate at the beginning of the decay.
        name: kept for Keras's sake.
        warmup_target: where the rise ends and the decay begins; None: there is no rise.
        warmup_steps: of the rise.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = _rate(self, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _positive(self, "decay_steps", decay_steps)
        self.alpha = _rate(self, "alpha", alpha)
        self.name = name
        self.warmup_target = (
            None if warmup_target is None else _rate(self, "warmup_target", warmup_target)
        )
        self.warmup_steps = geometry.integer(_op(self), "warmup_steps", warmup_steps, 0)

    def __call__(self, step: int) -> float:
        start, target = self.initial_learning_rate, self.warmup_target
        if target is not None:
            if step < self.warmup_steps:
                return start + (target - start) * (step / self.warmup_steps)
            start, step = target, step - self.warmup_steps
        share = min(step, self.decay_steps) / self.decay_steps
        return start * ((1 - self.alpha) * _half_wave(share) + self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays one after the other (Loshchilov and Hutter, 2017).

    Args:
        initial_learning_rate: at least 0.
        first_decay_steps: above 0; of the first decay.
        t_mul: at least 1; each decay has so many times the steps of the one before.
        m_mul: each decay begins at so many times the rate of the one before.
        alpha: the rate at the end of the first decay, as a share of initial_learning_rate.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = _rate(self, "initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = _positive(self, "first_decay_steps", first_decay_steps)
        self.t_mul = geometry.number(_op(self), "t_mul", t_mul, 1, inf)
        self.m_mul = _rate(self, "m_mul", m_mul)
        self.alpha = _rate(self, "alpha", alpha)
        self.name = name

    def __call__(self, step: int) -> float:
        restarts, steps, left = 0, float(self.first_decay_steps), float(step)
        if self.t_mul == 1:
            restarts = floor(left / steps)
            left -= restarts * steps
        else:
            while left >= steps:
                left -= steps
                steps *= self.t_mul
                restarts += 1
        height = self.m_mul**restarts * _half_wave(left / steps)
        return float(self.initial_learning_rate * ((1 - self.alpha) * height + self.alpha))


class OneCycle(LearningRateSchedule):
    """Up to the largest rate, then down to far below the first one (Smith and Topin, 2018).

    Keras has none; names, defaults and rates are those of PyTorch's `OneCycleLR`. After the last
    step the rate stays.

    Args:
        max_lr: at least 0, the largest rate.
        total_steps: at least 1, of the whole cycle.
        pct_start: share of the steps in which the rate rises, 0 < pct_start < 1.
        anneal_strategy: "cos" for half waves of a cosine, "linear" for straight lines.
        div_factor: the first rate is max_lr / div_factor.
        final_div_factor: the last rate is the first one divided by this.
        three_phase: whether the rate falls to the first one as it rose, and only then to the last.
        name: kept for Keras's sake.
    """

    def __init__(
        self,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        name: str = "OneCycle",
    ) -> None:
        self.max_lr = _rate(self, "max_lr", max_lr)
        self.total_steps = geometry.integer(_op(self), "total_steps", total_steps, 1)
        self.pct_start = _positive(self, "pct_start", pct_start, 1)
        self.anneal_strategy = geometry.choice(
            _op(self), "anneal_strategy", anneal_strategy, ("cos", "linear")
        )
        self.div_factor = _positive(self, "div_factor", div_factor)
        self.final_div_factor = _positive(self, "final_div_factor", final_div_factor)
        self.three_phase = bool(three_phase)
        self.name = name

    def __call__(self, step: int) -> float:
        first = self.max_lr / self.div_factor
        last, end = first / self.final_div_factor, self.total_steps - 1
        top = self.pct_start * self.total_steps - 1
        stops = [(0.0, first), (top, self.max_lr)]
        if self.three_phase:
            stops.append((2 * self.pct_start * self.total_steps - 2, first))
        stops.append((end, last))
        for (start, low), (stop, high) in pairwise(stops):
            if step <= stop:
                share = (step - start) / (stop - start) if stop > start else 1.0
                if self.anneal_strategy == "linear":
                    return low + (high - low) * share
                return high + (low - high) * _half_wave(share)
        return last


def deserialize(config: dict[str, Any]) -> Any:
    """A schedule from {"class_name": ..., "config": ...}, a registered one of one's own too."""
    return registered.made(config, "schedules")


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """{"class_name": ..., "config": ...} of a schedule."""
    return configuration.described(learning_rate_schedule)


def _half_wave(share: float) -> float:
    """From 1 to 0."""
    return 0.5 * (1 + cos(pi * share))


def _op(schedule: LearningRateSchedule) -> str:
    return type(schedule).__name__


def _rate(schedule: LearningRateSchedule, name: str, value: Any) -> float:
    return geometry.number(_op(schedule), name, value, 0, inf)


def _positive(schedule: LearningRateSchedule, name: str, value: Any, below: float = inf) -> float:
    number = geometry.number(_op(schedule), name, value, 0, below)
    if number == 0:
        raise geometry.fail(_op(schedule), f"{name} above 0", value)
    return number
