"""One module per engine. Each offers some of these functions, and imports its library on top:

- `set_up(threads)` fixes the number of threads; `version()` names the library and its version;
- `trainer(network, x, targets, batch_size)` gives a function that trains one epoch, shuffling and
  feeding included, and returns the epoch's mean loss and accuracy;
- `predictor(network)` gives a function from images to probabilities, both NumPy arrays;
- `operation(case, arrays)` gives a function without arguments that runs one op of `op_cases.py`.

A module is imported only by the process that runs it (see `worker.py`).
"""

from __future__ import annotations

# What each engine's name stands for: its module, and the options that its functions take.
ENGINES: dict[str, tuple[str, dict[str, bool]]] = {
    "convkit": ("engines.convkit_engine", {}),
    "numpy": ("engines.numpy_engine", {}),
    "torch": ("engines.torch_engine", {"compiled": False}),
    "torch.compile": ("engines.torch_engine", {"compiled": True}),
    "jax": ("engines.jax_engine", {}),
    "tensorflow": ("engines.tensorflow_engine", {}),
    "onnxruntime": ("engines.onnxruntime_engine", {}),
    "fma": ("engines.fma_engine", {}),
}

# On a GPU. Their modules offer, beside `set_up(threads, device)`, `version()` and `trainer(...)`:
#
# - `place(array)`, `fetch(array)`: to the device and back;
# - `finish()` waits until the device has nothing left to do;
# - `predictor(network)`: from images to probabilities, both on the device, without waiting;
# - `operation(case, arrays)`: one op of `gpu_cases.py`, without waiting;
# - `recorded(call, times)`: a function that launches a CUDA graph of so many calls, and
#   `by_events(call)`: the seconds on the device that a call of it takes.
CUDA_ENGINES: dict[str, tuple[str, dict[str, str]]] = {
    "convkit": ("engines.convkit_cuda_engine", {}),
    "torch": ("engines.torch_cuda_engine", {"mode": "eager"}),
    "torch.compile": ("engines.torch_cuda_engine", {"mode": "compile"}),
    "torch.graph": ("engines.torch_cuda_engine", {"mode": "graph"}),
    "jax": ("engines.jax_cuda_engine", {}),
}

OWN = ("convkit", "numpy")  # of the benchmark's own interpreter
PEAK = "fma"  # no engine, but what the processor could do at best
TRAINERS = ("convkit", "torch", "torch.compile", "jax", "tensorflow")
PREDICTORS = ("convkit", "onnxruntime", "torch", "torch.compile", "jax", "tensorflow")
CUDA_TRAINERS = CUDA_PREDICTORS = tuple(CUDA_ENGINES)
CUDA_OPERATORS = ("convkit", "torch")
OPERATORS = ("convkit", "numpy", "torch", "jax", "tensorflow")
