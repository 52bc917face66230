"""Means and sums of values, for training loops of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import device, losses
from convkit.metrics.base import Metric


class Sum(Metric):
    """The sum of all values that `update_state` was given.

    Args:
        name, dtype: as of `Metric`.
    """

    name = "sum"

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Adds values.

        Args:
            values: a number or an array.
            sample_weight: factors, one for each value or each sample.
        """
        array = device.to_numpy(values) if device.is_device_array(values) else np.asarray(values)
        array = array.astype(np.float64)
        weights = np.ones(())
        if sample_weight is not None:
            weights = losses.weights_of(self.name, sample_weight, array)
        weights = np.broadcast_to(weights, array.shape)
        self.ensure_built((), ())
        total, count = self.total.host()
        self.total.assign([total + (array * weights).sum(), count + weights.sum()])

    def __call__(self, values: Any, sample_weight: Any = None) -> Any:
        self.update_state(values, sample_weight)
        return self.result()

    def result(self) -> Any:
        return float(self.total.host()[0]) if self.variables else 0.0


class Mean(Sum):
    """The mean of all values that `update_state` was given; 0 before the first."""

    name = "mean"

    def result(self) -> Any:
        if not self.variables:
            return 0.0
        total, count = self.total.host()
        return float(total / count) if count else 0.0
