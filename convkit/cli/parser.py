"""The arguments of every subcommand."""

from __future__ import annotations

import argparse
import math
from typing import Any

from convkit import __version__
from convkit.config import MOST_THREADS

VARIANTS = {"lenet": "modern", "lenet_1998": "1998", "lenet_caffe": "caffe"}

_EXAMPLES = """\
examples:
  convkit train                              train LeNet on the digits inside the package
  convkit train --data mnist --plot mnist.png
  convkit evaluate lenet-mnist.safetensors
  convkit predict --model lenet-mnist.safetensors my_seven.png
  convkit info

"convkit COMMAND --help" tells more about each command.
"""

_DATA = """\
data:
  digits         1,797 digits inside the package; needs no network
  mnist, fashion_mnist
                 70,000 images; from the folder that CONVKIT_DATA names, else from the
                 user's cache, into which they are downloaded once
  a folder       with four IDX files, gzipped or not, named as those of MNIST:
                 train-images-idx3-ubyte, train-labels-idx1-ubyte,
                 t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte
  a file.npz     with the arrays x_train, y_train, x_test, y_test
                 Images are (N, 28, 28): whole numbers from 0 to 255, or fractions from 0
                 to 1; light on dark. Labels are (N,), whole numbers from 0.
"""

_TRAIN = (
    _DATA
    + """
examples:
  convkit train
  convkit train --data mnist --epochs 5 --batch-size 128 --seed 1
  convkit train --data fashion_mnist --model lenet_caffe --save clothes.safetensors
  convkit train --data mnist --device auto
  convkit train --data ./letters.npz --optimizer sgd --learning-rate 0.1 --plot letters.png
"""
)

_EVALUATE = (
    _DATA
    + """
examples:
  convkit evaluate lenet-digits.safetensors
  convkit evaluate lenet-mnist.safetensors --data ./my_own_digits.npz
"""
)

_PREDICT = """\
An image may have any size, be grey or in colour, dark on light or light on dark. The ink is found,
cut out, scaled and centred as in the data that the model was trained on. A model trained on mnist
reads your own digits far better than one trained on the few digits inside the package.

examples:
  convkit predict seven.png
  convkit predict --model lenet-mnist.safetensors --plot seen.png *.png
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; `command` in its result is a subcommand's name, or None."""
    parser = argparse.ArgumentParser(
        prog="convkit",
        description="Small convolutional networks at full speed: train, evaluate and use LeNet.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add(commands, "info", "tell version, instruction set, threads, CUDA and where data lie")
    bench = _add(commands, "bench", "measure training and inference on this machine, in seconds")
    _add_threads(bench)
    return parser


def _add(commands: Any, name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_train(commands: Any) -> None:
    parser = _add(commands, "train", "train LeNet and save its weights", _TRAIN)
    data = parser.add_argument_group("what")
    data.add_argument("--data", default="digits", help="a data set, see below (default: digits)")
    data.add_argument(
        "--model",
        choices=VARIANTS,
        default="lenet",
        help="lenet: 6 and 16 filters, ReLU, max pooling (default); "
        "lenet_1998: LeNet-5 as of 1998, tanh, average pooling, 32 x 32; "
        "lenet_caffe: 20 and 50 filters",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=_positive, metavar="N", help="default: 20 on digits, else 5")
    how.add_argument(
        "--batch-size", type=_positive, metavar="N", help="default: 32 on digits, else 128"
    )
    how.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="default: adam")
    how.add_argument(
        "--learning-rate",
        type=_rate,
        metavar="X",
        help="default: 0.001 for adam, but 0.003 on digits; 0.01 for sgd",
    )
    how.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of weights and order; equal seeds give equal weights (default: 0)",
    )
    how.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="where to train; auto: on a GPU if one can be had (default: cpu)",
    )
    _add_threads(how)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--save", metavar="FILE", help="weights (default: MODEL-DATA.safetensors, in this folder)"
    )
    result.add_argument(
        "--plot", metavar="FILE", help="an overview as a picture (.png, .svg, .pdf)"
    )
    result.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_evaluate(commands: Any) -> None:
    summary = "tell a trained model's accuracy on test images"
    parser = _add(commands, "evaluate", summary, _EVALUATE)
    parser.add_argument("model", metavar="FILE", help="weights that convkit train saved")
    parser.add_argument("--data", help="a data set, see below (default: the one trained on)")
    _add_threads(parser)


def _add_predict(commands: Any) -> None:
    summary = "tell which digit an image shows"
    parser = _add(commands, "predict", summary, _PREDICT)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a PNG, JPEG, … file")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="weights that convkit train saved (default: the newest lenet*.safetensors here)",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw what the network saw and said")
    _add_threads(parser)


def _add_threads(parser: Any) -> None:
    parser.add_argument(
        "--threads", type=_threads, metavar="N", help="at most so many (default: all processors)"
    )


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def _threads(text: str) -> int:
    number = _positive(text)
    if number > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {text!r}")
    return number


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(
            f"expected a whole number between 0 and {2**32 - 1}, got {text!r}"
        )
    return int(text)


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
