"""How well a model does on test images: numbers, a table of the classes, a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convkit.cli.data import Images
from convkit.models import Model

_WIDTH = 80  # columns of a terminal
_MOST_ROWS = 20  # of tables
_NAME = 16  # columns of a class's name


@dataclass
class Scores:
    """What a model said of test images.

    Attributes:
        counts: (classes, classes): how often the class of the row was taken for the column's.
        loss: the mean cross-entropy.
        worst: the mistakes it was surest of, as (images, labels, probabilities).
    """

    counts: np.ndarray
    loss: float
    worst: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        return int(np.trace(self.counts))

    def line(self) -> str:
        """Test accuracy: 98.95% (9,895 of 10,000 images right), loss 0.0312"""
        return (
            f"Test accuracy: {self.right / self.images:.2%} ({self.right:,} of {self.images:,} "
            f"images right), loss {self.loss:.4f}"
        )


def score(model: Any, images: Images, classes: int, most: int = 24) -> Scores:
    """The scores of a model, of which at most so many mistakes are kept."""
    # With the loss that `fit` shows, whatever the model was compiled with.
    judge = Model(model.inputs, model.outputs).to(model.device)
    judge.compile("sgd", "sparse_categorical_crossentropy")
    loss = judge.evaluate(*images.fed, batch_size=256, verbose=0)
    counts = np.zeros((classes, classes), np.int64)
    worst: tuple[np.ndarray, ...] | None = None
    for x, y in images.batches():
        y_pred = model.predict(x, 256)
        labels = y_pred.argmax(axis=1)
        np.add.at(counts, (y, labels), 1)
        wrong = labels != y
        found: tuple[np.ndarray, ...] = (x[wrong], y[wrong], y_pred[wrong])
        if worst is not None:
            found = tuple(np.concatenate(pair) for pair in zip(worst, found, strict=True))
        order = np.argsort(-found[2].max(axis=1), kind="stable")[:most]
        worst = tuple(part[order] for part in found)
    assert worst is not None  # there is at least one batch
    return Scores(counts, loss, (worst[0], worst[1], worst[2]))


def class_table(counts: np.ndarray, names: tuple[str, ...]) -> str:
    """How well each class is told from the others; of many classes, the worst."""
    of_class, said = counts.sum(axis=1), counts.sum(axis=0)
    right = np.diag(counts)
    recall, precision = right / np.maximum(of_class, 1), right / np.maximum(said, 1)
    f1 = 2 * right / np.maximum(of_class + said, 1)
    chosen = np.arange(len(counts))
    title = ""
    if len(counts) > _MOST_ROWS:
        chosen = np.argsort(f1, kind="stable")[:_MOST_ROWS]
        title = f"The {_MOST_ROWS} classes of {len(counts)} that are told apart worst:\n"
    width = max(len("class"), *(len(_short(names[i])) for i in chosen))
    lines = [f"{'class':<{width}}  images  precision  recall      F1  most often taken for"]
    for i in chosen:
        mistaken = counts[i].copy()
        mistaken[i] = 0
        most = int(mistaken.argmax())
        taken = f"{_short(names[most])} ({mistaken[most]:,})" if mistaken[most] else ""
        scores = f"{precision[i]:>9.1%}  {recall[i]:>6.1%}  {f1[i]:>6.1%}"
        lines.append(f"{_short(names[i]):<{width}}  {of_class[i]:>6,}  {scores}  {taken}".rstrip())
    return title + "\n".join(lines)


def confusion_table(counts: np.ndarray, names: tuple[str, ...]) -> str:
    """How often each class (a row) was taken for each; where that is too wide, the worst mistakes.

    Columns have the numbers of the classes, which stand before their names.
    """
    classes = len(counts)
    numbered = [
        name if name == str(i) else f"{i} {_short(name)}" for i, name in enumerate(names[:classes])
    ]
    name_width = max(map(len, numbered))
    cell = max(len(str(counts.max())), len(str(classes - 1))) + 2
    if name_width + classes * cell > _WIDTH:
        return _worst_mistakes(counts, names)
    rows = [" " * name_width + "".join(f"{i:>{cell}}" for i in range(classes))]
    for name, row in zip(numbered, counts, strict=True):
        rows.append(f"{name:<{name_width}}" + "".join(f"{n or '.':>{cell}}" for n in row))
    return "What is taken for what (rows: what it is):\n" + "\n".join(rows)


def _worst_mistakes(counts: np.ndarray, names: tuple[str, ...]) -> str:
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_ROWS]
    lines = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            times = f"{wrong[row, column]:,} of {counts[row].sum():,}"
            lines.append(f"  {_short(names[row])} as {_short(names[column])}: {times}")
    return "The most frequent mistakes:\n" + "\n".join(lines or ["  none"])


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
