"""The command line with networks of all kinds, folders of images, interruptions and pictures."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from test_cli import SECONDS, failure, small, start

import convkit
from convkit.cli import data, main, networks, scores, trained
from convkit.datasets import digits
from convkit.models import load_model


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """The current folder, and one thread."""
    monkeypatch.chdir(tmp_path)
    before = convkit.get_num_threads()
    convkit.set_num_threads(1)
    yield
    convkit.set_num_threads(before)


@pytest.fixture(scope="module")
def pillow():
    return pytest.importorskip("PIL.Image")


KINDS = ("bright", "dark", "striped")


def write_photos(pillow, root: Path, count: int, kinds=KINDS) -> None:
    """Small photographs that anything tells apart."""
    rng = np.random.default_rng(0)
    for kind in kinds:
        (root / kind).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 40, (24, 30, 3), np.uint8)
            if kind == "bright":
                image += 200
            elif kind == "striped":
                image[:, ::6] = 255
            pillow.fromarray(image).save(root / kind / f"{i}.png")


def train(*argv: str) -> int:
    return main(["train", "--quiet", "--save", "model.safetensors", *argv])


# ---- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_can_be_made(name):
    network = networks.NETWORKS[name]
    if name.startswith(("vgg16", "resnet34")):
        pytest.skip("as its smaller sister")
    shape = network.shape or (network.least, network.least, 3)
    model = networks.make(name, shape, 4, list(networks.AUGMENTATIONS) if shape[0] < 40 else ())
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 4)
    if name == "lenet":
        bare = convkit.models.lenet(classes=4)
        bare.set_weights(model.get_weights())
        x = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
        scaled = x.astype(np.float32) / 255 * 2 - 1
        np.testing.assert_allclose(model.predict(x), bare.predict(scaled), rtol=1e-4, atol=1e-6)


def test_images_in_colour(capsys):
    rng = np.random.default_rng(0)
    arrays = {
        f"{name}_{part}": rng.integers(0, 256 if name == "x" else 3, size, np.uint8)
        for part in ("train", "test")
        for name, size in (("x", (20, 12, 10, 3)), ("y", 20))
    }
    np.savez("own.npz", **arrays)
    assert train("--data", "own.npz", "--model", "mlp", "--epochs", "1", "--augment") == 0
    model = load_model("model.safetensors")
    assert model.input_shape == (None, 12, 10, 3)
    assert [type(layer).__name__ for layer in model.layers][1:3] == [
        "RandomFlip",
        "RandomTranslation",
    ]
    assert main(["evaluate", "model.safetensors", "--data", "own.npz"]) == 0
    assert "of 20 images right" in capsys.readouterr().out
    message = failure(capsys, "train", "--data", "own.npz")
    assert "expected images (N, 28, 28) for this model, got (20, 12, 10, 3)" in message
    message = failure(capsys, "train", "--data", "own.npz", "--model", "vgg11")
    assert "at least 32 x 32 pixels" in message


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential", "steps", "one-cycle"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_schedules_and_optimizers(schedule, optimizer, capsys):
    argv = ["--epochs", "2", "--schedule", schedule, "--optimizer", optimizer]
    assert train(*argv, "--learning-rate", "0.02", "--csv", "log.csv") == 0
    model = load_model("model.safetensors")
    assert model.optimizer.name == optimizer
    rate = model.optimizer.learning_rate
    expected = {"constant": 0.02, "cosine": 0, "exponential": 0.0002, "steps": 0.0002}
    assert rate == pytest.approx(expected.get(schedule, 0), abs=2e-5)
    if schedule == "constant":
        message = failure(capsys, "plot", "learning-rate", "model.safetensors")
        assert "that was trained with a schedule" in message


def test_augmentation_of_grey_images_by_default_and_by_name():
    assert train("--epochs", "1", "--augment") == 0
    names = [type(layer).__name__ for layer in load_model("model.safetensors").layers]
    assert names[1:4] == ["RandomTranslation", "RandomRotation", "RandomZoom"]
    assert train("--epochs", "1", "--augment", "contrast", "zoom") == 0
    names = [type(layer).__name__ for layer in load_model("model.safetensors").layers]
    assert names[1:4] == ["RandomContrast", "RandomZoom", "Rescaling"]


# ---- folders of images ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["classes", "train and test", "train and val"])
@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "streamed"])
def test_a_folder_of_images(pillow, layout, in_memory, monkeypatch, capsys):
    if not in_memory:
        monkeypatch.setattr(data, "_IN_MEMORY", 0)
    if layout == "classes":
        write_photos(pillow, Path("photos"), 20)
        count = 12
    else:
        write_photos(pillow, Path("photos/train"), 16)
        write_photos(pillow, Path("photos") / layout.split()[-1], 4)
        count = 12
    Path("photos", "notes.txt").write_text("not an image")
    argv = ["--data", "photos", "--model", "mlp", "--image-size", "12", "--batch-size", "4"]
    assert train(*argv, "--epochs", "4", "--early-stopping", "3") == 0
    out = capsys.readouterr().out
    assert f"of {count} images right" in out
    assert float(out.split("accuracy: ")[1].split("%")[0]) > 90
    model, description = trained.load(Path("model.safetensors"))
    assert model.input_shape == (None, 12, 12, 3)
    assert description.class_names == KINDS
    assert not description.drawings

    assert main(["evaluate", "model.safetensors", "--data", "photos"]) == 0
    table = capsys.readouterr().out
    assert all(any(line.startswith(kind) for line in table.splitlines()) for kind in KINDS)
    names = [str(path) for path in sorted(Path("photos").rglob("3.png"))]
    assert main(["predict", *names]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert sum(Path(line.split(":")[0]).parent.name in line.split(":")[1] for line in lines) >= 3


def test_a_grey_folder_for_lenet(pillow):
    write_photos(pillow, Path("photos"), 10)
    assert train("--data", "photos", "--epochs", "1") == 0
    assert load_model("model.safetensors").input_shape == (None, 28, 28, 1)


@pytest.mark.filterwarnings("default")
def test_images_that_cannot_be_read_are_named_and_left_out(pillow, capsys):
    write_photos(pillow, Path("photos"), 10)
    Path("photos", "dark", "bad.png").write_text("no image")
    argv = ["--data", "photos", "--model", "mlp", "--image-size", "8", "--epochs", "1"]
    assert train(*argv) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("convkit: warning: ")
    assert "photos/dark/bad.png: not an image that Pillow can read" in warning
    assert "Warning" not in warning


def test_folders_that_do_not_fit(pillow, capsys):
    write_photos(pillow, Path("one"), 10, ["only"])
    argv = ["train", "--model", "mlp", "--data"]
    assert "at least 2 classes" in failure(capsys, *argv, "one")
    write_photos(pillow, Path("few"), 2)
    assert "expected more images" in failure(capsys, *argv, "few", "--early-stopping")
    write_photos(pillow, Path("photos"), 5)
    argv = ["train", "--data", "photos", "--image-size", "16"]
    assert "expected 28 for this model" in failure(capsys, *argv)
    assert "expected at least 32 for this model" in failure(capsys, *argv, "--model", "mobilenet")
    assert "a folder of images with it" in failure(capsys, "train", "--image-size", "16")
    write_photos(pillow, Path("others/train"), 5, ["cat", "dog"])
    write_photos(pillow, Path("others/test"), 5, ["cat"])
    assert "dog" in failure(capsys, "train", "--model", "mlp", "--data", "others")
    assert train("--data", "photos", "--model", "mlp", "--image-size", "8", "--epochs", "1") == 0
    capsys.readouterr()
    write_photos(pillow, Path("pets"), 5, ["cat", "dog", "owl"])
    message = failure(capsys, "evaluate", "model.safetensors", "--data", "pets")
    assert "expected the classes bright, dark, striped" in message


# ---- checkpoints, early stopping, logs -----------------------------------------------------------


def test_an_interrupted_training_goes_on_and_ends_with_the_same_bits(tmp_path):
    argv = ["train", "--epochs", "40", "--augment", "shift", "--schedule", "cosine"]
    argv += ["--csv", "log.csv", "--threads", "1"]
    whole = start(*argv, "--save", "whole", folder=tmp_path)
    whole.communicate(timeout=SECONDS)
    assert whole.returncode == 0
    log = Path("log.csv").read_bytes()

    argv += ["--checkpoint", "backup", "--save", "resumed"]
    for signum in (signal.SIGINT, signal.SIGKILL):
        process = start(*argv, folder=tmp_path)
        lines = [process.stderr.readline() for _ in range(8)]
        assert lines[-1].startswith("Epoch ")
        process.send_signal(signum)
        _, error = process.communicate(timeout=SECONDS)
        assert process.returncode in (130, -9)
        if signum == signal.SIGINT:
            assert "Run the same command again to go on (backup)" in error
        assert not Path("resumed").exists()
    process = start(*argv, folder=tmp_path)
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    first = int(error.split("Epoch ")[1].split("/")[0])
    assert first > 8
    assert Path("resumed").read_bytes() == Path("whole").read_bytes()
    assert Path("log.csv").read_bytes() == log


def test_a_checkpoint_of_another_training_is_refused(tmp_path, capsys):
    argv = ["train", "--epochs", "100000", "--checkpoint", "backup", "--threads", "1"]
    process = start(*argv, folder=tmp_path)
    while not Path("backup/training.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    message = failure(capsys, "train", "--model", "mlp", "--checkpoint", "backup")
    assert message.startswith("convkit: error: --checkpoint: ")
    Path("file").write_text("")
    assert "there is no folder" in failure(capsys, "train", "--checkpoint", "no/where")


def test_early_stopping_looks_at_images_of_the_training_set(capsys):
    argv = ["train", "--epochs", "60", "--early-stopping", "1", "--csv", "log.csv"]
    assert main([*argv, "--save", "model.safetensors"]) == 0
    captured = capsys.readouterr()
    assert "1,298 images to train on, 144 to stop by, 355 to test on" in captured.out
    assert "early stopping" in captured.err
    rows = list(csv.DictReader(Path("log.csv").read_text().splitlines()))
    assert 2 <= len(rows) < 60
    best = np.argmin([float(row["val_loss"]) for row in rows])
    assert f"best epoch: {best + 1}" in captured.err


def test_what_the_terminal_shows_fits_into_80_columns(capsys):
    argv = ["train", "--epochs", "2", "--augment", "--schedule", "one-cycle", "--early-stopping"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    lines = [*captured.out.splitlines(), *captured.err.splitlines()]
    assert len(lines) > 8
    assert all(len(line) <= 80 for line in lines)
    assert main(["evaluate", "lenet-digits.safetensors"]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_tensorboard(monkeypatch, capsys):
    import importlib.util

    if importlib.util.find_spec("tensorboard"):
        assert train("--epochs", "1", "--tensorboard", "logs") == 0
        assert {path.name for path in Path("logs").iterdir()} == {"train", "validation"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = failure(capsys, "train", "--tensorboard", "logs")
    assert message == "convkit: error: --tensorboard needs TensorBoard: pip install tensorboard\n"


# ---- evaluate ------------------------------------------------------------------------------------


def test_the_table_of_classes():
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    lines = scores.class_table(counts, ("cat", "a very long name of a dog", "owl")).splitlines()
    assert lines[1].split()[:5] == ["cat", "10", "88.9%", "80.0%", "84.2%"]
    assert lines[1].endswith("a very long nam… (2)")
    assert lines[3].split() == ["owl", "0", "0.0%", "0.0%", "0.0%"]
    assert len({len(line.split("%")[0]) for line in lines[1:]}) == 1
    table = scores.confusion_table(counts, ("cat", "dog", "owl")).splitlines()
    assert table[1].split() == ["0", "1", "2"]
    assert table[2].split() == ["0", "cat", "8", "2", "."]


def test_tables_of_many_classes_show_the_worst():
    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(50, 100, 100)) + rng.integers(0, 3, (100, 100))
    counts[7, 9] = 40
    names = tuple(f"class {i}" for i in range(100))
    table = scores.class_table(counts, names).splitlines()
    assert table[0] == "The 20 classes of 100 that are told apart worst:"
    assert len(table) == 22
    assert "class 9 (40)" in next(line for line in table if line.startswith("class 7 "))
    worst = scores.confusion_table(counts, names).splitlines()
    assert worst[1] == f"  class 7 as class 9: 40 of {counts[7].sum()}"
    assert all(len(line) <= 80 for line in [*table, *worst])


def test_scores_are_those_of_evaluate():
    (_, _), (x, y) = digits.load_data(size=28)
    assert train("--epochs", "2") == 0
    model = load_model("model.safetensors")
    x, y = x[..., np.newaxis], y.astype(np.int32)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    found = scores.score(model, data.Images(x, y), 10, most=3)
    assert found.right / found.images == pytest.approx(accuracy)
    assert found.loss == pytest.approx(loss, rel=1e-4)
    images, labels, probabilities = found.worst
    assert len(images) == 3
    assert (probabilities.argmax(axis=1) != labels).all()
    assert (np.diff(probabilities.max(axis=1)) <= 0).all()


# ---- plot and export -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    path, log = folder / "lenet.safetensors", folder / "log.csv"
    argv = ["train", "--quiet", "--epochs", "2", "--schedule", "cosine", "--csv", str(log)]
    assert main([*argv, "--save", str(path)]) == 0
    return path


@pytest.mark.parametrize(
    "kind",
    ["model", "filters", "feature-maps", "grad-cam", "confusion", "mistakes", "learning-rate"],
)
def test_every_picture(kind, model_file, pillow, capsys):
    pytest.importorskip("matplotlib")
    assert main(["plot", kind, str(model_file)]) == 0
    assert capsys.readouterr().out == f"Picture saved to {kind}.png\n"
    with pillow.open(f"{kind}.png") as picture:
        assert min(picture.size) > 100


def test_pictures_of_a_layer_of_images_and_of_a_history(model_file, pillow, capsys):
    pytest.importorskip("matplotlib")
    (_, _), (x, _) = digits.load_data(size=28)
    pillow.fromarray(255 - x[0]).resize((90, 90)).save("five.png")
    layer = [layer.name for layer in load_model(model_file).layers if "conv" in layer.name][1]
    of_layer = ["--layer", layer, "--output", "picture.svg"]
    of_image = ["--image", "five.png"]
    assert main(["plot", "filters", str(model_file), *of_layer]) == 0
    assert main(["plot", "feature-maps", str(model_file), *of_layer, *of_image]) == 0
    assert main(["plot", "grad-cam", str(model_file), *of_layer, *of_image, "five.png"]) == 0
    assert Path("picture.svg").read_text().startswith("<?xml")
    assert main(["plot", "history", str(model_file.parent / "log.csv")]) == 0
    assert Path("history.png").exists()
    capsys.readouterr()
    assert "a layer" in failure(capsys, "plot", "grad-cam", str(model_file), "--layer", "nothing")
    assert ".png" in failure(capsys, "plot", "model", str(model_file), "--output", "picture.txt")
    message = failure(capsys, "plot", "history", str(model_file))
    assert "that convkit train --csv wrote" in message
    convkit.models.mlp().save("bare")
    assert "convkit train saved" in failure(capsys, "plot", "confusion", "bare")
    assert "with a convolution" in failure(capsys, "plot", "filters", "bare")
    assert main(["plot", "model", "bare"]) == 0


def test_export(model_file, capsys):
    from safetensors.numpy import load_file

    model = load_model(model_file)
    weights = {variable.name: variable.numpy() for variable in model.weights}
    for name, read in (("w.npz", np.load), ("w.safetensors", load_file)):
        assert main(["export", str(model_file), name]) == 0
        assert "10 arrays of 61,706 weights" in capsys.readouterr().out
        found = read(name)
        assert set(found) == set(weights)
        for key, value in weights.items():
            np.testing.assert_array_equal(found[key], value)
    assert main(["export", str(model_file), "model.json"]) == 0
    described = json.loads(Path("model.json").read_text())
    again = convkit.Model.from_config(described["config"])
    again.set_weights(model.get_weights())
    x = small(3)["x_test"][..., np.newaxis]
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert ".npz, .json or .safetensors" in failure(capsys, "export", str(model_file), "w.onnx")
    assert "no folder" in failure(capsys, "export", str(model_file), "no/w.npz")
    Path("text").write_text("no model")
    assert "safetensors" in failure(capsys, "export", "text", "w.npz")
