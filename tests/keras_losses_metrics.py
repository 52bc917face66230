"""Makes keras_losses_metrics.json, the losses and metrics of Keras on a few arrays, in float64.

Run it where Keras 3 and TensorFlow are: `python tests/keras_losses_metrics.py`. What is in the file
now came from Keras 3.15.1 on TensorFlow. The tests read the file and need neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".json")

rng = np.random.default_rng(11)


def rounded(array: np.ndarray) -> np.ndarray:
    """Values that a text of six digits holds."""
    return np.round(array, 6)


SHARES = rounded(rng.uniform(0.02, 0.98, (6, 4)))
OTHERS = rounded(rng.uniform(0, 1, (6, 4)))
NUMBERS = rounded(3 * rng.normal(size=(6, 4)))
TARGETS = rounded(3 * rng.normal(size=(6, 4)))
HOT = np.eye(4)[rng.integers(0, 4, 6)]
BINARY = rng.integers(0, 2, (6, 4)).astype(float)
LABELS = rng.integers(0, 4, 6).astype(float)
EXTREME = np.array([[0.0, 1.0, 0.5, 1e-9], [1.0, 1.0, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0]])
EXTREME_TARGETS = np.array([[1.0, 0.0, 0.5, 0.0], [1.0, 0.0, 1.0, 0.25], [0.0, 0.0, 1.0, 0.0]])
IMAGES = rounded(rng.uniform(0, 1, (2, 3, 3, 2)))
MASKS = rng.integers(0, 2, (2, 3, 3, 2)).astype(float)

# Class, arguments, targets, predictions.
LOSSES: list[tuple[str, dict[str, Any], np.ndarray, np.ndarray]] = [
    ("Hinge", {}, BINARY, NUMBERS),
    ("Hinge", {}, 2 * BINARY - 1, NUMBERS),
    ("SquaredHinge", {}, BINARY, NUMBERS),
    ("CategoricalHinge", {}, HOT, NUMBERS),
    ("Huber", {}, TARGETS, NUMBERS),
    ("Huber", {"delta": 2.5}, TARGETS, NUMBERS),
    ("KLDivergence", {}, OTHERS, SHARES),
    ("KLDivergence", {}, EXTREME_TARGETS, EXTREME),
    ("Poisson", {}, OTHERS, SHARES),
    ("Poisson", {}, EXTREME_TARGETS, EXTREME),
    ("LogCosh", {}, TARGETS, NUMBERS),
    ("LogCosh", {}, 0.01 * TARGETS, 0.01 * NUMBERS),
    ("MeanAbsolutePercentageError", {}, TARGETS, NUMBERS),
    ("MeanSquaredLogarithmicError", {}, np.abs(TARGETS), NUMBERS),
    ("CosineSimilarity", {}, TARGETS, NUMBERS),
    ("CosineSimilarity", {}, EXTREME_TARGETS, EXTREME),
    ("CosineSimilarity", {"axis": 1}, MASKS + 1, IMAGES),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, HOT, SHARES),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2, "from_logits": True}, HOT, NUMBERS),
    ("CategoricalCrossentropy", {"axis": 1}, MASKS, IMAGES),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BINARY, SHARES),
    ("BinaryCrossentropy", {"label_smoothing": 0.2, "from_logits": True}, BINARY, NUMBERS),
    ("BinaryCrossentropy", {"axis": 1}, MASKS, IMAGES),
    ("BinaryFocalCrossentropy", {}, BINARY, SHARES),
    ("BinaryFocalCrossentropy", {"gamma": 0.5}, OTHERS, SHARES),
    ("BinaryFocalCrossentropy", {"gamma": 3.7, "label_smoothing": 0.1}, BINARY, SHARES),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.3}, BINARY, SHARES),
    ("BinaryFocalCrossentropy", {"from_logits": True}, BINARY, NUMBERS),
    ("BinaryFocalCrossentropy", {}, EXTREME_TARGETS, EXTREME),
    ("CategoricalFocalCrossentropy", {}, HOT, SHARES),
    ("CategoricalFocalCrossentropy", {"alpha": 0.6, "gamma": 1.5}, OTHERS, SHARES),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "gamma": 0.0}, HOT, NUMBERS),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "axis": 2}, MASKS, IMAGES),
    ("CategoricalFocalCrossentropy", {}, EXTREME_TARGETS[:2], EXTREME[:2]),
    ("Dice", {}, MASKS, IMAGES),
    ("Dice", {"axis": [1, 2, 3]}, MASKS, IMAGES),
    ("Dice", {"axis": [1, 2]}, MASKS, IMAGES),
]

ALL_CURVES = [
    {"curve": curve, "summation_method": method}
    for curve in ("ROC", "PR")
    for method in ("interpolation", "minoring", "majoring")
]
FINE = [0.0, 0.25, 0.5, 0.75, 1.0]

METRICS: list[tuple[str, dict[str, Any], np.ndarray, np.ndarray]] = [
    ("TopKCategoricalAccuracy", {"k": 2}, HOT, SHARES),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, LABELS, SHARES),
    ("BinaryAccuracy", {"threshold": 0.3}, BINARY, SHARES),
    ("Precision", {}, BINARY, SHARES),
    ("Precision", {"thresholds": [0.7, 0.2, 0.4]}, BINARY, SHARES),
    ("Precision", {"thresholds": FINE}, BINARY, NUMBERS),
    ("Precision", {"top_k": 2}, BINARY, SHARES),
    ("Precision", {"top_k": 2, "thresholds": 0.6}, BINARY, SHARES),
    ("Precision", {"class_id": 2}, BINARY, SHARES),
    ("Recall", {}, BINARY, SHARES),
    ("Recall", {"top_k": 3, "class_id": 1}, BINARY, SHARES),
    ("Recall", {"thresholds": 0.8}, BINARY, SHARES),
    *[
        (name, {"thresholds": thresholds}, BINARY, SHARES)
        for name in ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives")
        for thresholds in (None, [0.3, 0.6], FINE)
    ],
    *[("AUC", options, BINARY, SHARES) for options in ALL_CURVES],
    *[("AUC", {**options, "num_thresholds": 7}, BINARY, NUMBERS) for options in ALL_CURVES],
    *[("AUC", {**options, "multi_label": True}, BINARY, SHARES) for options in ALL_CURVES],
    ("AUC", {"thresholds": [0.2, 0.9, 0.4]}, BINARY, SHARES),
    ("AUC", {"from_logits": True}, BINARY, NUMBERS),
    ("AUC", {"label_weights": [0.1, 0.2, 0.3, 0.4]}, BINARY, SHARES),
    ("AUC", {"label_weights": [0.1, 0.2, 0.3, 0.4], "multi_label": True}, BINARY, SHARES),
    *[("F1Score", {"average": a}, HOT, SHARES) for a in (None, "micro", "macro", "weighted")],
    ("F1Score", {"threshold": 0.4}, BINARY, SHARES),
    ("FBetaScore", {"beta": 2.0, "average": "macro"}, HOT, SHARES),
    ("FBetaScore", {"beta": 0.5, "average": "micro", "threshold": 0.6}, BINARY, SHARES),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, BINARY, SHARES),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 1}, BINARY, SHARES),
    ("PrecisionAtRecall", {"recall": 0.7, "class_id": 1}, BINARY, SHARES),
    ("RecallAtPrecision", {"precision": 0.55, "num_thresholds": 20}, BINARY, SHARES),
    ("MeanSquaredError", {}, TARGETS, NUMBERS),
    ("RootMeanSquaredError", {}, TARGETS, NUMBERS),
    ("MeanAbsoluteError", {}, TARGETS, NUMBERS),
    ("MeanAbsolutePercentageError", {}, TARGETS, NUMBERS),
    ("MeanSquaredLogarithmicError", {}, np.abs(TARGETS), NUMBERS),
    ("LogCoshError", {}, TARGETS, NUMBERS),
    ("CosineSimilarity", {}, TARGETS, NUMBERS),
    ("KLDivergence", {}, OTHERS, SHARES),
    ("Poisson", {}, OTHERS, SHARES),
    ("Hinge", {}, BINARY, NUMBERS),
    ("SquaredHinge", {}, BINARY, NUMBERS),
    ("CategoricalHinge", {}, HOT, NUMBERS),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BINARY, SHARES),
    ("CategoricalCrossentropy", {"from_logits": True}, HOT, NUMBERS),
    ("SparseCategoricalCrossentropy", {}, LABELS, SHARES),
    ("MeanIoU", {"num_classes": 4, "sparse_y_pred": False}, LABELS, SHARES),
    ("MeanIoU", {"num_classes": 4}, LABELS, LABELS[::-1]),
    ("MeanIoU", {"num_classes": 4, "ignore_class": 1, "sparse_y_pred": False}, LABELS, SHARES),
    ("IoU", {"num_classes": 4, "target_class_ids": [0, 2]}, LABELS, LABELS[::-1]),
    ("BinaryIoU", {}, BINARY, SHARES),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.25}, BINARY, OTHERS),
    ("OneHotIoU", {"num_classes": 4, "target_class_ids": [1, 3]}, HOT, SHARES),
    ("OneHotMeanIoU", {"num_classes": 4}, HOT, SHARES),
]


def main() -> None:
    import keras

    keras.config.set_floatx("float64")
    table: dict[str, list[Any]] = {"losses": [], "metrics": []}
    for name, options, y_true, y_pred in LOSSES:
        loss = getattr(keras.losses, name)(**options, reduction="none")
        table["losses"].append(entry(name, options, y_true, y_pred, loss(y_true, y_pred)))
    for name, options, y_true, y_pred in METRICS:
        metric = getattr(keras.metrics, name)(**options)
        given = y_pred.astype("float32") if "TopK" in name else y_pred  # TensorFlow wants it so
        for part in (slice(0, 4), slice(4, None)):  # in two batches
            metric.update_state(y_true[part], given[part])
        table["metrics"].append(entry(name, options, y_true, y_pred, metric.result()))
    lines = ["{"]
    for kind, entries in table.items():
        listed = ",\n".join(json.dumps(one) for one in entries)
        lines.append(f'"{kind}": [\n{listed}\n]' + ("," if kind == "losses" else ""))
    FILE.write_text("\n".join([*lines, "}"]) + "\n")


def entry(name: str, options: dict[str, Any], y_true: Any, y_pred: Any, values: Any) -> Any:
    return {
        "class": name,
        "options": options,
        "y_true": y_true.tolist(),
        "y_pred": y_pred.tolist(),
        "values": np.asarray(values, np.float64).tolist(),
    }


if __name__ == "__main__":
    main()
