"""The arguments of every subcommand."""

from __future__ import annotations

import argparse
import math
from typing import Any

from convkit import __version__
from convkit.config import MOST_THREADS

# As in networks.py, which takes longer to import.
MODELS = {
    "lenet": "6 and 16 filters, ReLU, max pooling; grey, 28 x 28",
    "lenet_1998": "LeNet-5 as of 1998, tanh, average pooling; grey, 32 x 32",
    "lenet_caffe": "20 and 50 filters; grey, 28 x 28",
    "mlp": "one hidden layer of 128; any images, as all that follow",
    "alexnet": "of at least 67 x 67",
    "vgg11": "of at least 32 x 32",
    "vgg16": "of at least 32 x 32",
    "resnet18": "below 64 x 64 as is usual for CIFAR",
    "resnet34": "likewise",
    "mobilenet": "of at least 32 x 32",
}
OPTIMIZERS = ("adam", "adamw", "nadam", "sgd", "rmsprop", "adagrad", "adadelta", "lion")
SCHEDULES = ("constant", "cosine", "exponential", "steps", "one-cycle")
AUGMENTATIONS = ("flip", "shift", "rotate", "zoom", "contrast")
PICTURES = {
    "model": "the graph of its layers",
    "filters": "the filters of its first convolution, or of --layer",
    "feature-maps": "what every layer makes of an image; all maps of --layer",
    "grad-cam": "where in images it finds what speaks for their class",
    "confusion": "what is taken for what, of the test images",
    "mistakes": "the test images it got wrong, worst first",
    "history": "loss and accuracy; FILE is what train --csv wrote",
    "learning-rate": "the schedule it was trained with",
}

_EXAMPLES = """\
examples:
  convkit train                           train LeNet on digits in the package
  convkit train --data mnist --plot mnist.png
  convkit train --data photos/ --model resnet18 --augment
  convkit evaluate lenet-mnist.safetensors
  convkit predict --model lenet-mnist.safetensors my_seven.png
  convkit plot grad-cam lenet-mnist.safetensors
  convkit export lenet-mnist.safetensors weights.npz
  convkit info

"convkit COMMAND --help" tells more about each command.
"""

_DATA = """\
data:
  digits         1,797 digits inside the package; needs no network
  mnist, fashion_mnist, cifar10, cifar100
                 from the folder that CONVKIT_DATA names, else from the user's
                 cache, into which they are downloaded once
  a folder       with a folder of images for each class; or with two such
                 folders, "train" and "test" (or "val"). Without these, a fifth
                 of the images is kept to test on.
                 Or with four IDX files, gzipped or not, named as MNIST's:
                 train-images-idx3-ubyte, train-labels-idx1-ubyte,
                 t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte
  a file.npz     with the arrays x_train, y_train, x_test, y_test
                 Images are (N, height, width) or (N, height, width, 3): whole
                 numbers from 0 to 255, or fractions from 0 to 1; grey ones
                 light on dark. Labels are (N,), whole numbers from 0.
"""

_TRAIN = (
    "models:\n"
    + "".join(f"  {name:<14} {what}\n" for name, what in MODELS.items())
    + "\n"
    + _DATA
    + """
examples:
  convkit train
  convkit train --data mnist --epochs 5 --batch-size 128 --seed 1
  convkit train --data fashion_mnist --model lenet_caffe --early-stopping
  convkit train --data cifar10 --model resnet18 --epochs 30 --augment \\
      --optimizer sgd --learning-rate 0.1 --schedule cosine \\
      --checkpoint backup/ --device auto
  convkit train --data photos/ --model mobilenet --image-size 96
  convkit train --data letters.npz --csv letters.csv --plot letters.png
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
An image may have any size. For a model that was trained on drawings (digits,
mnist, fashion_mnist, or grey images of your own) it may be grey or in colour,
dark on light or light on dark: the ink is found, cut out, scaled and centred as
in the data that the model was trained on. A model trained on mnist reads your
own digits far better than one trained on the few digits inside the package.
Photographs are cut to the proportions of the model's images, and scaled.

examples:
  convkit predict seven.png
  convkit predict --model lenet-mnist.safetensors --plot seen.png *.png
"""

_PLOT = (
    "kinds:\n"
    + "".join(f"  {kind:<14} {what}\n" for kind, what in PICTURES.items())
    + """
examples:
  convkit plot model lenet-digits.safetensors
  convkit plot filters lenet-digits.safetensors --output filters.svg
  convkit plot feature-maps lenet-digits.safetensors --image seven.png
  convkit plot grad-cam resnet18-photos.safetensors --image cat.jpg dog.jpg
  convkit plot mistakes lenet-mnist.safetensors
  convkit plot history log.csv
"""
)

_EXPORT = """\
The ending says what is written:
  .npz           the weights, an array for each, for numpy.load
  .safetensors   the same, for whatever reads safetensors
  .json          the architecture: layers, their arguments and connections
Weights have names such as conv2d/kernel. Kernels are (height, width, inputs,
filters), those of dense layers (inputs, units), as in Keras.

examples:
  convkit export lenet-digits.safetensors weights.npz
  convkit export lenet-digits.safetensors lenet.json
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; `command` in its result is a subcommand's name, or None."""
    parser = argparse.ArgumentParser(
        prog="convkit",
        description="Small convolutional networks at full speed: train, evaluate and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_plot(commands)
    _add_export(commands)
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
    parser = _add(commands, "train", "train a network and save it", _TRAIN)
    what = parser.add_argument_group("what")
    what.add_argument("--data", default="digits", help="a data set, see below (default: digits)")
    what.add_argument(
        "--model",
        choices=MODELS,
        default="lenet",
        metavar="NAME",
        help="see below (default: lenet)",
    )
    what.add_argument(
        "--image-size",
        type=_positive,
        metavar="N",
        help="height and width of images from a folder (default: 64, or the model's own)",
    )
    what.add_argument(
        "--augment",
        nargs="*",
        choices=AUGMENTATIONS,
        metavar="KIND",
        help=f"change images at random: {', '.join(AUGMENTATIONS)} (without kinds: flip shift "
        "in colour, shift rotate zoom in grey)",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=_positive, metavar="N", help="default: 20 on digits, else 5")
    how.add_argument(
        "--batch-size", type=_positive, metavar="N", help="default: 32 on digits, else 128"
    )
    how.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="adam",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam)",
    )
    how.add_argument(
        "--learning-rate",
        type=_rate,
        metavar="X",
        help="default: that of Keras, 0.001 for adam and 0.01 for sgd; 0.003 for adam on digits",
    )
    how.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="constant",
        metavar="NAME",
        help="of the learning rate: constant (default); cosine, to 0 after a short warm-up; "
        "exponential, to a hundredth; steps, a tenth after half of the steps and again after "
        "three quarters; one-cycle, up to it and down again",
    )
    how.add_argument(
        "--early-stopping",
        type=_positive,
        nargs="?",
        const=5,
        metavar="N",
        help="end when the loss of a tenth of the images, kept apart, has not become better for "
        "N epochs (without a number: 5), with the weights of the best",
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
        "--save",
        metavar="FILE",
        help="the whole model (default: MODEL-DATA.safetensors, in this folder)",
    )
    result.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep a backup after each epoch: run the same command again to go on where it was "
        "interrupted",
    )
    result.add_argument("--csv", metavar="FILE", help="a line for each epoch")
    result.add_argument("--tensorboard", metavar="DIR", help="logs for TensorBoard")
    result.add_argument(
        "--plot", metavar="FILE", help="an overview as a picture (.png, .svg, .pdf)"
    )
    result.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _add_evaluate(commands: Any) -> None:
    summary = "tell a trained model's accuracy on test images, class by class"
    parser = _add(commands, "evaluate", summary, _EVALUATE)
    parser.add_argument("model", metavar="FILE", help="a model that convkit train saved")
    parser.add_argument("--data", help="a data set, see below (default: the one trained on)")
    _add_threads(parser)


def _add_predict(commands: Any) -> None:
    summary = "tell what images show"
    parser = _add(commands, "predict", summary, _PREDICT)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a PNG, JPEG, … file")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="a model that convkit train saved (default: the newest *.safetensors here)",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw what the network saw and said")
    _add_threads(parser)


def _add_plot(commands: Any) -> None:
    parser = _add(commands, "plot", "draw a trained model, what it does or how it was made", _PLOT)
    parser.add_argument("kind", choices=PICTURES, metavar="KIND", help="see below")
    parser.add_argument("file", metavar="FILE", help="a saved model; of history, a CSV file")
    parser.add_argument("--output", metavar="FILE", help="the picture (default: KIND.png)")
    parser.add_argument("--layer", metavar="NAME", help="a layer, as the picture of the model has")
    parser.add_argument(
        "--image", nargs="+", metavar="IMAGE", help="image files (default: test images)"
    )
    parser.add_argument("--data", help="a data set, as for evaluate (default: the one trained on)")
    _add_threads(parser)


def _add_export(commands: Any) -> None:
    summary = "write a model's weights or architecture for other programs"
    parser = _add(commands, "export", summary, _EXPORT)
    parser.add_argument("model", metavar="FILE", help="a model that convkit train saved")
    parser.add_argument("target", metavar="TARGET", help="what to write: .npz, .safetensors, .json")


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
