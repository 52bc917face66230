"""The command line: what it does, says and leaves behind, and how it fails."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import convkit
from convkit.cli import bench, images, main, networks, parser, trained
from convkit.cli import data as cli_data
from convkit.cli.errors import CommandError
from convkit.datasets import digits
from convkit.models import files

SECONDS = 60


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """What the tests train is too small for more, and a busy machine makes threads wait."""
    before = convkit.get_num_threads()
    convkit.set_num_threads(1)
    yield
    convkit.set_num_threads(before)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """The current folder, put back after the test as the number of threads is."""
    monkeypatch.chdir(tmp_path)
    yield
    convkit.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """What `convkit train` saves with no other arguments."""
    path = tmp_path_factory.mktemp("trained") / "lenet-digits.safetensors"
    assert main(["train", "--quiet", "--save", str(path)]) == 0
    return path


def failure(capsys, *argv: str) -> str:
    """The message of a run that must fail with exit code 1, on standard error alone."""
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.startswith("convkit: error: ")
    return captured.err


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def small(count: int = 40, size: int = 28) -> dict[str, np.ndarray]:
    (x, y), (x_test, y_test) = digits.load_data(size=size)
    return {
        "x_train": x[:count],
        "y_train": y[:count],
        "x_test": x_test[:count],
        "y_test": y_test[:count],
    }


# ---- help and usage -----------------------------------------------------------------------------


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"convkit {convkit.__version__}\n"


COMMANDS = ("train", "evaluate", "predict", "plot", "export", "info", "bench")


@pytest.mark.parametrize("argv", [[], *([name] for name in COMMANDS)])
def test_help(argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*argv, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(" ".join(["usage: convkit", *argv]))
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_parser_knows_what_there_is():
    from convkit.cli import plot

    assert tuple(parser.MODELS) == tuple(networks.NETWORKS)
    assert tuple(networks.AUGMENTATIONS) == parser.AUGMENTATIONS
    assert tuple(parser.PICTURES) == tuple(plot.KINDS)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "usage: convkit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["fly"],
        ["train", "--epochs", "0"],
        ["train", "--batch-size", "many"],
        ["train", "--learning-rate", "nan"],
        ["train", "--learning-rate", "-1"],
        ["train", "--seed", "4294967296"],
        ["train", "--seed", "-1"],
        ["train", "--threads", "0"],
        ["train", "--model", "magic"],
        ["train", "--augment", "magic"],
        ["train", "--schedule", "magic"],
        ["train", "--early-stopping", "0"],
        ["train", "--image-size", "-1"],
        ["train", "--optimizer", "magic"],
        ["evaluate"],
        ["predict"],
        ["plot"],
        ["plot", "model"],
        ["plot", "nothing", "file"],
        ["export", "file"],
    ],
)
def test_wrong_usage(argv, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "usage: convkit" in error
    assert "error: " in error


# ---- train and evaluate -------------------------------------------------------------------------


def test_train_without_arguments(tmp_path, capsys):
    assert main(["train"]) == 0
    captured = capsys.readouterr()
    accuracy = float(captured.out.split("Test accuracy: ")[1].split("%")[0])
    assert accuracy >= 96
    assert "saved to lenet-digits.safetensors" in captured.out
    assert captured.err.count("Epoch ") == 20
    assert [path.name for path in tmp_path.iterdir()] == ["lenet-digits.safetensors"]

    assert main(["evaluate", "lenet-digits.safetensors"]) == 0
    assert f"Test accuracy: {accuracy:.2f}%" in capsys.readouterr().out


def test_quiet_training_prints_the_result_alone(capsys):
    assert main(["train", "--epochs", "1", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(captured.out.splitlines()) == 2


def test_equal_seeds_give_equal_files(tmp_path):
    np.savez("own.npz", **small())
    run = ["train", "--data", "own.npz", "--epochs", "1", "--quiet", "--save"]
    for more in (["a", "--seed", "1", "--threads", "1"], ["b", "--seed", "1"], ["c"]):
        process = start(*run, *more, folder=tmp_path)
        process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert Path("a").read_bytes() != Path("c").read_bytes()


def test_the_file_is_the_whole_model_and_says_what_it_is(weights):
    assert files.read_metadata(weights)["extra"] == {
        "model": "lenet",
        "data": "digits",
        "drawings": True,
        "class_names": list("0123456789"),
    }
    (_, _), (x, y) = digits.load_data(size=28)
    model = convkit.models.load_model(weights)
    _, accuracy = model.evaluate(x[..., np.newaxis], y.astype(np.int32), verbose=0)
    assert accuracy > 0.96


def test_files_of_weights_alone_are_still_read(weights, capsys):
    model, _ = trained.load(weights)
    lenet = convkit.models.lenet()
    lenet.set_weights(model.get_weights())
    of_old = {"model": "lenet", "data": "digits", "size": 28, "class_names": list("0123456789")}
    files.save("old.safetensors", lenet, of_old)
    for name in (str(weights), "old.safetensors"):
        assert main(["evaluate", name]) == 0
    told = capsys.readouterr().out.split("Test accuracy")
    assert told[1].splitlines()[0] == told[2].splitlines()[0]


@pytest.mark.parametrize("model", ["lenet", "lenet_1998", "lenet_caffe"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files(model, compressed, tmp_path, capsys):
    ending = ".gz" if compressed else ""
    folder = tmp_path / "own"
    folder.mkdir()
    arrays = small()
    for name, array in zip(cli_data._IDX, arrays.values(), strict=True):
        write_idx(folder / f"{name}{ending}", array)
    argv = ["--data", "own", "--model", model, "--epochs", "1", "--batch-size", "16"]
    assert main(["train", *argv]) == 0
    file = f"{model}-own.safetensors"
    assert f"saved to {file}" in capsys.readouterr().out
    assert "was trained on data of your own" in failure(capsys, "evaluate", file)
    assert main(["evaluate", file, "--data", "own"]) == 0
    assert "of 40 images right" in capsys.readouterr().out


LENET, LENET_1998 = networks.NETWORKS["lenet"], networks.NETWORKS["lenet_1998"]


def test_an_npz_file_of_fractions_equals_one_of_bytes():
    arrays = small()
    np.savez("bytes.npz", **arrays)
    arrays["x_train"] = arrays["x_train"][..., np.newaxis] / np.float32(255)
    arrays["x_test"] = arrays["x_test"] / np.float32(255)
    arrays["y_train"] = arrays["y_train"].astype(np.int64).reshape(-1, 1)
    np.savez("fractions.npz", **arrays)
    of_bytes, of_fractions = (
        cli_data.load(f"{name}.npz", LENET).train for name in ("bytes", "fractions")
    )
    np.testing.assert_allclose(of_bytes.x, of_fractions.x, rtol=1e-6)
    np.testing.assert_array_equal(of_bytes.y, of_fractions.y)
    assert main(["train", "--data", "fractions.npz", "--epochs", "1", "--optimizer", "sgd"]) == 0


def test_images_get_a_border_for_the_model_of_1998():
    np.savez("own.npz", **small())
    x = cli_data.load("own.npz", LENET_1998).train.x
    assert x.shape == (40, 32, 32, 1)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x[:, 2:-2, 2:-2, 0], small()["x_train"])
    for border in (x[:, :2], x[:, -2:], x[:, :, :2], x[:, :, -2:]):
        np.testing.assert_array_equal(border, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((40, 8, 8), np.uint8)}, r"\(N, 28, 28\) for this model, got"),
        ({"x_train": np.zeros((40, 28, 28)) - 0.1}, "between 0 and 1"),
        ({"x_train": np.full((40, 28, 28), np.nan)}, "between 0 and 1"),
        ({"x_train": np.full((40, 28, 28), 256)}, "between 0 and 255"),
        ({"x_train": np.full((40, 28, 28), "a")}, "images of numbers"),
        ({"y_train": np.zeros(39, np.int64)}, "as many labels as images"),
        ({"y_train": np.zeros(40)}, "labels .* of whole numbers"),
        ({"y_train": np.zeros((40, 10), np.int64)}, "labels .* of whole numbers"),
        ({"y_train": np.full(40, -1)}, "between 0 and 999"),
        ({"y_test": np.full(40, 10**6)}, "between 0 and 999"),
        ({"x_test": np.array([{}], object)}, "pickle"),
    ],
)
def test_data_that_do_not_fit(change, message):
    np.savez("own.npz", **{**small(), **change})
    with pytest.raises(CommandError, match=message):
        cli_data.load("own.npz", LENET)


def test_data_that_are_not_there(tmp_path, capsys):
    assert "which does not exist" in failure(capsys, "train", "--data", "nothing")
    (tmp_path / "empty").mkdir()
    assert "train-images-idx3-ubyte" in failure(capsys, "train", "--data", "empty")
    Path("text.npz").write_text("no array")
    assert "text.npz: expected an .npz file" in failure(capsys, "train", "--data", "text.npz")
    np.save("array", np.zeros(1))
    Path("array.npy").rename("array.npz")
    assert "array.npz: expected an .npz file" in failure(capsys, "train", "--data", "array.npz")
    np.savez("half.npz", x_train=np.zeros(1))
    assert "y_test, got x_train\n" in failure(capsys, "train", "--data", "half.npz")


def test_what_cannot_be_saved_is_said_before_training(tmp_path, capsys):
    assert "no folder" in failure(capsys, "train", "--save", "no/where.safetensors")
    assert "the folder" in failure(capsys, "train", "--save", str(tmp_path))
    assert ".png" in failure(capsys, "train", "--plot", "picture.txt")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_trained_model(capsys, weights):
    assert "missing: No such file" in failure(capsys, "evaluate", "missing")
    Path("text").write_text("no weights")
    assert "safetensors" in failure(capsys, "evaluate", "text")
    convkit.models.lenet().save_weights("bare")
    assert "convkit train saved" in failure(capsys, "evaluate", "bare")
    Path("cut").write_bytes(weights.read_bytes()[:-100])
    assert "safetensors" in failure(capsys, "evaluate", "cut")


@pytest.mark.parametrize(
    "change", [{"model": "alexnet"}, {"size": 32}, {"class_names": []}, {"more": 1}, {"data": 3}]
)
def test_metadata_that_lie(change, capsys):
    metadata = {"model": "lenet", "data": None, "size": 28, "class_names": list("0123456789")}
    files.save("lying", convkit.models.lenet(), {**metadata, **change})
    assert "convkit train saved" in failure(capsys, "evaluate", "lying", "--data", "digits")


def test_evaluation_on_unknown_classes(capsys, weights):
    np.savez("own.npz", **{**small(), "y_test": np.arange(40)})
    message = failure(capsys, "evaluate", str(weights), "--data", "own.npz")
    assert "labels below 10" in message


# ---- predict ------------------------------------------------------------------------------------


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image")


def stroke(*, height: int = 300, width: int = 240, thickness: int = 30) -> np.ndarray:
    """A seven, ink 1 on 0."""
    image = np.zeros((height, width), np.float32)
    left, right, top, bottom = width // 4, 3 * width // 4, height // 5, 4 * height // 5
    image[top : top + thickness, left:right] = 1
    for row in range(top, bottom):
        share = (row - top) / (bottom - top)
        column = int(right - thickness - share * (right - left) * 0.6)
        image[row, column : column + thickness] = 1
    return image


def variants(pillow, ink: np.ndarray) -> dict:
    """The same drawing in many kinds of image."""
    dark = (255 * (1 - ink)).astype(np.uint8)
    alpha = np.zeros((*ink.shape, 4), np.uint8)
    alpha[..., 3] = 255 * ink
    white = np.full((*ink.shape, 4), 255, np.uint8)
    white[..., 3] = 255 * ink
    colour = np.stack([dark // 2 + 100, dark, dark // 3], -1)
    rng = np.random.default_rng(0)
    noisy = np.clip(60 + 0.6 * dark + rng.normal(0, 5, ink.shape), 0, 255).astype(np.uint8)
    return {
        "dark on light": pillow.fromarray(dark),
        "light on dark": pillow.fromarray(255 - dark),
        "colour": pillow.fromarray(colour),
        "palette": pillow.fromarray(dark).convert("P"),
        "one bit": pillow.fromarray(dark).convert("1"),
        "16 bit": pillow.fromarray(dark.astype(np.uint16) * 257),
        "dark on nothing": pillow.fromarray(alpha),
        "white on nothing": pillow.fromarray(white),
        "off centre": pillow.fromarray(np.pad(dark, ((10, 300), (200, 20)), constant_values=255)),
        "noisy": pillow.fromarray(noisy),
    }


def test_every_kind_of_image_is_seen_alike(pillow):
    seen = {}
    for name, image in variants(pillow, stroke()).items():
        image.save("image.png")
        seen[name] = images.read(Path("image.png"), "mnist", 28)
        assert seen[name].shape == (28, 28, 1), name
        assert seen[name].dtype == np.float32, name
    expected = seen["dark on light"]
    for name, x in seen.items():
        assert np.abs(x - expected).mean() < 0.02, name


def test_framing_as_mnist(pillow):
    pillow.fromarray((255 * stroke()).astype(np.uint8)).save("seven.png")
    x = images.read(Path("seven.png"), "mnist", 28)[..., 0]
    rows, columns = np.flatnonzero(x.any(1)), np.flatnonzero(x.any(0))
    assert rows[-1] - rows[0] + 1 == 20
    assert columns[-1] - columns[0] + 1 < 20
    assert x.max() == 1
    # MNIST's centre of mass lies on pixel (14, 14), as near as whole pixels allow.
    assert abs(x.sum(1) @ np.arange(28) / x.sum() - 14) <= 0.5
    assert abs(x.sum(0) @ np.arange(28) / x.sum() - 14) <= 0.5
    wide = images.read(Path("seven.png"), None, 32)[..., 0]
    np.testing.assert_allclose(wide[2:-2, 2:-2], x, atol=1e-6)
    assert images.read(Path("seven.png"), "fashion_mnist", 28).any(axis=(1, 2)).all()


def test_thin_lines_are_not_lost(pillow):
    thin, pen = stroke(height=900, width=700, thickness=4), stroke()
    masses = []
    for ink in (thin, pen):
        pillow.fromarray((255 * ink).astype(np.uint8)).save("seven.png")
        masses.append(images.read(Path("seven.png"), "mnist", 28).sum())
    assert 0.5 < masses[0] / masses[1] < 1.2


@pytest.mark.parametrize("size", [28, 32])
def test_digits_are_framed_as_the_data_inside_the_package(pillow, size):
    (_, _), (x, _) = digits.load_data(size=size)
    for image in x[:20]:
        pillow.fromarray(image).resize((200, 200)).save("digit.png")
        seen = images.read(Path("digit.png"), "digits", size)[..., 0] * 255
        assert np.corrcoef(seen.ravel(), image.ravel())[0, 1] > 0.8


def test_predict(pillow, weights, capsys):
    (_, _), (x, y) = digits.load_data(size=28)
    right, names = 0, []
    for i, image in enumerate(x[:60]):
        names.append(f"{i}.png")
        pillow.fromarray(255 - image).resize((150, 150)).save(names[-1])
    assert main(["predict", "--model", str(weights), *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names)
    for name, line, label in zip(names, lines, y, strict=False):
        assert line.startswith(f"{name}: ")
        assert "%" in line
        right += line.startswith(f"{name}: {label} (")
    assert right >= 50


def test_predict_finds_the_newest_weights(pillow, weights, capsys):
    pillow.fromarray((255 * stroke()).astype(np.uint8)).save("seven.png")
    assert 'run "convkit train" first' in failure(capsys, "predict", "seven.png")
    Path("lenet-old.safetensors").write_text("not read")
    os.utime("lenet-old.safetensors", (1, 1))
    Path("lenet-new.safetensors").write_bytes(weights.read_bytes())
    assert main(["predict", "seven.png"]) == 0
    assert capsys.readouterr().out.startswith("With lenet-new.safetensors:\nseven.png: ")


def test_predict_goes_on_after_an_image_that_cannot_be_read(pillow, weights, tmp_path, capsys):
    pillow.fromarray((255 * stroke()).astype(np.uint8)).save("seven.png")
    pillow.new("L", (50, 50), 200).save("blank.png")
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(Path("seven.png").read_bytes()[:200])
    bad = ["blank.png", "text.png", "cut.png", "missing.png", str(tmp_path)]
    assert main(["predict", "--model", str(weights), *bad, "seven.png"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("seven.png: ")
    note, *lines = captured.err.splitlines()
    assert note.startswith("(These weights saw ")
    for name, line in zip([*bad, "5 of 6"], lines, strict=True):
        assert line.startswith(f"convkit: error: {name}")


def test_matplotlib_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "convkit-nn[plot]" in failure(capsys, "train", "--plot", "picture.png")
    assert not list(tmp_path.iterdir())


def test_train_and_predict_draw(pillow, weights, capsys):
    pytest.importorskip("matplotlib")
    assert main(["train", "--epochs", "1", "--quiet", "--plot", "overview.png"]) == 0
    pillow.fromarray((255 * stroke()).astype(np.uint8)).save("seven.png")
    assert main(["predict", "--model", str(weights), "seven.png", "--plot", "seen.png"]) == 0
    out = capsys.readouterr().out
    for name in ("overview.png", "seen.png"):
        assert f"Picture saved to {name}" in out
        with pillow.open(name) as picture:
            assert picture.size[0] > 250


def test_pillow_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "convkit-nn[plot]" in failure(capsys, "predict", "seven.png")


# ---- info, bench, and real processes -------------------------------------------------------------


def test_info(capsys, monkeypatch, tmp_path):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("CONVKIT_DATA", str(tmp_path))
    assert main(["info"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["convkit"] == convkit.__version__
    assert rows["instruction set"].startswith(convkit._core.backend_name())
    assert rows["threads"] == str(convkit.get_num_threads())
    assert rows["CONVKIT_DATA"] == f"{tmp_path} (mnist)"
    assert rows.keys() >= {"OpenMP runtime", "CUDA", "CuPy", "NumPy", "Python", "data cache"}


def test_bench(capsys, monkeypatch):
    monkeypatch.setattr(bench, "_TRAINED_ON", 256)
    monkeypatch.setattr(bench, "_SECONDS", 0.01)
    assert main(["bench", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines[3:]] == ["training,", *2 * ["prediction"]]


def test_the_bench_s_baseline_computes_the_same():
    model = convkit.models.lenet()
    x = np.random.default_rng(0).random((5, 28, 28, 1), np.float32)
    expected = bench.numpy_lenet(x, model.get_weights())
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-6)


def start(*argv: str, folder: Path, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *options, "-m", "convkit", *argv],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_info_imports_nothing_slow(tmp_path):
    output, imports = start("info", folder=tmp_path, options=("-X", "importtime")).communicate(
        timeout=SECONDS
    )
    assert output.startswith("convkit ")
    assert " convkit\n" in imports
    for name in ("matplotlib", "PIL", "pooch", "tqdm", "safetensors"):
        assert f" {name}\n" not in imports, name


def test_ctrl_c(tmp_path):
    process = start("train", "--epochs", "100000", "--threads", "1", folder=tmp_path)
    assert "digits" in process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "convkit: interrupted" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_broken_pipe(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "convkit", "info"],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""
