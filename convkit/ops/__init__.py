"""Functions on arrays: convolution, pooling, up-sampling, dense layers, activations and losses.

Every function takes and returns NumPy arrays, float32 or float64 (other numbers become float32, or
follow the other arguments). `out` is an array of the result's shape and dtype to write to.

They take arrays on a GPU too, and return CuPy arrays then: all arrays of a call are on one GPU, and
`out` is CuPy's. Those of PyTorch, JAX or Numba (with DLPack or `__cuda_array_interface__`) are read
where they lie. Kernels run in CuPy's current stream.

Each has a partner `<name>_backward(dy, <its array arguments>, <the same options>)`. dy is the
gradient of the result and has its shape; what comes back are the gradients of the array arguments,
in their order and of their shapes: one array, or a tuple where there are several. `needs` is a
boolean per array argument: a gradient that nobody needs is not worked out, and is None. `out` is an
array (or a tuple of arrays and None) for the gradients.

What does not fit raises a ValueError or TypeError that names the function, what it expected and
what it got. On symbols the same functions record a graph.
"""

from convkit.ops.activation import (
    exp,
    exp_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from convkit.ops.conv import conv2d, conv2d_backward
from convkit.ops.dense import dense, dense_backward
from convkit.ops.join import add, add_backward, concatenate, concatenate_backward
from convkit.ops.loss import (
    binary_crossentropy,
    binary_crossentropy_backward,
    categorical_crossentropy,
    categorical_crossentropy_backward,
    mean_absolute_error,
    mean_absolute_error_backward,
    mean_squared_error,
    mean_squared_error_backward,
    sparse_categorical_crossentropy,
    sparse_categorical_crossentropy_backward,
)
from convkit.ops.pool import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from convkit.ops.rescale import rescale, rescale_backward
from convkit.ops.upsample import upsample2d, upsample2d_backward

__all__ = [
    "add",
    "add_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "binary_crossentropy",
    "binary_crossentropy_backward",
    "categorical_crossentropy",
    "categorical_crossentropy_backward",
    "concatenate",
    "concatenate_backward",
    "conv2d",
    "conv2d_backward",
    "dense",
    "dense_backward",
    "exp",
    "exp_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mean_absolute_error",
    "mean_absolute_error_backward",
    "mean_squared_error",
    "mean_squared_error_backward",
    "relu",
    "relu_backward",
    "rescale",
    "rescale_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "sparse_categorical_crossentropy",
    "sparse_categorical_crossentropy_backward",
    "tanh",
    "tanh_backward",
    "upsample2d",
    "upsample2d_backward",
]
