"""Makes keras_callbacks.json: what Keras's callbacks do with scores that are given to them.

Run it where Keras 3 and TensorFlow are: `python tests/keras_callbacks.py`. What is in the file now
came from Keras 3.15.1 on TensorFlow. The tests read the file and need neither.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")
RATE = 0.5  # the learning rate at first, a power of 2


def scores(seed: int, epochs: int) -> list[float]:
    """Scores with ties, and with steps below and above 0.1."""
    rng = np.random.default_rng(seed)
    return [float(value) for value in np.round(rng.uniform(0.2, 0.8, epochs), 1)]


# Arguments of EarlyStopping; those that are left out have Keras's defaults.
STOPPING: list[dict[str, Any]] = [
    {},
    {"patience": 1},
    {"patience": 3, "restore_best_weights": True},
    {"patience": 2, "mode": "max"},
    {"monitor": "val_accuracy", "patience": 2, "restore_best_weights": True},
    {"monitor": "val_accuracy", "mode": "min", "patience": 1},
    {"patience": 1, "min_delta": 0.1, "restore_best_weights": True},
    {"patience": 2, "min_delta": -0.1, "mode": "max"},
    {"patience": 2, "baseline": 0.4, "restore_best_weights": True},
    {"patience": 3, "baseline": 0.7, "mode": "max", "restore_best_weights": True},
    {"patience": 2, "start_from_epoch": 4, "restore_best_weights": True},
    {"patience": 0, "start_from_epoch": 2},
    {"patience": 20, "restore_best_weights": True},
]
PLATEAU: list[dict[str, Any]] = [
    {"patience": 0},
    {"patience": 1, "factor": 0.5},
    {"patience": 2, "factor": 0.25},
    {"patience": 1, "factor": 0.5, "cooldown": 2},
    {"patience": 0, "factor": 0.5, "cooldown": 1, "min_lr": 0.0625},
    {"patience": 1, "factor": 0.5, "min_delta": 0.2},
    {"monitor": "val_accuracy", "patience": 1, "factor": 0.5},
    {"mode": "max", "patience": 1, "factor": 0.5, "min_lr": 0.2},
]
CHECKPOINT: list[dict[str, Any]] = [
    {},
    {"save_best_only": True},
    {"save_best_only": True, "mode": "max"},
    {"save_best_only": True, "monitor": "val_accuracy"},
    {"save_best_only": True, "initial_value_threshold": 0.4},
    {"save_best_only": True, "mode": "max", "initial_value_threshold": 0.7},
]
SEEDS = (0, 1, 2, 3)
EPOCHS = 12


def made(keras: Any) -> dict[str, list[Any]]:
    """The cases, with what came of them."""

    class Script(keras.callbacks.Callback):
        """Sets the weight to the number of the epoch, and the scores to given ones."""

        def __init__(self, given: list[float]) -> None:
            super().__init__()
            self.given = given
            self.rates: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.set_weights([np.full((1, 1), epoch + 1.0)])
            self.rates.append(float(self.model.optimizer.learning_rate))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = logs["val_accuracy"] = self.given[epoch]

    x = np.zeros((2, 1))  # so that no update changes the weight

    def trained(seed: int, callback: Any) -> tuple[Any, list[float]]:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(RATE), "mse", metrics=["accuracy"])
        script = Script(scores(seed, EPOCHS))
        callbacks = [script, callback]
        model.fit(x, x, epochs=EPOCHS, verbose=0, callbacks=callbacks, validation_data=(x, x))
        return model, script.rates

    found: dict[str, list[Any]] = {"stopping": [], "plateau": [], "checkpoint": []}
    for seed in SEEDS:
        for given in STOPPING:
            stopping = keras.callbacks.EarlyStopping(**given)
            model, rates = trained(seed, stopping)
            found["stopping"].append(
                {
                    "arguments": given,
                    "seed": seed,
                    "epochs": len(rates),
                    "weight": float(model.get_weights()[0][0, 0]),
                    "stopped": stopping.stopped_epoch,
                    "best": stopping.best_epoch,
                }
            )
        for given in PLATEAU:
            _, rates = trained(seed, keras.callbacks.ReduceLROnPlateau(**given))
            found["plateau"].append({"arguments": given, "seed": seed, "rates": rates})
        for given in CHECKPOINT:
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/{{epoch}}.keras"
                trained(seed, keras.callbacks.ModelCheckpoint(path, **given))
                saved = sorted(int(file.stem) for file in Path(folder).iterdir())
            found["checkpoint"].append({"arguments": given, "seed": seed, "saved": saved})
    return found


def main() -> None:
    import keras

    FILE.write_text(json.dumps(made(keras), indent=1) + "\n")


if __name__ == "__main__":
    main()
