"""Inference with weights that Winograd's method transformed once, not at each call.

Transformed weights are larger: they are worth their memory where all that a model reads stays in
the last level of cache. From memory, the weights themselves are read faster.
"""

from __future__ import annotations

from typing import Any

from convkit import _core
from convkit.ops.planning import chosen_algorithms
from convkit.program import Program

# Bytes of weights and transformed weights: half of a usual last level of cache.
MOST = 16 * 2**20
# So many filters lie together, at most (AVX-512, float32), with zeros for those that there are not.
FILTERS = 32
# Outputs of a window along an axis.
OUTPUTS = {"winograd2": 2, "winograd4": 4}


def transformed_steps(program: Program) -> list[int]:
    """The numbers of the steps of a program on the processor that should keep their weights
    transformed: all that Winograd's method computes, or none."""
    if program.gpu is not None:
        return []
    written = {id(value) for step in program.steps for value in step.outputs}
    total = sum(variable.value.nbytes for variable in program.variables)
    found = []
    for i, step in enumerate(program.steps):
        spec = _convolution(step)
        if spec is None:
            continue
        kernel = step.inputs[1]
        if kernel is None or kernel.variable is None or id(kernel) in written:
            continue
        outputs = OUTPUTS.get(chosen_algorithms(spec, 1, kernel.dtype)[0])
        if outputs is None:
            continue
        places = (outputs + spec.kernel_height - 1) ** 2
        filters = -(-spec.filters // FILTERS) * FILTERS
        total += places * spec.channels * filters * kernel.variable.value.itemsize
        found.append(i)
    return found if total <= MOST else []


def _convolution(step: Any) -> Any:
    """The spec of a convolution that is carried out for the whole batch, else None."""
    if step.tiled or step.kernel not in ("conv2d", "fused_conv2d"):
        return None
    return step.spec.conv if isinstance(step.spec, _core.FusedConv2d) else step.spec
