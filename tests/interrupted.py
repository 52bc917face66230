"""A training that is killed and begun again, until it comes to its end; run as a program.

    python tests/interrupted.py DIRECTORY result    a training, or the rest of one; prints its bits
    python tests/interrupted.py DIRECTORY kills N   kills trainings N times and resumes them

The second prints how many of the resumed trainings ended with the bits of the undisturbed one.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

EPOCHS = 3


def train(directory: Path) -> str:
    """Trains, or goes on training, and returns a hash of all that came of it."""
    import numpy as np

    import convkit
    from convkit import callbacks, layers

    convkit.utils.set_random_seed(7)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (400, 8, 8, 1)).astype(np.uint8)
    y = rng.integers(0, 4, 400)
    model = convkit.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.RandomTranslation(0.1, 0.1),
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x,
        y,
        epochs=EPOCHS,
        batch_size=20,
        verbose=0,
        validation_split=0.2,
        callbacks=[
            callbacks.CSVLogger(directory / "log.csv"),
            callbacks.BackupAndRestore(directory / "backup", save_freq=2),
            callbacks.ModelCheckpoint(directory / "model.safetensors", save_freq=3),
            callbacks.ReduceLROnPlateau(patience=1, factor=0.5, monitor="loss", min_delta=0.01),
        ],
    )
    digest = hashlib.sha256()
    for variable in [*model.weights, *model.optimizer.variables]:
        digest.update(variable.numpy().tobytes())
    digest.update(repr(sorted(history.history.items())).encode())
    digest.update((directory / "log.csv").read_bytes())
    convkit.models.load_model(directory / "model.safetensors")  # whole, whatever happened
    return digest.hexdigest()


def run(directory: Path, seconds: float | None) -> str | None:
    """The training in a process; None where it was killed after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(directory), "result"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # it begins to train
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    assert process.returncode == 0
    return out.strip()


def kills(directory: Path, count: int, seed: int = 0) -> tuple[int, int]:
    """(trainings that ended with the undisturbed one's bits, trainings), after `count` kills."""
    chance = random.Random(seed)
    started = time.perf_counter()
    expected = run(directory / "undisturbed", None)
    longest = time.perf_counter() - started
    killed = same = trainings = 0
    while killed < count:
        place = directory / f"training {trainings}"
        trainings += 1
        result = None
        while result is None:
            left = count - killed
            result = run(place, chance.uniform(0, 0.8 * longest) if left > 0 else None)
            killed += result is None
        same += result == expected
    return same, trainings


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    if sys.argv[2] == "result":
        import convkit.models  # noqa: F401  (what follows is training alone)

        print("training", flush=True)
        print(train(directory))
        return
    same, trainings = kills(directory, int(sys.argv[3]))
    print(f"{sys.argv[3]} kills: {same} of {trainings} trainings ended with the same bits")
    sys.exit(same != trainings)


if __name__ == "__main__":
    main()
