"""Convolution, pooling and up-sampling."""

from __future__ import annotations

from typing import Any

from convkit import activations, constraints, geometry, initializers, ops, regularizers
from convkit.geometry import Shape
from convkit.graph import Variable
from convkit.layers.base import Layer
from convkit.layers.core import channels_of, data_format_of


class Conv2D(Layer):
    """Two-dimensional convolution, then an activation.

    Args:
        filters: how many channels come out.
        kernel_size: an integer, or (height, width).
        strides: an integer, or (down, right).
        padding: "valid" or "same"; what `convkit.ops.conv2d` takes besides is taken here too.
        data_format: "channels_last" (None) or "channels_first".
        dilation_rate: an integer, or (down, right).
        groups: channels and filters are split into so many independent convolutions.
        activation: a name, a function of `convkit.ops`, or None.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: names or initializers.
        kernel_regularizer, bias_regularizer: penalties on the weights, names or regularizers.
        activity_regularizer: a penalty on the layer's output, a mean over the samples.
        kernel_constraint, bias_constraint: what the weights are held to, names or constraints.

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
        groups: int = 1,
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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = geometry.integer(self.name, "filters", filters, 1)
        self.kernel_size = geometry.pair(self.name, "kernel_size", kernel_size, 1)
        self.strides = geometry.pair(self.name, "strides", strides, 1)
        self.padding = padding
        self.data_format = data_format_of(self.name, data_format)
        self.dilation_rate = geometry.pair(self.name, "dilation_rate", dilation_rate, 1)
        self.groups = geometry.integer(self.name, "groups", groups, 1)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(self.name, input_shape, self.data_format)
        if channels % self.groups:
            raise geometry.fail(
                self.name, f"channels to be a multiple of groups ({self.groups})", channels
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_weight(
            "kernel",
            shape,
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, x: Any) -> Any:
        y = ops.conv2d(
            x,
            self.kernel,
            self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
        )
        return self.activation(y)


class _Pooling2D(Layer):
    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: Any = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = geometry.pair(self.name, "pool_size", pool_size, 1)
        self.strides = (
            self.pool_size if strides is None else geometry.pair(self.name, "strides", strides, 1)
        )
        self.padding = padding
        self.data_format = data_format_of(self.name, data_format)

    def build(self, input_shape: Shape) -> None:
        channels_of(self.name, input_shape, self.data_format)


class MaxPooling2D(_Pooling2D):
    """The maximum of each window.

    Args:
        pool_size: an integer, or (down, right).
        strides: an integer, or (down, right); None: the window's size.
        padding: "valid" or "same"; what `convkit.ops.max_pool2d` takes besides is taken here too.
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: (N, out_height, out_width, C).
    """

    def call(self, x: Any) -> Any:
        return ops.max_pool2d(
            x,
            self.pool_size,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
        )


class AveragePooling2D(_Pooling2D):
    """The mean of each window; padding is left out of the count.

    Args:
        pool_size: an integer, or (down, right).
        strides: an integer, or (down, right); None: the window's size.
        padding: "valid" or "same"; what `convkit.ops.avg_pool2d` takes besides is taken here too.
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: (N, out_height, out_width, C).
    """

    def call(self, x: Any) -> Any:
        return ops.avg_pool2d(
            x,
            self.pool_size,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
        )


class _GlobalPooling2D(Layer):
    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(self.name, data_format)
        self.keepdims = bool(keepdims)

    def build(self, input_shape: Shape) -> None:
        channels_of(self.name, input_shape, self.data_format)


class GlobalAveragePooling2D(_GlobalPooling2D):
    """The mean of each image, channel by channel.

    Args:
        data_format: "channels_last" (None) or "channels_first".
        keepdims: whether height and width stay, with one value.

    Input shape: (N, H, W, C). Output shape: (N, C), or (N, 1, 1, C) with keepdims.
    """

    def call(self, x: Any) -> Any:
        return ops.global_avg_pool2d(x, data_format=self.data_format, keepdims=self.keepdims)


class GlobalMaxPooling2D(_GlobalPooling2D):
    """The maximum of each image, channel by channel.

    Args:
        data_format: "channels_last" (None) or "channels_first".
        keepdims: whether height and width stay, with one value.

    Input shape: (N, H, W, C). Output shape: (N, C), or (N, 1, 1, C) with keepdims.
    """

    def call(self, x: Any) -> Any:
        return ops.global_max_pool2d(x, data_format=self.data_format, keepdims=self.keepdims)


class UpSampling2D(Layer):
    """Repeats rows and columns, or interpolates between them.

    Args:
        size: an integer, or (down, right): how many times as many.
        data_format: "channels_last" (None) or "channels_first".
        interpolation: "nearest" or "bilinear".

    Input shape: (N, H, W, C). Output shape: (N, H * size, W * size, C).
    """

    def __init__(
        self,
        size: Any = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = geometry.pair(self.name, "size", size, 1)
        self.data_format = data_format_of(self.name, data_format)
        self.interpolation = geometry.choice(
            self.name, "interpolation", interpolation, ("nearest", "bilinear")
        )

    def build(self, input_shape: Shape) -> None:
        channels_of(self.name, input_shape, self.data_format)

    def call(self, x: Any) -> Any:
        return ops.upsample2d(
            x, self.size, interpolation=self.interpolation, data_format=self.data_format
        )
