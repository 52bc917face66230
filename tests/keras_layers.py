"""Makes keras_layers.json: what the layers and activations of Keras give, in float64, what their
weights and configurations are called, and how the constructors of Keras take their arguments.

Run it where Keras 3 and TensorFlow are: `python tests/keras_layers.py`. What is in the file now
came from Keras 3.15.1 on TensorFlow. The tests read the file and need neither.
"""

from __future__ import annotations

import inspect
import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")


def numbers(shape: Any, seed: int) -> np.ndarray:
    """Numbers from -2 to 2 that look random, with 24 bits; the same with any NumPy."""
    place = np.arange(prod(shape), dtype=np.uint64) + np.uint64(10**6 * seed + 1)
    mixed = place * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return ((mixed >> np.uint64(40)) / 2.0**22 - 2.0).reshape(shape)


def inputs_of(shapes: Any) -> list[np.ndarray]:
    return [numbers(shape, i) for i, shape in enumerate(shapes)]


def weights_of(described: Any) -> list[np.ndarray]:
    """Values of the weights with these names and shapes; a variance is positive."""
    found = [numbers(shape, 50 + i) for i, (_, shape) in enumerate(described)]
    return [
        np.abs(value) + 0.5 if name.endswith("variance") else value
        for value, (name, _) in zip(found, described, strict=True)
    ]


IMAGES = (2, 4, 5, 3)
FIRST = (2, 3, 4, 5)  # channels first
LARGER = (1, 7, 9, 2)
CHANNELS_FIRST = {"data_format": "channels_first"}

# For each layer (arguments, shapes of the inputs).
Cases = dict[str, list[tuple[Any, ...]]]

POOLING: list[tuple[Any, ...]] = [
    ({"pool_size": 2}, IMAGES),
    ({"pool_size": 2, "padding": "same"}, IMAGES),
    ({"pool_size": (3, 2), "strides": (2, 1)}, IMAGES),
    ({"pool_size": 3, "strides": 2, "padding": "same"}, LARGER),
    ({"pool_size": (2, 3), "strides": 3, "padding": "same"}, LARGER),
    ({"pool_size": 2, "strides": 1, "padding": "same", **CHANNELS_FIRST}, FIRST),
]
GLOBAL_POOLING: list[tuple[Any, ...]] = [
    ({}, IMAGES),
    ({"keepdims": True}, IMAGES),
    (CHANNELS_FIRST, FIRST),
    ({"keepdims": True, **CHANNELS_FIRST}, FIRST),
]
BROADCAST: list[tuple[Any, ...]] = [
    ({}, (2, 3, 4), (2, 3, 4)),
    ({}, (2, 3, 4), (2, 1, 4)),
    ({}, (2, 3, 1), (2, 1, 4)),
    ({}, (2, 2, 3, 4), (2, 4)),
]
SEVERAL = [*BROADCAST, ({}, (2, 3), (2, 3), (2, 3)), ({}, (2, 1, 3), (2, 2, 1), (2, 2, 3))]
PASSED: list[tuple[Any, ...]] = [({"rate": 0.3}, IMAGES), ({"rate": 0.0, "seed": 7}, IMAGES)]

CASES: Cases = {
    "Dense": [
        ({"units": 3}, (2, 4)),
        ({"units": 5, "activation": "tanh"}, (2, 3, 4)),
        ({"units": 2, "use_bias": False, "activation": "softmax"}, (3, 5)),
        ({"units": 2, "kernel_initializer": "he_normal", "bias_initializer": "ones"}, (2, 3)),
        ({"units": 2, "kernel_regularizer": "l2", "bias_constraint": "non_neg"}, (2, 3)),
    ],
    "Conv2D": [
        ({"filters": 4, "kernel_size": 3}, IMAGES),
        ({"filters": 2, "kernel_size": 3, "padding": "same", "activation": "relu"}, IMAGES),
        ({"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}, IMAGES),
        ({"filters": 2, "kernel_size": (2, 4), "strides": (3, 2), "padding": "same"}, LARGER),
        ({"filters": 3, "kernel_size": (4, 1), "strides": 2, "use_bias": False}, LARGER),
        ({"filters": 2, "kernel_size": 3, "dilation_rate": (2, 3)}, LARGER),
        ({"filters": 2, "kernel_size": 2, "dilation_rate": 2, "padding": "same"}, LARGER),
        ({"filters": 6, "kernel_size": 2, "groups": 3}, IMAGES),
        ({"filters": 5, "kernel_size": 1, "activation": "sigmoid"}, IMAGES),
        # As many filters as columns come out would be taken for one another by TensorFlow.
        ({"filters": 4, "kernel_size": 3, "strides": 2, **CHANNELS_FIRST}, FIRST),
    ],
    "Conv2DTranspose": [
        ({"filters": 2, "kernel_size": 3}, (2, 3, 4, 3)),
        ({"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}, (1, 3, 4, 3)),
        ({"filters": 2, "kernel_size": 3, "strides": 2, "activation": "relu"}, (1, 3, 4, 2)),
        ({"filters": 2, "kernel_size": 2, "strides": 3, "padding": "same"}, (1, 3, 2, 2)),
        ({"filters": 2, "kernel_size": 2, "strides": 3, "use_bias": False}, (1, 3, 2, 2)),
        ({"filters": 1, "kernel_size": (4, 5), "strides": (2, 3), "padding": "same"}, (1, 3, 2, 2)),
        ({"filters": 1, "kernel_size": 4, "strides": 2, "padding": "valid"}, (1, 3, 4, 3)),
        ({"filters": 2, "kernel_size": 3, "strides": 2, "output_padding": 1}, (1, 3, 2, 2)),
        (
            {
                "filters": 1,
                "kernel_size": 3,
                "strides": (2, 3),
                "padding": "same",
                "output_padding": (0, 2),
            },
            (1, 3, 2, 2),
        ),
        ({"filters": 2, "kernel_size": 3, "dilation_rate": 2}, (1, 3, 4, 2)),
        ({"filters": 1, "kernel_size": 2, "dilation_rate": 3, "padding": "same"}, (1, 5, 4, 2)),
        ({"filters": 2, "kernel_size": 3, "strides": 2, **CHANNELS_FIRST}, (1, 3, 4, 2)),
    ],
    "DepthwiseConv2D": [
        ({"kernel_size": 3}, IMAGES),
        ({"kernel_size": 3, "padding": "same", "depth_multiplier": 2}, IMAGES),
        ({"kernel_size": (2, 3), "strides": 2, "padding": "same", "activation": "relu"}, IMAGES),
        ({"kernel_size": 3, "strides": 2, "use_bias": False}, LARGER),
        ({"kernel_size": (3, 2), "dilation_rate": (2, 3), "depth_multiplier": 3}, LARGER),
        ({"kernel_size": 2, "padding": "same", **CHANNELS_FIRST}, FIRST),
    ],
    "SeparableConv2D": [
        ({"filters": 4, "kernel_size": 3}, IMAGES),
        ({"filters": 2, "kernel_size": 3, "padding": "same", "depth_multiplier": 2}, IMAGES),
        ({"filters": 2, "kernel_size": 2, "strides": 2, "activation": "tanh"}, LARGER),
        ({"filters": 2, "kernel_size": 3, "dilation_rate": 2, "use_bias": False}, LARGER),
        ({"filters": 2, "kernel_size": 3, "padding": "same", **CHANNELS_FIRST}, FIRST),
    ],
    "MaxPooling2D": [({}, LARGER), *POOLING],
    "AveragePooling2D": POOLING,
    "GlobalMaxPooling2D": GLOBAL_POOLING,
    "GlobalAveragePooling2D": GLOBAL_POOLING,
    "UpSampling2D": [
        ({}, (2, 2, 3, 3)),
        ({"size": (1, 3)}, (1, 3, 2, 2)),
        ({"size": 3, "interpolation": "bilinear"}, (1, 2, 3, 2)),
        ({"size": (2, 1), "interpolation": "bilinear"}, (1, 3, 4, 1)),
        ({"size": 2, "interpolation": "bilinear"}, (1, 1, 4, 2)),
        ({"size": 2, **CHANNELS_FIRST}, (1, 3, 2, 3)),
        ({"size": 2, "interpolation": "bilinear", **CHANNELS_FIRST}, (1, 3, 2, 3)),
    ],
    "ZeroPadding2D": [
        ({}, (1, 2, 3, 2)),
        ({"padding": 2}, (1, 1, 2, 1)),
        ({"padding": (0, 2)}, (1, 2, 3, 2)),
        ({"padding": ((1, 0), (2, 3))}, (1, 2, 3, 2)),
        ({"padding": ((1, 2), (0, 1)), **CHANNELS_FIRST}, (1, 2, 3, 2)),
    ],
    "Cropping2D": [
        ({}, (1, 2, 3, 2)),
        ({"cropping": 1}, IMAGES),
        ({"cropping": (0, 2)}, IMAGES),
        ({"cropping": ((1, 0), (2, 1))}, IMAGES),
        ({"cropping": ((1, 2), (0, 1)), **CHANNELS_FIRST}, FIRST),
    ],
    "Flatten": [({}, IMAGES), ({}, (3, 4)), (CHANNELS_FIRST, FIRST)],
    "Reshape": [
        ({"target_shape": (5, 4, 3)}, IMAGES),
        ({"target_shape": (-1, 2)}, (2, 3, 4)),
        ({"target_shape": (12,)}, (2, 3, 4)),
    ],
    "Permute": [
        ({"dims": (2, 1)}, (2, 3, 4)),
        ({"dims": (3, 1, 2)}, (2, 3, 4, 5)),
        ({"dims": (2, 1, 3)}, (2, 3, 4, 5)),
    ],
    "RepeatVector": [({"n": 3}, (2, 4)), ({"n": 1}, (2, 4))],
    "Rescaling": [
        ({"scale": 1 / 255}, (2, 3)),
        ({"scale": 2.5, "offset": -1}, IMAGES),
        ({"scale": (0.5, 2.0, -1.0), "offset": (1.0, 0.0, 3.0)}, (2, 4, 3)),
        ({"scale": 2.0, "offset": (1.0, 0.0, 3.0)}, (2, 4, 3)),
    ],
    "Normalization": [
        ({"mean": 0.25, "variance": 2.0}, (2, 3)),
        ({"mean": (0.5, -1.0, 2.0), "variance": (0.25, 4.0, 2.0)}, IMAGES),
        ({"mean": (0.5, -1.0, 2.0), "variance": (0.25, 4.0, 0.0)}, (2, 3)),
        ({"mean": 0.25, "variance": 2.0, "invert": True}, (2, 3)),
        ({"axis": None, "mean": 0.25, "variance": 2.0}, IMAGES),
        ({"axis": 1, "mean": (0.5, -1.0, 2.0), "variance": (0.25, 4.0, 2.0)}, FIRST),
        ({"axis": (1, 2), "mean": 1.5, "variance": 0.5}, (2, 3, 4)),
        ({}, IMAGES),
        ({"axis": None}, IMAGES),
        ({"axis": 1}, (4, 3, 2)),
        ({"axis": (1, 3)}, (3, 2, 4, 3)),
        ({"axis": (1, 2), "invert": True}, (5, 3, 2)),
    ],
    "BatchNormalization": [
        ({}, IMAGES),
        ({"momentum": 0.6, "epsilon": 0.01}, (4, 5)),
        ({"scale": False}, (3, 2, 4)),
        ({"center": False, "momentum": 0.0}, (3, 2, 4)),
        ({"center": False, "scale": False}, (5, 3)),
        ({"axis": 1}, FIRST),
        ({"axis": 2, "momentum": 0.5}, IMAGES),
    ],
    "LayerNormalization": [
        ({}, IMAGES),
        ({"epsilon": 0.1}, (3, 5)),
        ({"axis": (1, 2)}, (3, 4, 5)),
        ({"axis": (1, 2, 3), "scale": False}, (2, 3, 4, 2)),
        ({"center": False}, (3, 5)),
        ({"center": False, "scale": False, "axis": -1}, (3, 5)),
    ],
    "Add": SEVERAL,
    "Subtract": BROADCAST,
    "Multiply": SEVERAL,
    "Average": SEVERAL,
    "Maximum": SEVERAL,
    "Minimum": SEVERAL,
    "Concatenate": [
        ({}, (2, 3), (2, 4)),
        ({}, (2, 3, 1), (2, 3, 2), (2, 3, 1)),
        ({"axis": 1}, (2, 3, 4), (2, 1, 4)),
        ({"axis": -2}, (2, 2, 1, 3), (2, 2, 4, 3)),
    ],
    "Dropout": PASSED,
    "SpatialDropout2D": PASSED,
    "GaussianNoise": [({"stddev": 0.5}, IMAGES), ({"stddev": 0.0, "seed": 7}, (2, 3))],
    "ReLU": [({}, (2, 9)), ({"negative_slope": 0.25}, (2, 9))],
    "LeakyReLU": [({}, (2, 9)), ({"negative_slope": 0.1}, (2, 9))],
    "PReLU": [
        ({}, (2, 9)),
        ({}, (2, 3, 4)),
        ({"shared_axes": (1, 2)}, IMAGES),
        ({"shared_axes": (2,)}, (2, 3, 4)),
        ({"shared_axes": (1, 3)}, (2, 3, 4, 2)),
    ],
    "ELU": [({}, (2, 9)), ({"alpha": 0.3}, (2, 9))],
    "Softmax": [({}, (2, 5)), ({"axis": 1}, (2, 3, 4)), ({"axis": -2}, (2, 3, 4))],
    "RandomFlip": [({}, IMAGES), ({"mode": "vertical", "seed": 3}, IMAGES)],
    "RandomTranslation": [({"height_factor": 0.2, "width_factor": (-0.1, 0.3)}, IMAGES)],
    "RandomRotation": [({"factor": 0.1, "fill_mode": "wrap"}, IMAGES)],
    "RandomZoom": [({"height_factor": 0.2, "interpolation": "nearest"}, IMAGES)],
    # Of larger images convkit takes the middle, where Keras passes them on as they are.
    "RandomCrop": [({"height": 4, "width": 5, "seed": 3}, IMAGES)],
    "RandomContrast": [({"factor": (0.2, 0.3)}, IMAGES)],
}

SIDES = (1, 5, 6, 2)
# Not "wrap", which TensorFlow alone of the backends of Keras does in a way of its own.
FILLED: list[tuple[Any, ...]] = [
    ({"fill_mode": "constant", "fill_value": 0.25}, SIDES),
    ({"fill_mode": "nearest"}, SIDES),
    ({"fill_mode": "reflect", "interpolation": "nearest"}, SIDES),
]

# In training; nothing here is left to chance.
TRAINED: Cases = {
    "BatchNormalization": CASES["BatchNormalization"],
    "RandomTranslation": [
        ({"height_factor": (0.21, 0.21), "width_factor": (-0.33, -0.33), **options}, shape)
        for options, shape in FILLED
    ],
    "RandomRotation": [({"factor": (0.07, 0.07), **o}, shape) for o, shape in FILLED],
    "RandomZoom": [
        ({"height_factor": (0.37, 0.37), "width_factor": (-0.23, -0.23), **options}, shape)
        for options, shape in FILLED
    ],
    "RandomCrop": [({"height": 4, "width": 5, "seed": 3}, IMAGES)],
    "RandomContrast": [
        ({"factor": (-0.3, 0.3), "value_range": (-9, 9)}, IMAGES),
        ({"factor": (-0.3, 0.3), "value_range": (-1, 1.5)}, IMAGES),
    ],
}

# Names that `Activation` and layers take, and arguments of functions that have some.
ACTIVATIONS = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
FUNCTIONS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in ACTIVATIONS],
    ("elu", {"alpha": 0.4}),
    ("gelu", {"approximate": True}),
    ("leaky_relu", {"negative_slope": 0.05}),
    ("softmax", {"axis": 1}),
    ("log_softmax", {"axis": 1}),
]
LEFT = [-100, -30, -20, -6, -3.5, -3, -2.5, -1, -0.5, -1e-3, -1e-12, 0]
RIGHT = [1e-12, 1e-3, 0.5, 1, 2.5, 3, 3.5, 6, 20, 30, 40, 100]
POINTS = np.array([*LEFT, *RIGHT], np.float64).reshape(2, 3, 4)

ROOMS = ("losses", "metrics", "optimizers", "regularizers", "constraints", "initializers")
METHODS = [
    "compile",
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
    "get_layer",
]


def digits(values: Any) -> list[float]:
    """A flat list, to 12 digits."""
    return [float(f"{value:.12g}") for value in np.asarray(values, np.float64).ravel()]


def layer_entry(keras: Any, name: str, options: Any, shapes: Any, training: bool) -> dict[str, Any]:
    # Keras turns images in float32 alone.
    dtype = "float32" if name.startswith("Random") else "float64"
    keras.config.set_floatx(dtype)
    layer = getattr(keras.layers, name)(**options)
    arrays = inputs_of(shapes)
    x = arrays if len(arrays) > 1 else arrays[0]
    any_size = [[None, *shape[1:]] for shape in shapes]
    if name == "Normalization" and "mean" not in options:
        layer.adapt(x)
    else:
        layer.build(any_size if len(arrays) > 1 else any_size[0])
    described = [(weight.name, list(weight.shape)) for weight in layer.weights]
    entry: dict[str, Any] = {
        "class": name,
        "options": options,
        "inputs": [list(shape) for shape in shapes],
        "training": training,
        "dtype": dtype,
        "weights": described,
    }
    if name == "Normalization":
        entry["measured"] = {
            weight.name: digits(weight) for weight in layer.weights if weight.name != "count"
        }
    else:
        layer.set_weights(weights_of(described))
    symbols = [keras.Input(shape[1:]) for shape in any_size]
    entry["symbolic"] = list(layer(symbols if len(symbols) > 1 else symbols[0]).shape)
    y = np.asarray(result_of(layer, x, training), np.float64)
    if training:
        entry["after"] = [digits(weight) for weight in layer.weights]
    entry["output"] = list(y.shape)
    entry["values"] = digits(y)
    entry["config"] = plain_config(layer.get_config())
    return entry


def result_of(layer: Any, x: Any, training: bool) -> Any:
    """Of TensorFlow's kernels; of XLA where it has none, as for channels first on a processor."""
    import tensorflow

    asked = "training" in inspect.signature(layer.call).parameters
    options = {"training": training} if asked else {}
    try:
        return layer(x, **options)
    except tensorflow.errors.OpError:
        return tensorflow.function(layer.__call__, jit_compile=True)(x, **options)


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Without what tells Keras where its classes are, and what all layers have."""
    found = {}
    for key, value in config.items():
        if isinstance(value, dict) and "class_name" in value:
            value = {"class_name": value["class_name"], "config": value["config"]}
        if key not in ("name", "trainable", "dtype"):
            found[key] = value
    return found


def signature(function: Any) -> list[list[Any]]:
    """Of each argument its name, and its default where it has one; `**kwargs` left out."""
    found: list[list[Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        found.append([parameter.name])
        if parameter.default is not parameter.empty:
            found[-1].append(parameter.default)
    return found


def main() -> None:
    import keras

    entries = [
        layer_entry(keras, name, options, shapes, training)
        for training, cases in ((False, CASES), (True, TRAINED))
        for name, listed in cases.items()
        for options, *shapes in listed
    ]
    keras.config.set_floatx("float64")
    functions = []
    for name, options in FUNCTIONS:
        values = getattr(keras.activations, name)(keras.ops.convert_to_tensor(POINTS), **options)
        functions.append([name, options, digits(values)])
    signatures: dict[str, Any] = {
        "layers": {name: signature(getattr(keras.layers, name)) for name in CASES},
        "models": {name: signature(getattr(keras.Model, name))[1:] for name in METHODS},
    }
    rooms = {room: getattr(keras, room) for room in (*ROOMS, "callbacks")}
    rooms["schedules"] = keras.optimizers.schedules
    for room, module in rooms.items():
        signatures[room] = {
            name: signature(value)
            for name, value in vars(module).items()
            if inspect.isclass(value) and name == value.__name__
        }
    table = {"layers": entries, "activations": functions, "signatures": signatures}
    FILE.write_text(text_of(table))


def text_of(table: dict[str, Any]) -> str:
    """JSON with a line for each entry."""

    def dense(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    parts = [
        f'"{kind}":[\n' + ",\n".join(dense(entry) for entry in table[kind]) + "\n]"
        for kind in ("layers", "activations")
    ]
    rooms = [f'"{room}":{dense(found)}' for room, found in table["signatures"].items()]
    parts.append('"signatures":{\n' + ",\n".join(rooms) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
