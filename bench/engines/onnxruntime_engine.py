"""ONNX Runtime, inference only; the model is written with the `onnx` package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from networks import Conv, Dense, Flatten, Network, Pool
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}
OPSET = 17
IR_VERSION = 8

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
        return session.run(None, {"x": x.reshape(n, channels, height, width)})[0]

    return predict


def _model(network: Network) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    values = iter(network.weights_channels_first())
    last = "x"

    def append(kind: str, *extra: str, **attributes: object) -> None:
        nonlocal last
        name = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, [last, *extra], [name], **attributes))
        last = name

    def parameters() -> list[str]:
        names = [f"parameter_{len(weights)}", f"parameter_{len(weights) + 1}"]
        weights.extend(numpy_helper.from_array(next(values), name) for name in names)
        return names

    for layer in network.layers:
        match layer:
            case Conv(_, size, padding):
                pads = [size // 2 if padding == "same" else 0] * 4
                append("Conv", *parameters(), pads=pads)
            case Pool(size, kind):
                name = "MaxPool" if kind == "max" else "AveragePool"
                append(name, kernel_shape=[size, size], strides=[size, size])
            case Flatten():
                append("Flatten")
            case Dense():
                append("Gemm", *parameters(), transB=1)
        activation = getattr(layer, "activation", None)
        if activation:
            append(ACTIVATIONS[activation])
    append("Softmax", axis=-1)
    height, width, channels = network.input_shape
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, height, width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", network.classes])],
        weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
