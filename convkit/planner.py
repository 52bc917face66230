"""How a graph is carried out: what runs breadth-first, what depth-first, and what is fused.

Breadth-first, a node works on the whole batch before the next begins. Depth-first, a thread takes a
tile of 16 samples through a stretch of nodes, forward and back, while all of it lies in the core's
cache; in a tile samples are the innermost axis, so every kernel fills the vector registers whatever
its channels. See docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from convkit import _core, geometry
from convkit.graph import SOURCE_TYPES, Node, Symbol, root

# Kernels that have a version for tiles under the name tile_... and the same spec.
OWN_VERSION = {
    "conv2d_backward_input",
    "conv2d_backward_kernel",
    "dense_backward_input",
    "dense_backward_kernel",
    "transpose",
    "dropout",
    "mean_backward",
    "gather",
    "gather_labels",
    "spatial_dropout",
    "gaussian_noise",
    "random_transform",
    "random_contrast",
    *(
        f"{kernel}{direction}"
        for kernel in ("broadcast", "channel_affine", "layer_norm", "prelu")
        for direction in ("", "_backward")
    ),
}
# Kernels to which a tile is one sample with 16 times the channels.
WIDENED = {
    "rescale",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "binary_accuracy",
    "top_k_accuracy",
    "sparse_top_k_accuracy",
    "expand",
    "pad2d",
    "permute",
    *(
        f"{kernel}{direction}"
        for kernel in (
            "max_pool2d",
            "avg_pool2d",
            "upsample2d",
            "activation",
            "softmax",
            "log_softmax",
            "add",
            "concatenate",
            "categorical_crossentropy",
            "sparse_categorical_crossentropy",
            "binary_crossentropy",
            "mean_squared_error",
            "mean_absolute_error",
            "unary",
            "binary",
            "reduce",
            "pointwise_loss",
            "dice",
        )
        for direction in ("", "_backward")
    ),
}
FUSED = {"conv2d", "dense"}
# Kernels to which the whole batch is one thing.
COUPLED = {"batch_norm", "batch_dice"}
# Losses that can be worked out together with the softmax before them.
BEHIND_SOFTMAX = {
    "categorical_crossentropy": "softmax_crossentropy",
    "sparse_categorical_crossentropy": "sparse_softmax_crossentropy",
}
LINEAR = -1  # ActivationKind
# Below these most of a tile's lanes would work for nothing: in training, and forward alone.
LEAST_TRAINED, LEAST_PREDICTED = 6, 11
TILE = 16  # samples: kTile
# A tile of so many bytes is worth sharing among threads, which breadth-first does, unless there are
# two that are three quarters full. As below, a constant of no machine.
LARGE_TILE = 6 << 20
# What is taken to stay in a core's own cache, in bytes. A constant: bits are to be the same on
# every machine of an instruction set.
CACHE = 1 << 20
MOST_TILES = 4


@dataclass(slots=True, eq=False)
class Step:
    """One call of a kernel in a program.

    Attributes:
        kernel, spec, inputs, outputs: as of a node; symbols are roots, never views.
        tiled: whether it is part of the stretch that runs depth-first.
        nodes: what it stands for: one recorded node, several that were fused, or none for a move
            between tiles and rows.
    """

    kernel: str
    spec: Any
    inputs: list[Symbol | None]
    outputs: list[Symbol | None]
    tiled: bool = False
    nodes: list[Node] = field(default_factory=list)


def per_sample(symbol: Symbol | None) -> bool:
    """Whether a value has one row per sample."""
    return symbol is not None and bool(symbol.shape) and symbol.shape[0] is None


def plan(nodes: Iterable[Node], results: Sequence[Symbol], depth_first: bool) -> list[Step]:
    """The steps that carry out `nodes`, recorded in this order.

    Args:
        nodes: of one program, without those of kernel "reshape".
        results: symbols whose values are wanted outside.
        depth_first: whether as much as possible is to run depth-first.
    """
    steps = [
        Step(
            node.kernel,
            node.spec,
            [None if value is None else root(value) for value in node.inputs],
            list(node.outputs),
            nodes=[node],
        )
        for node in nodes
    ]
    wanted = {id(root(result)) for result in results}
    steps = _rescaling_into_gather(steps, wanted)
    # What couples the samples of a batch would end the stretch where it had hardly begun.
    if not depth_first or any(step.kernel in COUPLED for step in steps):
        return _fuse_rows(steps, wanted)
    before, stretch, after = _divide(steps)
    wanted.update(id(v) for step in after for v in step.inputs if v is not None)
    stretch = _fuse([_for_tiles(step) for step in stretch], wanted)
    loads, stretch, stores, sums = _cross(stretch, wanted)
    for step in after:
        step.inputs = [None if v is None else sums.get(id(v), v) for v in step.inputs]
    return [*before, *loads, *stretch, *stores, *after]


def least_depth_first(sample_bytes: int, training: bool) -> int:
    """How many samples at a time a network's stretch needs to run depth-first.

    Args:
        sample_bytes: of all that is made of one sample, forward.
        training: whether the way back is part of the stretch.
    """
    if sample_bytes * TILE > LARGE_TILE:
        return TILE * 3 // 2
    return LEAST_TRAINED if training else LEAST_PREDICTED


def tiles_at_once(steps: Iterable[Step], tile_bytes: int) -> int:
    """How many tiles a thread takes through the stretch together.

    More than one where the weights of dense layers do not stay in the cache, but a few tiles do:
    the weights are then read once for all of them.
    """
    weights = {
        id(value): value
        for step in steps
        if step.kernel.startswith("tile_dense")
        for value in step.inputs
        if value is not None and value.place == "state"
    }
    if sum(_bytes(value) for value in weights.values()) <= CACHE // 2:
        return 1
    return max(1, min(MOST_TILES, CACHE // max(1, tile_bytes)))


def _bytes(value: Symbol) -> int:
    return prod(s for s in value.shape if s is not None) * (8 if value.dtype == "float64" else 4)


# ---- what goes into the stretch ------------------------------------------------------------------


def _divide(steps: Sequence[Step]) -> tuple[list[Step], list[Step], list[Step]]:
    """(before, stretch, after): all that can run on tiles stands together in the middle.

    What changes variables comes after, in the order of recording.
    """
    before: list[Step] = []
    stretch: list[Step] = []
    after: list[Step] = []
    in_stretch: set[int] = set()
    behind: set[int] = set()
    for step in steps:
        reads = {id(value) for value in step.inputs}
        makes = {id(value) for value in step.outputs}
        if step.outputs and _can_tile(step) and not reads & behind:
            stretch.append(step)
            in_stretch |= makes
        elif not step.outputs or reads & (in_stretch | behind):
            after.append(step)
            behind |= makes
        else:
            before.append(step)
    return before, stretch, after


def _can_tile(step: Step) -> bool:
    known = step.kernel in OWN_VERSION or step.kernel in WIDENED or step.kernel in FUSED
    return known and any(per_sample(value) for value in [*step.inputs, *step.outputs])


def _for_tiles(step: Step) -> Step:
    kernel, spec, outputs = f"tile_{step.kernel}", step.spec, list(step.outputs)
    if step.kernel in FUSED:
        spec = _fused_spec(step)
    elif step.kernel in WIDENED:
        kernel = step.kernel
    if step.kernel == "conv2d":
        outputs.append(None)  # the mask of a pooling
    return Step(kernel, spec, list(step.inputs), outputs, True, step.nodes)


def _fused_spec(step: Step) -> Any:
    """The spec of a convolution or a dense layer as one to which other steps may be added."""
    if step.kernel == "dense":
        return _core.FusedDense(dense=step.spec, activation=LINEAR, slope=0.0)
    return _core.FusedConv2d(
        conv=step.spec, activation=LINEAR, slope=0.0, pool_height=1, pool_width=1
    )


# ---- fusion: each rule takes the steps and gives them back with some made one --------------------


class _Uses:
    """Who reads what in a list of steps."""

    def __init__(self, steps: Sequence[Step], wanted: set[int]) -> None:
        self.wanted = wanted
        self.readers: dict[int, list[Step]] = {}
        for step in steps:
            for value in step.inputs:
                if value is not None:
                    self.readers.setdefault(id(value), []).append(step)

    def read_by(self, value: Symbol | None, *kernels: str) -> list[Step] | None:
        """Its readers, one per kernel in this order; None if there are others, or one is missing.

        A kernel in parentheses may be missing.
        """
        if value is None or id(value) in self.wanted:
            return None
        readers = list(self.readers.get(id(value), []))
        found: list[Step] = []
        for kernel in kernels:
            match = [step for step in readers if step.kernel == kernel.strip("()")]
            if len(match) > 1 or (not match and kernel[0] != "("):
                return None
            found += match
        return found if len(found) == len(readers) else None


def _fuse(steps: list[Step], wanted: set[int]) -> list[Step]:
    for rule in (
        _activation_into_weighted,
        _pooling_into_convolution,
        _softmax_into_crossentropy,
    ):
        steps = rule(steps, wanted)
    return steps


def _fuse_rows(steps: list[Step], wanted: set[int]) -> list[Step]:
    """The rules that serve breadth-first, too; what they leave alone stays as it was recorded."""
    for step in steps:
        if step.kernel in FUSED:
            step.kernel, step.spec = f"fused_{step.kernel}", _fused_spec(step)
    for rule in (_activation_into_weighted, _pooling_into_convolution):
        steps = rule(steps, wanted)
    for step in steps:
        if step.kernel.startswith("fused_") and len(step.nodes) == 1:
            step.kernel, step.spec = step.nodes[0].kernel, step.nodes[0].spec
    return steps


def _rescaling_into_gather(steps: list[Step], wanted: set[int]) -> list[Step]:
    """gather, then a rescaling that alone reads the rows: one gather with its scale and offset."""
    uses = _Uses(steps, wanted)
    gone: set[int] = set()
    for step in steps:
        if step.kernel != "gather":
            continue
        readers = uses.read_by(step.outputs[0], "rescale")
        if not readers:
            continue
        (rescale,) = readers
        rows, values = step.spec, rescale.spec
        step.spec = _core.Gather(
            size=rows.size,
            type=rows.type,
            scale=rows.scale * values.scale,
            offset=rows.offset * values.scale + values.offset,
        )
        step.outputs = list(rescale.outputs)
        step.nodes = [*step.nodes, *rescale.nodes]
        gone.add(id(rescale))
    return [step for step in steps if id(step) not in gone]


def _activation_into_weighted(steps: list[Step], wanted: set[int]) -> list[Step]:
    """conv2d or dense, then an activation that alone reads the result: one kernel."""
    uses = _Uses(steps, wanted)
    gone: set[int] = set()
    for step in steps:
        if not isinstance(step.spec, _core.FusedConv2d | _core.FusedDense):
            continue
        readers = uses.read_by(step.outputs[0], "activation")
        if not readers:
            continue
        (activation,) = readers
        step.spec = _with_activation(step.spec, activation.spec)
        step.outputs[0] = activation.outputs[0]
        step.nodes = [*step.nodes, *activation.nodes]
        gone.add(id(activation))
    return [step for step in steps if id(step) not in gone]


def _with_activation(spec: Any, activation: Any) -> Any:
    kind, slope = activation.kind, activation.slope
    if isinstance(spec, _core.FusedDense):
        return _core.FusedDense(dense=spec.dense, activation=kind, slope=slope)
    return _core.FusedConv2d(
        conv=spec.conv,
        activation=kind,
        slope=slope,
        pool_height=spec.pool_height,
        pool_width=spec.pool_width,
    )


def _pooling_into_convolution(steps: list[Step], wanted: set[int]) -> list[Step]:
    """conv2d (with its activation) and a max-pooling without overlap: one kernel, and one back.

    Activations never decrease, so the maximum may be taken before them. Backward, the gradient
    goes to where the forward kernel found the maximum; only that for tiles tells where that was.
    """
    uses = _Uses(steps, wanted)
    gone: set[int] = set()
    replaced: dict[int, Step] = {}
    for step in steps:
        if not isinstance(step.spec, _core.FusedConv2d):
            continue
        value = step.outputs[0]
        kernels = ["max_pool2d", "(max_pool2d_backward)"]
        if step.spec.activation != LINEAR:
            kernels.append("(activation_backward)")
        readers = uses.read_by(value, *kernels)
        if not readers or not _without_overlap(readers[0].spec):
            continue
        pool, *back = readers
        if back and (not step.tiled or len(back) != len(kernels) - 1):
            continue
        # The pooling's gradient must go to the activation's alone.
        if len(back) == 2 and back[1:] != uses.read_by(back[0].outputs[0], "activation_backward"):
            continue
        spec = step.spec
        step.spec = _core.FusedConv2d(
            conv=spec.conv,
            activation=spec.activation,
            slope=spec.slope,
            pool_height=pool.spec.pool_height,
            pool_width=pool.spec.pool_width,
        )
        pooled = pool.outputs[0]
        assert pooled is not None
        step.outputs[0] = pooled
        step.nodes = [*step.nodes, *pool.nodes]
        gone.add(id(pool))
        if back:
            mask = Symbol(pooled.shape, "uint8")
            step.outputs[1] = mask
            gone.update(id(one) for one in back)
            replaced[id(back[-1])] = Step(
                "tile_unpool2d",
                step.spec,
                [back[0].inputs[0], pooled, mask],
                [back[-1].outputs[0]],
                True,
                [node for one in back for node in one.nodes],
            )
    return [
        replaced.get(id(step), step)
        for step in steps
        if id(step) not in gone or id(step) in replaced
    ]


def _softmax_into_crossentropy(steps: list[Step], wanted: set[int]) -> list[Step]:
    """softmax over the last axis, and the cross-entropy of what goes in or comes out: one kernel.

    It makes the probabilities too, for the metrics. Backward, the gradient before the softmax
    follows from them, without the exponentials.
    """
    uses = _Uses(steps, wanted)
    places = {id(value): i for i, step in enumerate(steps) for value in step.outputs}
    gone: set[int] = set()
    replaced: dict[int, Step] = {}
    for place, softmax in enumerate(steps):
        losses = (s for s in steps if id(s) not in gone and _is_loss_of(s, softmax))
        loss = next(losses, None)
        # Its targets must be there when the softmax runs.
        if loss is None or places.get(id(loss.inputs[0]), -1) >= place:
            continue
        target, y = loss.inputs[0], softmax.outputs[0]
        kernel = BEHIND_SOFTMAX[loss.kernel]
        replaced[id(softmax)] = Step(
            kernel,
            loss.spec,
            [target, softmax.inputs[0]],
            [y, loss.outputs[0]],
            True,
            [*softmax.nodes, *loss.nodes],
        )
        gone.add(id(loss))
        for back in steps:
            last = _last_of_gradient(back, loss, softmax, uses)
            if last is None:
                continue
            gone.update((id(back), id(last)))
            replaced[id(last)] = Step(
                f"{kernel}_backward",
                loss.spec,
                [back.inputs[0], target, y],
                [last.outputs[-1]],
                True,
                [node for step in dict.fromkeys((back, last)) for node in step.nodes],
            )
    return [
        replaced.get(id(step), step)
        for step in steps
        if id(step) not in gone or id(step) in replaced
    ]


def _is_loss_of(step: Step, softmax: Step) -> bool:
    """Whether a step is the cross-entropy of a softmax over the last axis."""
    if step.kernel not in BEHIND_SOFTMAX or softmax.kernel != "softmax":
        return False
    of = softmax.inputs[0] if step.spec.from_logits else softmax.outputs[0]
    sizes = (softmax.spec.outer, softmax.spec.size, softmax.spec.inner)
    return step.inputs[1] is of and sizes == (step.spec.rows, step.spec.size, 1)


def _last_of_gradient(back: Step, loss: Step, softmax: Step, uses: _Uses) -> Step | None:
    """If `back` is the gradient of `loss`: what makes the gradient before the softmax.

    That is `back` itself, or the gradient of the softmax if that alone reads what `back` makes.
    """
    *dtarget, dprediction = back.outputs
    of_loss = back.kernel == f"{loss.kernel}_backward" and back.spec is loss.spec
    if not of_loss or back.inputs[1:] != loss.inputs or any(dtarget) or dprediction is None:
        return None
    if loss.spec.from_logits:
        return back
    readers = uses.read_by(dprediction, "softmax_backward")
    return readers[0] if readers and readers[0].inputs[1] is softmax.outputs[0] else None


def _without_overlap(spec: Any) -> bool:
    return (
        1 < spec.pool_height * spec.pool_width <= 256  # positions that a byte of the mask can name
        and (spec.pool_height, spec.pool_width) == (spec.stride_height, spec.stride_width)
        and (spec.dilation_height, spec.dilation_width) == (1, 1)
        and not (spec.pad_top or spec.pad_bottom or spec.pad_left or spec.pad_right)
        and spec.out_height == spec.height // spec.pool_height
        and spec.out_width == spec.width // spec.pool_width
    )


# ---- between tiles and rows ----------------------------------------------------------------------


def _cross(
    steps: list[Step], wanted: set[int]
) -> tuple[list[Step], list[Step], list[Step], dict[int, Symbol]]:
    """(loads, steps, stores, sums): the stretch on tiles, with moves for what comes and goes.

    What its tiles add to, gradients of weights, is in sums under the id of what was recorded.
    """
    tiles: dict[int, Symbol] = {}
    sums: dict[int, Symbol] = {}
    loads: list[Step] = []
    stores: list[Step] = []
    made = {id(value) for step in steps for value in step.outputs if value is not None}

    def tile_of(value: Symbol) -> Symbol:
        if id(value) not in tiles:
            tiles[id(value)] = Symbol(value.shape, value.dtype, place="tile")
        return tiles[id(value)]

    for step in steps:
        gathers = step.kernel in ("tile_gather", "tile_gather_labels")
        for i, value in enumerate(step.inputs):
            if value is None or not per_sample(value) or gathers:
                continue
            if id(value) not in made and id(value) not in tiles:
                kernel = "tile_gather_labels" if value.dtype == "int32" else "tile_gather"
                loads.append(Step(kernel, _rows(value), [value, None], [tile_of(value)], True))
            step.inputs[i] = tile_of(value)
        for i, value in enumerate(step.outputs):
            if value is None:
                continue
            if not per_sample(value):
                sums[id(value)] = Symbol(value.shape, value.dtype, place="sum")
                step.outputs[i] = sums[id(value)]
                continue
            step.outputs[i] = tile_of(value)
            if id(value) not in wanted:
                continue
            if gathers:  # read it once more, by rows
                kernel = step.kernel.removeprefix("tile_")
                stores.append(
                    Step(kernel, step.spec, list(step.inputs), [value], False, step.nodes)
                )
            else:
                spec = _core.Elementwise(size=geometry.samples(value.shape)[1])
                stores.append(Step("untile", spec, [tile_of(value)], [value], True))
    stores.sort(key=lambda store: not store.tiled)
    return loads, steps, stores, sums


def _rows(value: Symbol) -> Any:
    size = prod(s for s in value.shape[1:] if s is not None)
    return _core.Gather(size=size, type=SOURCE_TYPES[value.dtype], scale=1.0, offset=0.0)
