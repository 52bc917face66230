"""ONNX Runtime, inference only; the model is written with the `onnx` package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
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
    Network,
    Pool,
    Upsample,
)
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}
OPSET = 17
IR_VERSION = 8
OPS = ()  # networks alone

_threads = 1


def set_up(threads: int) -> None:
    global _threads
    _threads = threads


def version() -> str:
    return f"onnxruntime {onnxruntime.__version__}"


def predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        _model(network).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def predict(x: np.ndarray) -> np.ndarray:
        n, height, width, channels = x.shape
        if channels > 1:
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        y = session.run(None, {"x": x.reshape(n, channels, height, width)})[0]
        return y.transpose(0, 2, 3, 1) if network.per_pixel else y

    return predict


def _model(network: Network) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    values = iter(network.weights_channels_first())
    outputs: list[str] = []
    last = "x"

    def append(kind: str, *extra: str, **attributes: object) -> None:
        nonlocal last
        name = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, [last, *extra], [name], **attributes))
        last = name

    def constant(array: np.ndarray) -> str:
        name = f"constant_{len(weights)}"
        weights.append(numpy_helper.from_array(array, name))
        return name

    def parameters(count: int = 2) -> list[str]:
        return [constant(next(values)) for _ in range(count)]

    for layer, shape in zip(network.layers, network.shapes(), strict=False):
        match layer:
            case Conv(_, size, padding, _, stride, bias):
                pads = [size // 2 if padding == "same" else 0] * 4
                append("Conv", *parameters(1 + bias), pads=pads, strides=[stride] * 2)
            case Depthwise(size, stride):
                options = {"pads": [size // 2] * 4, "strides": [stride] * 2, "group": shape[-1]}
                append("Conv", *parameters(1), **options)
            case BatchNorm():
                zeros = np.zeros(shape[-1], np.float32)
                moments = [constant(zeros), constant(zeros + 1)]
                append("BatchNormalization", *parameters(), *moments, epsilon=layer.EPSILON)
            case Pool(size, kind):
                name = "MaxPool" if kind == "max" else "AveragePool"
                append(name, kernel_shape=[size, size], strides=[size, size])
            case GlobalPool():
                append("GlobalAveragePool")
                append("Flatten")
            case Upsample(size):
                scales = constant(np.array([1, 1, size, size], np.float32))
                append(
                    "Resize",
                    "",
                    scales,
                    mode="nearest",
                    nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric",
                )
            case Concatenate(other):
                append("Concat", outputs[other], axis=1)
            case Add(other):
                append("Add", outputs[other])
            case Branch(other):
                last = outputs[other]
            case Flatten():
                append("Flatten")
            case Dense():
                append("Gemm", *parameters(), transB=1)
        activation = getattr(layer, "activation", None)
        if activation:
            append(ACTIVATIONS[activation])
        outputs.append(last)
    if network.per_pixel:
        append("Sigmoid")
    else:
        append("Softmax", axis=-1)
    height, width, channels = network.input_shape
    *map_size, answers = network.output_shape
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, height, width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", answers, *map_size])],
        weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
