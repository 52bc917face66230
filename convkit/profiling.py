"""What a model's programs do, kernel by kernel: the schedule, the work, and the time it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np

from convkit import _core, device, geometry
from convkit.graph import Node
from convkit.ops import pointwise_loss
from convkit.planner import TILE, Step, per_sample
from convkit.program import Program

# What may take a sum of the tiles piece by piece.
_UPDATES = ("sgd", "adam")
_MOVES = {"untile": "tiles to rows", "tile_gather": "rows to tiles"}
_TRANSPOSED = "conv2d_backward_input"  # before all gradients a transposed convolution
_AVERAGE = "/average"  # what an optimizer adds to the name of a weight
# What kernels are called here; otherwise by their own names.
_SHOWN = {
    "batch_dice": "dice",
    "channel_affine": "scale and shift",
    "batch_norm_affine": "moments to scale, shift",
    "clip_norm": "clip by norm",
    "clip_value": "clip by value",
    "expand": "repeat",
    "mean_absolute_percentage_error": "mape",
    "mean_squared_logarithmic_error": "msle",
    "rate_of_step": "from table",
    "square_sum": "sum of squares",
}
# Kernels that do several things, which their spec tells apart.
_KINDS = {
    kernel: {kind: name for name, kind in kinds.items()}
    for kernel, kinds in (
        ("activation", geometry.ACTIVATION_KINDS),
        ("unary", geometry.UNARY_KINDS),
        ("binary", geometry.BINARY_KINDS),
        ("reduce", geometry.REDUCE_KINDS),
        ("pointwise_loss", pointwise_loss.KINDS),
    )
}
_LEAST_COPY = 16 << 10  # bytes; less is copied in the time of a call
# Characters of a layer's and of a kernel's name where they are shown.
WIDEST_LAYER, WIDEST_KERNEL = 26, 33


@dataclass(frozen=True)
class Row:
    """One kernel of a program.

    Attributes:
        layer: the layer that it belongs to, or several that were fused; "data", "loss", "metrics"
            or "optimizer" for what belongs to none.
        kernel: what it does: "conv2d + relu", "conv2d backward, input", "adam, bias".
        schedule: "depth-first", "breadth-first", or "update": piece by piece as soon as the sums
            of the tiles are known; on a GPU "fused" or "breadth-first".
        multiply_adds: for one sample, by the direct method's count.
        bytes: read and written for one sample, without weights.
        seconds: for one sample on one thread, or on a GPU; None if it was not measured.
        share: of the arithmetic peak of one core, 0 .. 1, by the direct count; where nothing is
            multiplied and added, of the speed at which one core copies as many bytes, to which
            kernels that work in place are ahead. None likewise, and for less than 16 KB.
    """

    layer: str
    kernel: str
    schedule: str
    multiply_adds: int
    bytes: int
    seconds: float | None = None
    share: float | None = None

    @property
    def peak_name(self) -> str:
        """What `share` is a share of: "peak" or "copy"."""
        return "peak" if self.multiply_adds else "copy"


@dataclass(frozen=True, repr=False)
class Profile:
    """A program taken apart. `print` it, or draw it with `convkit.plot.profile`.

    Attributes:
        title: what was looked at.
        rows: its kernels in order.
        batch_size: samples per step.
        arena_bytes, tile_bytes, sum_bytes: the memory of a step, of one thread's tile, and of the
            gradients that the tiles add to. Where it is fused: of the GPU in all, of a block of
            threads, and 0.
        backend: the instruction set, or "cuda".
        peak: multiply-adds per second of one core; None if nothing was measured, and on a GPU.
        on_gpu: whether it runs on one.
        note: why it is not fused there.
    """

    title: str
    rows: tuple[Row, ...]
    batch_size: int
    arena_bytes: int
    tile_bytes: int
    sum_bytes: int
    backend: str
    peak: float | None = None
    on_gpu: bool = False
    note: str = ""

    def __repr__(self) -> str:
        return f"<Profile {self.title}, {len(self.rows)} kernels>"

    @property
    def seconds(self) -> float | None:
        """Of all kernels, for one sample on one thread or on a GPU; None if it was not measured."""
        if self.peak is None and not self.on_gpu:
            return None
        taken = [row.seconds for row in self.rows if row.seconds is not None]
        return sum(taken) if taken else None

    @property
    def where(self) -> str:
        """What it was measured on: "one thread, avx512"."""
        return self.backend if self.on_gpu else f"one thread, {self.backend}"

    @property
    def share(self) -> float | None:
        """Of the arithmetic peak of one core, by all kernels; None if it was not measured."""
        if self.peak is None or not self.seconds:
            return None
        return sum(row.multiply_adds for row in self.rows) / self.seconds / self.peak

    def __str__(self) -> str:
        return _table(self)


def describe(title: str, program: Program, batch_size: int) -> Profile:
    """A program's plan, without times."""
    native = program.native
    steps = program.steps
    rows = tuple(
        Row(
            layer,
            kernel,
            "fused" if program.fused else _schedule(step),
            multiply_adds(step),
            _bytes(step),
        )
        for layer, kernel, step in zip(_layers(steps), _kernels(steps), steps, strict=True)
    )
    memory = program.blocks(batch_size) or (
        native.arena_bytes(batch_size),
        native.tile_bytes(),
        native.sum_bytes(batch_size),
    )
    return Profile(
        title,
        rows,
        batch_size,
        *memory,
        _core.backend_name() if program.gpu is None else device.backend(),
        on_gpu=program.gpu is not None,
        note=_note(program),
    )


def _note(program: Program) -> str:
    why = program.unfused
    if not why and program.gpu is not None and not program.fused:
        precision = _core.get_precision()
        why = "" if precision == "float32" else f"precision {precision}"
    return f"not fused: {why}" if why else ""


def profile(
    model: Any,
    x: Any,
    y: Any = None,
    batch_size: int = 128,
    seconds: float = 0.5,
    print_fn: Callable[[str], object] | None = print,
) -> Profile:
    """Measures a model kernel by kernel: medians over batches.

    On the processor that is on one thread. On a GPU each kernel is timed by events before and
    after it, some microseconds even for the shortest, while a step that is replayed has no gaps;
    and a step that is fused when the model trains is measured unfused.

    The model stays as it was: weights, the optimizer's state and the scores are put back.

    Args:
        model: built; compiled, if y is given.
        x: samples, as for `fit`; at least batch_size of them, or batches are smaller.
        y: targets, for a training step; None: a forward pass.
        batch_size: samples per step.
        seconds: how long to measure, at least one step.
        print_fn: what prints the table; None: nothing is printed.

    Returns:
        Profile: the rows of the table; `convkit.plot.profile` draws it.
    """
    batch_size = geometry.integer("profile", "batch_size", batch_size, 1)
    seconds = geometry.number("profile", "seconds", seconds, 0, float("inf"))
    if not hasattr(model, "_program_for_profile"):
        raise TypeError(f"profile: expected a model, got {type(model).__name__}")
    # A batch cannot be larger than what there is, and its size decides on the schedule.
    batch_size = max(1, min(batch_size, len(x)))
    title, program, bound, samples = model._program_for_profile(x, y, batch_size)
    if not samples:
        raise geometry.fail("profile", "at least one sample", "none")
    with bound:
        saved = [variable.numpy() for variable in program.variables]
        try:
            taken = _measure(program, samples, batch_size, seconds)
        finally:
            program.profile(False)
            for variable, value in zip(program.variables, saved, strict=True):
                variable.assign(value)
    peak = measure_peak(model.dtype) if program.gpu is None else None
    plan = describe(title, program, batch_size)
    copies: dict[int, float] = {}
    rows = []
    for row, each in zip(plan.rows, taken, strict=True):
        share = None
        if peak is not None and each and row.multiply_adds:
            share = row.multiply_adds / each / peak
        elif peak is not None and each:
            together = TILE if row.schedule == "depth-first" else batch_size
            if row.bytes * together >= _LEAST_COPY:
                size = 1 << (row.bytes * together).bit_length() - 1
                if size not in copies:
                    copies[size] = measure_copy(size)
                share = row.bytes / each / copies[size]
        rows.append(replace(row, seconds=each, share=share))
    result = replace(plan, rows=tuple(rows), peak=peak)
    if print_fn is not None:
        print_fn(str(result))
    return result


def _measure(program: Program, samples: int, batch_size: int, seconds: float) -> list[float]:
    """Seconds of each kernel for one sample."""
    program.run(0, batch_size, batch_size)  # memory is laid out, and data comes to the caches
    found: list[list[float]] = []
    at = 0
    start = time.perf_counter()
    while not found or time.perf_counter() - start < seconds:
        program.profile(True)
        program.run(at, at + batch_size, batch_size)
        found.append(program.seconds())
        at = at + batch_size if at + 2 * batch_size <= samples else 0
    return [float(each) for each in np.median(found, axis=0) / batch_size]


def measure_peak(dtype: str = "float32") -> float:
    """Multiply-adds per second of one core, in registers, with the instruction set in use."""
    rounds, best = 100_000, float("inf")
    spec = _core.Elementwise(size=rounds)
    for _ in range(8):
        x = np.full(16, 0.5, dtype)
        start = time.perf_counter()
        _core.run_kernel("multiply_add_peak", spec, 1, dtype, [], [x])
        best = min(best, time.perf_counter() - start)
    return rounds * 384 / best


def measure_copy(size: int) -> float:
    """Bytes per second, read and written, of one core that copies so many again and again."""
    source = np.ones(max(1, size // 2), np.uint8)
    target = np.ones_like(source)
    times = max(1, (1 << 22) // size)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return size * times / best


def multiply_adds(step: Step) -> int:
    """For one sample, counted directly; 0 for kernels that multiply nothing together.

    Products with padding are not counted: kernels need not make them.
    """
    spec = getattr(step.spec, "conv", getattr(step.spec, "dense", step.spec))
    if isinstance(spec, _core.Conv2d):
        if "unpool" in step.kernel:
            return 0
        rows = _taps_inside(
            spec.height,
            spec.out_height,
            spec.kernel_height,
            spec.stride_height,
            spec.dilation_height,
            spec.pad_top,
        )
        columns = _taps_inside(
            spec.width,
            spec.out_width,
            spec.kernel_width,
            spec.stride_width,
            spec.dilation_width,
            spec.pad_left,
        )
        return int(rows * columns * (spec.channels // spec.groups) * spec.filters)
    if isinstance(spec, _core.Dense):
        return int(spec.rows * spec.inputs * spec.units)
    return 0


def _taps_inside(size: int, out: int, kernel: int, stride: int, dilation: int, pad: int) -> int:
    """Pairs of an output position and a kernel position along one axis that meet an input."""
    first = np.arange(out)[:, None] * stride - pad
    at = first + np.arange(kernel) * dilation
    return int(((at >= 0) & (at < size)).sum())


def _bytes(step: Step) -> int:
    return sum(
        prod(size for size in value.shape if size is not None) * np.dtype(value.dtype).itemsize
        for value in [*step.inputs, *step.outputs]
        if value is not None and per_sample(value)
    )


# ---- what a step is called -----------------------------------------------------------------------


def _layers(steps: Sequence[Step]) -> list[str]:
    """The layer of each step; where there is none, what it is for."""
    read_for: dict[int, str] = {}
    layers = []
    for step in reversed(steps):
        layer = " + ".join(dict.fromkeys(node.layer for node in step.nodes if node.layer))
        layer = layer or _purpose(step, read_for)
        for value in step.inputs:
            read_for.setdefault(id(value), layer)
        layers.append(layer)
    return layers[::-1]


def _purpose(step: Step, read_for: dict[int, str]) -> str:
    """What a step without a layer is for, given that of the values that later steps read."""
    if step.kernel == "accumulate":
        return "loss" if _changed(step)[1] == "loss" else "metrics"
    if not step.outputs:
        return _changed(step)[0] or "optimizer"
    if "gather" in step.kernel:
        return "data"
    if step.kernel == "square_sum":  # perhaps of all gradients together
        return "optimizer"
    if "_backward" in step.kernel:
        return "loss"
    return next((read_for[id(v)] for v in step.outputs if id(v) in read_for), "data")


def _changed(step: Step) -> tuple[str, str]:
    """The owner and the name of the variable that a step without outputs changes, its last
    argument; a penalty's is the one that it looks at."""
    value = step.inputs[0 if step.kernel == "penalty" else -1]
    if value is None or value.variable is None:
        return "", ""
    whole = value.variable.name
    owner, _, name = whole.removesuffix(_AVERAGE).rpartition("/")
    return owner, f"{name} average" if whole.endswith(_AVERAGE) else name


def _kernels(steps: Sequence[Step]) -> list[str]:
    """What each step does."""
    nodes = [node for step in steps for node in step.nodes]
    # The gradient of a loss is the first of all.
    back = min((node.sequence for node in nodes if node.kernel == "mean_backward"), default=inf)
    transposed = {_made_by(n) for n in nodes if n.kernel == _TRANSPOSED and n.sequence < back}
    return [_kernel(step, back, transposed) for step in steps]


def _made_by(node: Node) -> tuple[str, int]:
    """What a node has in common with those of its gradient: the layer, and the spec itself."""
    return node.layer, id(node.spec)


def _kernel(step: Step, back: float, transposed: set[tuple[str, int]]) -> str:
    if not step.nodes:
        return _MOVES.get(step.kernel, step.kernel)
    names, direction = [], ""
    for node in step.nodes:
        kernel = node.kernel
        if _made_by(node) in transposed:
            kernel = _of_transposed(node, back)
        kernel, backward, of = kernel.partition("_backward")
        names.append(_name(kernel, node, bool(backward)))
        # Some kernels are their own gradients.
        own = node.sequence >= back and node.layer and step.outputs
        if backward or own:
            direction = " backward" + of.replace("_", ", ")
    text = " + ".join(names) + direction
    if not step.outputs and step.kernel != "next_step":
        text += f", {_changed(step)[1]}"
    return text


def _of_transposed(node: Node, back: float) -> str:
    """A transposed convolution is the gradient of a convolution; that is its own gradient."""
    if node.sequence < back:
        return "conv2d_transpose"
    direction = "input" if node.kernel == "conv2d" else "kernel"
    return f"conv2d_transpose_backward_{direction}"


def _name(kernel: str, node: Node, backward: bool) -> str:
    if kernel in _KINDS:
        kernel = _KINDS[kernel][node.spec.kind]
    elif kernel == "conv2d" and node.spec.groups == node.spec.channels > 1:
        kernel = "depthwise_conv2d"
    elif kernel == "channel_affine" and node.inputs[2 if backward else 1] is None:
        kernel = "bias"
    return _SHOWN.get(kernel, kernel.replace("categorical_", ""))


def _schedule(step: Step) -> str:
    if step.kernel in _UPDATES and any(v is not None and v.place == "sum" for v in step.inputs):
        return "update"
    return "depth-first" if step.tiled else "breadth-first"


# ---- the table -----------------------------------------------------------------------------------


def _table(profile: Profile) -> str:
    head = ["layer", "kernel", "schedule", "mult-adds", "bytes"]
    adds = sum(row.multiply_adds for row in profile.rows)
    last = ["per sample", "", "", f"{adds:,}", f"{sum(row.bytes for row in profile.rows):,}"]
    if profile.seconds is not None:
        head += ["ns", "time", "of peak"]
        last += [f"{profile.seconds * 1e9:,.0f}", "100%", percent(profile.share)]
    body = [_cells(row, profile.seconds) for row in profile.rows]
    widths = [max(map(len, column)) for column in zip(head, *body, last, strict=True)]
    line = "  ".join("-" * width for width in widths)
    lines = [f"{profile.title}, batches of {profile.batch_size}", _line(head, widths), line]
    lines += [_line(row, widths) for row in body]
    lines += [line, _line(last, widths), _memory(profile)]
    if profile.peak is not None:
        peak = f"{2 * profile.peak / 1e9:.0f} GFLOP/s"
        lines.append(f"{profile.where}; arithmetic peak of the core {peak}")
    elif profile.seconds is not None:
        lines.append(profile.where)
    if profile.note:
        lines.append(profile.note)
    return "\n".join(lines)


def _cells(row: Row, total: float | None) -> list[str]:
    cells = [
        cut(row.layer, WIDEST_LAYER),
        cut(row.kernel, WIDEST_KERNEL),
        row.schedule,
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
        f"{row.bytes:,}" if row.bytes else "",
    ]
    if total is not None and row.seconds is not None:
        share = percent(row.share)
        if share and not row.multiply_adds:
            share += " copy"
        cells += [f"{row.seconds * 1e9:,.0f}", f"{row.seconds / total:.1%}", share]
    return cells


def percent(share: float | None) -> str:
    """A share of the peak in whole percents; "" for None."""
    if share is None:
        return ""
    return "<1%" if share < 0.01 else f"{share:.0%}"


def cut(text: str, width: int) -> str:
    """A name in at most so many characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [
        f"{cell:<{width}}" if i < 3 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(texts).rstrip()


def _memory(profile: Profile) -> str:
    fused = profile.on_gpu and profile.tile_bytes > 0
    what = "tables and sums of gradients" if fused else "a batch's values"
    parts = [f"memory: {_kilobytes(profile.arena_bytes)} for {what}"]
    if profile.tile_bytes:
        whose = "block of threads for its sample" if fused else "thread for its tile"
        parts.append(f"{_kilobytes(profile.tile_bytes)} per {whose}")
    if profile.sum_bytes:
        parts.append(f"{_kilobytes(profile.sum_bytes)} for sums of gradients")
    return ", ".join(parts)


def _kilobytes(count: int) -> str:
    return f"{count / 1024:,.0f} KB"
