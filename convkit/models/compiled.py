"""A model's inference as a function of arrays, for services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import array, device, geometry, planner
from convkit.geometry import Shape
from convkit.models import data
from convkit.models.steps import Prediction


class CompiledModel:
    """The inference of a model, made ready once: a function of arrays with almost no Python in it.

    `Model.compiled` makes it. It keeps the layers that the model has at that time, and uses the
    model's weights where they are: training, `assign` or `load_weights` changes what it returns. So
    does writing to a weight's array, but not where something follows from the weight that is kept
    until then: where batch norm was folded into it, or Winograd's method transforms it.
    Several threads may call one object at the same time; calls with more than 10 samples (23, of
    large images) use all threads themselves and wait for each other. It cannot be pickled: each
    process makes its own. On a GPU calls of several threads wait for each other; for a CuPy array a
    call returns before the GPU is done, as CuPy's functions do.

    Attributes:
        batch_size: how many samples a call takes at most.
        input_shape, output_shape: of a full batch: (batch_size, ...).
        dtype: of what it computes with and returns, "float32" or "float64".

    Example:
        >>> classify = model.compiled(batch_size=1)
        >>> probabilities = classify(image[np.newaxis])
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        batch = geometry.integer("compiled", "batch_size", batch_size, 1)
        sample = tuple(model.input_shape[1:])
        self._gpu: int | None = model.gpu
        few = batch
        if self._gpu is None:
            few = min(batch, planner.least_depth_first(model.sample_bytes(), training=False) - 1)
        # On a GPU the schedule is that of `predict`, whatever the number of samples.
        tiled = self._gpu is not None and model._depth_first(batch, training=False)
        # Images as they come from files have a function of their own.
        forward = [
            Prediction(model, [np.empty((0, *sample), dtype)], tiled)
            for dtype in (model.dtype, "uint8")
        ]
        self._run: Callable[[Any, Any], Any]
        self._run, self._run_bytes = (
            one.prepared(few) if self._gpu is None else _OnGpu(one, few) for one in forward
        )
        self._few = few
        self._many: Prediction | None = None
        if batch > few:
            self._many = Prediction(model, [np.empty((0, *sample), model.dtype)], True)
        self._shape = (None, *sample)
        self.batch_size = batch
        self.input_shape: tuple[int, ...] = (batch, *sample)
        self.output_shape: tuple[int, ...] = (batch, *model.output_shape[1:])
        self.dtype: str = model.dtype
        for variable in forward[0].variables:
            variable.add_user(self)

    def forget(self) -> None:
        """The weights are elsewhere: calls fail from now on, in one sentence."""
        self._run = _moved

    def __call__(self, x: Any, out: Any = None) -> Any:
        """The model's outputs for x, those that `predict` gives, bit for bit.

        Args:
            x: (n, ...) with 0 <= n <= batch_size. A contiguous array of the model's dtype or of
                uint8 (0 .. 255, as they are) is read where it is; anything else that holds real
                numbers is converted first.
            out: an array of the result's shape and dtype that the result is written to.

        Returns:
            (n, ...) of the model's dtype: `out`, or a new array; a CuPy array for one.

        Raises:
            ValueError, TypeError: x or out is of another shape or dtype.
            RuntimeError: the model was moved to another device meanwhile.
        """
        y = self._run(x, out)
        if y is None:
            y = self._run_bytes(x, out)
        return self._converted(x, out) if y is None else y

    def _converted(self, x: Any, out: Any) -> Any:
        """The same for arrays that the native function does not take as they are."""
        source = data.source("compiled", "x", x, self.dtype, self._gpu)
        if source.shape[1:] != self._shape[1:] or len(source) > self.batch_size:
            expected = f"x of shape {self.input_shape}"
            if self.batch_size > 1:
                expected = f"x of shape {data.describe(self._shape)}, N up to {self.batch_size}"
            raise geometry.fail("compiled", expected, source.shape)
        on_gpu = not isinstance(source, np.ndarray)
        if on_gpu:
            assert self._gpu is not None
            with device.on(self._gpu):
                values = source.astype(self.dtype, order="C", copy=False)
        else:
            values = np.require(source, np.dtype(self.dtype), ["C", "A"])
        if out is not None:
            shape = (len(values), *self.output_shape[1:])
            out = array.check_out("compiled", out, shape, np.dtype(self.dtype), on_gpu)
            if array.direct(out, [values]):
                return self._result(values, out)
        y = self._result(values, None)
        if out is None:
            return y
        array.assign(out, y)
        return out

    def _result(self, x: Any, out: Any) -> Any:
        if self._many is not None and len(x) > self._few:
            return self._many.run([x], len(x), out)[0]
        y = self._run(x, out)
        assert y is not None
        return y

    def __repr__(self) -> str:
        return f"<CompiledModel {self.input_shape} -> {self.output_shape}, {self.dtype}>"


class _OnGpu:
    """A prediction as `_core.Prepared` is one: a function of x and out (or None), which returns
    None for arrays that it does not take."""

    def __init__(self, prediction: Prediction, most: int) -> None:
        self._prediction = prediction
        self._most = most

    def __call__(self, x: Any, out: Any) -> Any:
        prediction = self._prediction
        (source,), (result,) = prediction.x, prediction.y
        if not self._takes(x, source.shape, source.dtype) or len(x) > self._most:
            return None
        if out is not None and not (
            type(out) is type(x)
            and self._takes(out, prediction.shapes[0], result.dtype)
            and len(out) == len(x)
            and array.direct(out, [x])
            and (not isinstance(out, np.ndarray) or out.flags.writeable)
        ):
            return None
        return prediction.run([x], self._most, out)[0]

    def _takes(self, values: Any, shape: Shape, dtype: str) -> bool:
        if isinstance(values, np.ndarray):
            good = values.flags.aligned and values.dtype.isnative
        else:
            good = device.is_device_array(values) and isinstance(
                values, device.array_module().ndarray
            )
            good = good and device.device_of(values) == self._prediction.gpu
        return bool(
            good
            and values.dtype == dtype
            and values.flags.c_contiguous
            and values.ndim == len(shape)
            and values.shape[1:] == shape[1:]
        )


def _moved(x: Any, out: Any) -> Any:
    raise RuntimeError(
        "compiled: expected the model's weights where they were, got them on another device; make "
        "another by model.compiled()"
    )
