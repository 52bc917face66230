"""Convolutions beside `Conv2D`: transposed, depthwise and separable."""

from __future__ import annotations

from typing import Any

from convkit import activations, constraints, geometry, initializers, ops, regularizers
from convkit.geometry import Shape
from convkit.graph import Variable
from convkit.layers.base import Layer
from convkit.layers.core import channels_of, data_format_of


class _Convolution(Layer):
    """What all of them have: a window, an activation and a bias."""

    def __init__(
        self,
        kernel_size: Any,
        strides: Any,
        padding: Any,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = geometry.pair(self.name, "kernel_size", kernel_size, 1)
        self.strides = geometry.pair(self.name, "strides", strides, 1)
        self.padding = padding
        self.data_format = data_format_of(self.name, data_format)
        self.dilation_rate = geometry.pair(self.name, "dilation_rate", dilation_rate, 1)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)
        self.bias: Variable | None = None

    def _add_bias(self, filters: int) -> None:
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _options(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
        }


class Conv2DTranspose(_Convolution):
    """Transposed convolution, then an activation: the way back from the shape of a convolution's
    output to that of its input.

    Args:
        filters: how many channels come out.
        kernel_size: an integer, or (height, width).
        strides: an integer, or (down, right): how many times as many rows and columns come out.
        padding: "valid" or "same".
        output_padding: None, an integer, or (down, right), smaller than the strides.
        data_format: "channels_last" (None) or "channels_first".
        dilation_rate: an integer, or (down, right).
        activation: a name, a function of `convkit.ops`, or None.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: names or initializers.
        kernel_regularizer, bias_regularizer: penalties on the weights, names or regularizers.
        activity_regularizer: a penalty on the layer's output, a mean over the samples.
        kernel_constraint, bias_constraint: what the weights are held to, names or constraints.

    Input shape: (N, H, W, C). Output shape: (N, out_height, out_width, filters), see
    `convkit.ops.conv2d_transpose`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.filters = geometry.integer(self.name, "filters", filters, 1)
        geometry.choice(self.name, "padding", padding, ("valid", "same"))
        self.output_padding = (
            None
            if output_padding is None
            else geometry.pair(self.name, "output_padding", output_padding, 0)
        )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.kernel: Variable

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            "kernel",
            (
                *self.kernel_size,
                self.filters,
                channels_of(self.name, input_shape, self.data_format),
            ),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self._add_bias(self.filters)

    def call(self, x: Any) -> Any:
        options = {**self._options(), "output_padding": self.output_padding}
        return self.activation(ops.conv2d_transpose(x, self.kernel, self.bias, **options))


class DepthwiseConv2D(_Convolution):
    """Convolution of each channel with filters of its own, then an activation.

    Args:
        kernel_size: an integer, or (height, width).
        strides: an integer, or (down, right).
        padding: "valid" or "same"; what `convkit.ops.conv2d` takes besides is taken here too.
        depth_multiplier: filters for each channel.
        data_format: "channels_last" (None) or "channels_first".
        dilation_rate: an integer, or (down, right).
        activation: a name, a function of `convkit.ops`, or None.
        use_bias: whether a bias is added.
        depthwise_initializer, bias_initializer: names or initializers.
        depthwise_regularizer, bias_regularizer: penalties on the weights, names or regularizers.
        activity_regularizer: a penalty on the layer's output, a mean over the samples.
        depthwise_constraint, bias_constraint: what the weights are held to, names or constraints.

    Input shape: (N, H, W, C). Output shape: (N, out_height, out_width, C * depth_multiplier).
    """

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.depth_multiplier = geometry.integer(self.name, "depth_multiplier", depth_multiplier, 1)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.kernel: Variable

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(self.name, input_shape, self.data_format)
        self.kernel = self.add_weight(
            "kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        self._add_bias(channels * self.depth_multiplier)

    def call(self, x: Any) -> Any:
        y = ops.depthwise_conv2d(x, self.kernel, self.bias, **self._options())
        return self.activation(y)


class SeparableConv2D(_Convolution):
    """A depthwise convolution, then one by 1 x 1 that mixes the channels, then an activation.

    Args:
        filters: how many channels come out.
        kernel_size: an integer, or (height, width).
        strides: an integer, or (down, right).
        padding: "valid" or "same"; what `convkit.ops.conv2d` takes besides is taken here too.
        data_format: "channels_last" (None) or "channels_first".
        dilation_rate: an integer, or (down, right).
        depth_multiplier: filters of the depthwise convolution for each channel.
        activation: a name, a function of `convkit.ops`, or None.
        use_bias: whether a bias is added.
        depthwise_initializer, pointwise_initializer, bias_initializer: names or initializers.
        depthwise_regularizer, pointwise_regularizer, bias_regularizer: penalties on the weights,
            names or regularizers.
        activity_regularizer: a penalty on the layer's output, a mean over the samples.
        depthwise_constraint, pointwise_constraint, bias_constraint: what the weights are held to,
            names or constraints.

    Input shape: (N, H, W, C). Output shape: (N, out_height, out_width, filters).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            bias_constraint,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.filters = geometry.integer(self.name, "filters", filters, 1)
        self.depth_multiplier = geometry.integer(self.name, "depth_multiplier", depth_multiplier, 1)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.pointwise_constraint = constraints.get(pointwise_constraint)
        self.depthwise_kernel: Variable
        self.pointwise_kernel: Variable

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(self.name, input_shape, self.data_format)
        self.depthwise_kernel = self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel",
            (1, 1, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )
        self._add_bias(self.filters)

    def call(self, x: Any) -> Any:
        weights = (self.depthwise_kernel, self.pointwise_kernel, self.bias)
        return self.activation(ops.separable_conv2d(x, *weights, **self._options()))


__all__ = ["Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"]
