"""Every program in examples/ runs, ends well, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TIME_LIMIT = 60  # seconds; each takes less than three on a machine that does nothing else

EXPECTED = {
    "perceptron_or_and_xor.py": (
        "OR: Perceptron(max_epochs=50, learning_rate=1): converged after",
        "AND: Perceptron(max_epochs=50, learning_rate=1): converged after",
        "XOR: Perceptron(max_epochs=50, learning_rate=1): did not converge in 50 epochs",
    ),
    "xor_two_layers.py": ("x1 x2  target  output", "XOR is solved."),
    "vertical_edges.py": ("edges 4 x 4\n" + 4 * "    0  30  30   0\n",),
    "digits_from_bytes.py": (
        "1,442 images of (8, 8, 1), uint8, 0 .. 255",
        "of 355 test images are read right",
        "the same images as floats: the same bits",
    ),
    "service.py": ("10,000 images, one by one:", "4 threads at once: the same answers"),
    "resnet_cifar.py": (
        "60 images to train on, 12 to test with: disc, ring, square, frame, cross, triangle",
        "resnet8: ",
        "of the test images are told right",
    ),
    "unet_shapes.py": (
        "merging by concatenate",
        "mean intersection over union of 8 test images: 0.",
    ),
}
# What trains for long is tested in a tiny setting.
TINY = {
    "resnet_cifar.py": ("--data=drawn", "--images=60", "--epochs=1", "--filters=4"),
    "unet_shapes.py": ("--images=40", "--size=16", "--filters=4", "--epochs=1"),
}


def run_example(name: str, *arguments: str, folder: Path) -> str:
    """Run an example as a user would, in an empty folder; return what it printed."""
    # Drawing needs no screen, and a cache of the user's own may be read-only here.
    environment = {**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(folder)}
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example(name, tmp_path):
    output = run_example(name, *TINY.get(name, ()), folder=tmp_path)
    assert output.strip()
    for line in EXPECTED.get(name, ()):
        assert line in output
    assert not list(tmp_path.iterdir()), "an example leaves no files behind unless told to"


def test_all_expected_examples_exist():
    assert {path.name for path in EXAMPLES.glob("*.py")} >= EXPECTED.keys()


DRAWING = ["vertical_edges.py", "digits_from_bytes.py", "resnet_cifar.py", "unet_shapes.py"]


@pytest.mark.parametrize("name", DRAWING)
def test_example_draws(name, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    run_example(name, *TINY.get(name, ()), "--plot", "picture.png", folder=tmp_path)
    with image.open(tmp_path / "picture.png") as picture:
        assert picture.size[0] > picture.size[1] > 200


def test_the_u_net_merges_by_adders_too(tmp_path):
    arguments = (*TINY["unet_shapes.py"], "--merge=add", "--upsampling=nearest")
    assert "merging by add" in run_example("unet_shapes.py", *arguments, folder=tmp_path)
