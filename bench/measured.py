"""The networks that are measured.

To add a network, add an entry to NETWORKS; a kind of layer that is new also needs a class in
`network.py` and a line in each engine of `engines/`.
"""

from __future__ import annotations

from network import (
    Add,
    BatchNorm,
    Branch,
    Concatenate,
    Conv,
    Dense,
    Depthwise,
    Flatten,
    GlobalPool,
    Layer,
    Network,
    Pool,
    Upsample,
)

# Strides and filters of the pointwise convolutions of MobileNet's table 1.
MOBILENET = (
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


def _unet(norm: bool) -> tuple[Layer, ...]:
    """Two levels down and up again; with `norm` each convolution is followed by batch norm."""
    layers: list[Layer] = []

    def conv(filters: int) -> int:
        """The number of the layer that it ends in."""
        if norm:
            layers.extend([Conv(filters, 3, "same", bias=False), BatchNorm("relu")])
        else:
            layers.append(Conv(filters, 3, "same", "relu"))
        return len(layers) - 1

    first = conv(8)
    layers.append(Pool(2))
    second = conv(16)
    layers.append(Pool(2))
    conv(32)
    layers += [Upsample(2), Concatenate(second)]
    conv(16)
    layers += [Upsample(2), Concatenate(first)]
    conv(8)
    return (*layers, Conv(1, 1))


def _resnet(stem: tuple[Layer, ...], widths: tuple[int, ...], blocks: int) -> tuple[Layer, ...]:
    """A ResNet (He et al., 2016): a stage of so many blocks for each of `widths`, with projections
    where sizes change."""
    layers: list[Layer] = [*stem]
    for stage, filters in enumerate(widths):
        for block in range(blocks):
            before = len(layers) - 1
            stride = 2 if stage and not block else 1
            layers += [
                Conv(filters, 3, "same", stride=stride, bias=False),
                BatchNorm("relu"),
                Conv(filters, 3, "same", bias=False),
                BatchNorm(),
            ]
            after = len(layers) - 1
            if stride > 1:
                layers += [Branch(before), Conv(filters, 1, stride=stride, bias=False), BatchNorm()]
                before = after
            layers.append(Add(before, "relu"))
    return (*layers, GlobalPool(), Dense(10))


def _vgg(*widths: int) -> tuple[Layer, ...]:
    """Convolutions of so many filters and, where it says 0, pooling."""
    layers = [Conv(width, 3, "same", "relu") if width else Pool(2) for width in widths]
    return (*layers, Flatten(), Dense(512, "relu"), Dense(10))


def _mobilenet(alpha: float) -> tuple[Layer, ...]:
    """MobileNet (Howard et al., 2017) with `alpha` times its filters and two classes."""
    layers: list[Layer] = [
        Conv(int(32 * alpha), 3, "same", stride=2, bias=False),
        BatchNorm("relu"),
    ]
    for stride, filters in MOBILENET:
        layers += [
            Depthwise(3, stride),
            BatchNorm("relu"),
            Conv(int(filters * alpha), 1, bias=False),
            BatchNorm("relu"),
        ]
    return (*layers, GlobalPool(), Dense(2))


NETWORKS: dict[str, Network] = {
    "lenet": Network(
        (28, 28, 1),
        (
            Conv(6, 5, "same", "relu"),
            Pool(2),
            Conv(16, 5, "valid", "relu"),
            Pool(2),
            Flatten(),
            Dense(120, "relu"),
            Dense(84, "relu"),
            Dense(10),
        ),
    ),
    "lenet_1998": Network(
        (32, 32, 1),
        (
            Conv(6, 5, "valid", "tanh"),
            Pool(2, "average"),
            Conv(16, 5, "valid", "tanh"),
            Pool(2, "average"),
            Flatten(),
            Dense(120, "tanh"),
            Dense(84, "tanh"),
            Dense(10),
        ),
    ),
    "caffe": Network(
        (28, 28, 1),
        (
            Conv(20, 5),
            Pool(2),
            Conv(50, 5),
            Pool(2),
            Flatten(),
            Dense(500, "relu"),
            Dense(10),
        ),
    ),
    "mlp": Network(
        (28, 28, 1),
        (Flatten(), Dense(512, "relu"), Dense(256, "relu"), Dense(10)),
    ),
    "conv3x3": Network(
        (32, 32, 3),
        (
            Conv(32, 3, "same", "relu"),
            Conv(32, 3, "same", "relu"),
            Pool(2),
            Conv(64, 3, "same", "relu"),
            Conv(64, 3, "same", "relu"),
            Pool(2),
            Conv(128, 3, "same", "relu"),
            Flatten(),
            Dense(10),
        ),
        # An epoch of CIFAR-10's 50,000 images would take each engine half a minute.
        samples=10_000,
    ),
    "unet": Network((28, 28, 1), _unet(norm=False)),
    "unet_bn": Network((28, 28, 1), _unet(norm=True)),
    # After those of MLPerf Tiny: images as CIFAR-10 has them, and people or none.
    "resnet8": Network(
        (32, 32, 3),
        _resnet((Conv(16, 3, "same", bias=False), BatchNorm("relu")), (16, 32, 64), blocks=1),
        samples=10_000,
    ),
    "mobilenet": Network((96, 96, 3), _mobilenet(alpha=0.25), samples=1_000),
    # VGG-11 and ResNet-18 on small images and for ten classes; one dense layer for two of VGG's.
    "vgg": Network(
        (64, 64, 3),
        _vgg(64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
        samples=1_000,
    ),
    "resnet18": Network(
        (64, 64, 3),
        _resnet(
            (Conv(64, 7, "same", stride=2, bias=False), BatchNorm("relu"), Pool(2)),
            (64, 128, 256, 512),
            blocks=2,
        ),
        samples=1_000,
    ),
}
