"""Networks by name, none of them compiled.

Each is built as its paper (or, where that leaves something open, its customary implementation) has
it, with the number of outputs as an argument. Counts of parameters are those that are published,
and tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convkit import geometry, layers
from convkit.models.model import Model, Sequential


def lenet(variant: str = "modern", classes: int = 10) -> Sequential:
    """LeNet for digits, not compiled.

    Args:
        variant:
            "modern": the one of courses: 28 x 28, convolutions of 6 and 16 5 x 5 filters with ReLU,
            max pooling, dense layers of 120, 84 and `classes` (61,706 parameters).
            "1998": LeNet-5 as in LeCun et al., "Gradient-based learning applied to document
            recognition", 1998, in today's reading: 32 x 32, tanh, average pooling, all maps
            connected, softmax in place of radial basis functions (61,706 parameters).
            "caffe": Caffe's LeNet: 20 and 50 filters, a dense layer of 500 (431,080 parameters).
        classes: how many outputs.

    Returns:
        A built `Sequential` that takes (N, 28, 28, 1), or (N, 32, 32, 1) for "1998".
    """
    geometry.choice("lenet", "variant", variant, ("modern", "1998", "caffe"))
    if variant == "1998":
        return Sequential(
            [
                layers.Input((32, 32, 1)),
                layers.Conv2D(6, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Conv2D(16, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Conv2D(120, 5, activation="tanh"),
                layers.Flatten(),
                layers.Dense(84, activation="tanh"),
                layers.Dense(classes, activation="softmax"),
            ],
            name="lenet_1998",
        )
    if variant == "caffe":
        return Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(20, 5),
                layers.MaxPooling2D(2),
                layers.Conv2D(50, 5),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(500, activation="relu"),
                layers.Dense(classes, activation="softmax"),
            ],
            name="lenet_caffe",
        )
    return Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ],
        name="lenet",
    )


def mlp(
    hidden: Sequence[int] = (128,),
    classes: int = 10,
    input_shape: Sequence[int] = (28, 28, 1),
    activation: str = "relu",
    dropout: float = 0.0,
) -> Sequential:
    """A multilayer perceptron with a softmax.

    Args:
        hidden: units of each hidden layer.
        classes: how many outputs.
        input_shape: of a sample.
        activation: of the hidden layers.
        dropout: rate behind each hidden layer; 0: none.
    """
    parts: list[Any] = [layers.Input(tuple(input_shape)), layers.Flatten()]
    for units in hidden:
        parts.append(layers.Dense(units, activation=activation))
        if dropout:
            parts.append(layers.Dropout(dropout))
    parts.append(layers.Dense(classes, activation="softmax"))
    return Sequential(parts, name="mlp")


def alexnet(classes: int = 1000, input_shape: Sequence[int] = (227, 227, 3)) -> Sequential:
    """AlexNet (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    neural networks", 2012): 60,965,224 parameters for 1000 classes.

    Its two GPUs are groups of channels; local response normalisation, which later work found of
    little use, is left out.

    Args:
        classes: how many outputs.
        input_shape: of an image, at least 67 x 67.
    """
    return Sequential(
        [
            layers.Input(tuple(input_shape)),
            layers.Conv2D(96, 11, strides=4, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(256, 5, padding="same", groups=2, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(384, 3, padding="same", activation="relu"),
            layers.Conv2D(384, 3, padding="same", groups=2, activation="relu"),
            layers.Conv2D(256, 3, padding="same", groups=2, activation="relu"),
            layers.MaxPooling2D(3, strides=2),
            layers.Flatten(),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(classes, activation="softmax"),
        ],
        name="alexnet",
    )


# Filters of each convolution, 0 for a pooling: configurations A and D of the paper.
_VGG = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
}


def vgg(
    depth: int = 16, classes: int = 1000, input_shape: Sequence[int] = (224, 224, 3)
) -> Sequential:
    """VGG (Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
    recognition", 2015): 132,863,336 parameters with 11 layers, 138,357,544 with 16.

    Args:
        depth: 11 or 16.
        classes: how many outputs.
        input_shape: of an image, at least 32 x 32.
    """
    if depth not in _VGG:
        raise geometry.fail("vgg", "a depth of 11 or 16", depth)
    parts: list[Any] = [layers.Input(tuple(input_shape))]
    for filters in _VGG[depth]:
        if filters:
            parts.append(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        else:
            parts.append(layers.MaxPooling2D(2))
    parts.append(layers.Flatten())
    for _ in range(2):
        parts += [layers.Dense(4096, activation="relu"), layers.Dropout(0.5)]
    parts.append(layers.Dense(classes, activation="softmax"))
    return Sequential(parts, name=f"vgg{depth}")


_RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(
    depth: int = 18,
    classes: int = 1000,
    input_shape: Sequence[int] = (224, 224, 3),
    filters: int = 64,
) -> Model:
    """ResNet (He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016), with
    projections where sizes change: 11,689,512 parameters with 18 layers, 21,797,672 with 34,
    besides the running means and variances.

    Args:
        depth: 18 or 34.
        classes: how many outputs.
        input_shape: of an image. Below 64 x 64 the network begins with a 3 x 3 convolution of
            stride 1 and no pooling, as is customary for CIFAR.
        filters: of the first stage; each stage has twice as many as the one before.
    """
    if depth not in _RESNET:
        raise geometry.fail("resnet", "a depth of 18 or 34", depth)
    filters = geometry.integer("resnet", "filters", filters, 1)
    x: Any = layers.Input(tuple(input_shape))
    inputs = x
    if min(x.shape[1:3]) < 64:
        x = _conv_norm(x, filters, 3, 1)
    else:
        x = _conv_norm(x, filters, 7, 2)
        x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, blocks in enumerate(_RESNET[depth]):
        for block in range(blocks):
            x = _residual(x, filters << stage, 2 if stage and not block else 1)
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Dense(classes, activation="softmax")(x)
    return Model(inputs, y, name=f"resnet{depth}")


def _conv_norm(x: Any, filters: int, size: int, stride: int, relu: bool = True) -> Any:
    """Convolution padded by half its kernel on each side, batch norm, relu."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.Conv2D(
        filters, size, strides=stride, use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x) if relu else x


def _residual(x: Any, filters: int, stride: int) -> Any:
    y = _conv_norm(x, filters, 3, stride)
    y = _conv_norm(y, filters, 3, 1, relu=False)
    if stride != 1 or x.shape[-1] != filters:
        x = _conv_norm(x, filters, 1, stride, relu=False)
    return layers.ReLU()(layers.Add()([x, y]))


# Strides and filters of the pointwise convolutions of MobileNet's table 1.
_MOBILENET = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    *(((1, 512),) * 5),
    (2, 1024),
    (1, 1024),
)


def mobilenet(
    alpha: float = 1.0, classes: int = 1000, input_shape: Sequence[int] = (224, 224, 3)
) -> Model:
    """MobileNet (Howard et al., "MobileNets: efficient convolutional neural networks for mobile
    vision applications", 2017): 4,231,976 parameters for alpha = 1, besides the running means and
    variances.

    Args:
        alpha: factor of the numbers of filters.
        classes: how many outputs.
        input_shape: of an image, at least 32 x 32.
    """
    alpha = geometry.number("mobilenet", "alpha", alpha, 0, 8)

    def norm(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(x))

    first = max(1, int(32 * alpha))
    x = inputs = layers.Input(tuple(input_shape))
    x = norm(layers.Conv2D(first, 3, strides=2, padding="same", use_bias=False)(x))
    for stride, filters in _MOBILENET:
        x = norm(layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x))
        x = norm(layers.Conv2D(max(1, int(filters * alpha)), 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Dense(classes, activation="softmax")(x)
    return Model(inputs, y, name="mobilenet")


def unet(
    classes: int = 2,
    input_shape: Sequence[int] = (128, 128, 3),
    filters: int = 64,
    depth: int = 4,
    upsampling: str = "bilinear",
    merge: str = "concatenate",
    batch_norm: bool = False,
) -> Model:
    """U-Net (Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image
    segmentation", 2015), padded so that the output has the input's size.

    Up-sampling is by repetition or interpolation followed by a 3 x 3 convolution, in place of the
    paper's transposed convolution by 2 x 2 and its checkerboards (Odena et al., 2016): for one
    channel and one class 34,512,193 parameters, where those would make 31,030,593.

    Args:
        classes: outputs for each pixel, a softmax; 1: a sigmoid.
        input_shape: of an image; height and width are multiples of 2**depth.
        filters: of the first level; each level below has twice as many.
        depth: how many times the image is halved.
        upsampling: "nearest" or "bilinear".
        merge: how a level meets what came down at it: "concatenate", as in the paper, or "add".
        batch_norm: whether convolutions are followed by batch norm.
    """
    geometry.choice("unet", "upsampling", upsampling, ("nearest", "bilinear"))
    geometry.choice("unet", "merge", merge, ("add", "concatenate"))
    depth = geometry.integer("unet", "depth", depth, 1)
    filters = geometry.integer("unet", "filters", filters, 1)
    shape = tuple(input_shape)
    if len(shape) != 3 or any(size % (1 << depth) for size in shape[:2]):
        raise geometry.fail(
            "unet", f"an input whose height and width are multiples of {1 << depth}", shape
        )

    def conv(x: Any, width: int) -> Any:
        if not batch_norm:
            return layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer="he_normal"
            )(x)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(
            x
        )
        return layers.ReLU()(layers.BatchNormalization()(x))

    x = inputs = layers.Input(shape)
    levels: list[Any] = []
    for level in range(depth):
        x = conv(conv(x, filters << level), filters << level)
        levels.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = conv(conv(x, filters << depth), filters << depth)
    for level in reversed(range(depth)):
        x = conv(layers.UpSampling2D(2, interpolation=upsampling)(x), filters << level)
        joined = layers.Concatenate() if merge == "concatenate" else layers.Add()
        x = joined([levels[level], x])
        x = conv(conv(x, filters << level), filters << level)
    activation = "sigmoid" if classes == 1 else "softmax"
    y = layers.Conv2D(classes, 1, activation=activation)(x)
    return Model(inputs, y, name="unet")
