"""The ops in plain NumPy, as a good user of it would write them: the baselines of bench_ops.py.

Names and arguments are those of `convkit.ops`, with the options that the benchmarks use. Arrays
are float32 and channels last: x (n, height, width, channels), kernels (height, width, inputs,
outputs) and (inputs, outputs). Whole arrays at a time, no loops but over the places of a kernel or
a window. Gradients of losses are those of the prediction alone.
"""

# ruff: noqa: F403  what all these modules offer is this one's
from numpy_baseline.conv import *
from numpy_baseline.crossentropy import *
from numpy_baseline.elementwise import *
from numpy_baseline.loss import *
from numpy_baseline.moving import *
from numpy_baseline.norm import *
from numpy_baseline.pool import *
from numpy_baseline.reduce import *
