"""Data as a stream of batches, read by threads ahead of whoever trains on them."""

from __future__ import annotations

import operator
import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convkit import geometry
from convkit.prefetch import Closed, Failure, Prefetch
from convkit.random import draw_seed
from convkit.structure import flatten, pack

__all__ = ["Dataset"]

_MOST_THREADS = 4
_NAMED = 20  # samples that a warning names; the rest is counted
_STATE = ("epoch", "position", "seed", "samples", "batch_size")


def shuffled(count: int, *seed: int) -> np.ndarray:
    """The numbers from 0 to count - 1 in an order that follows from the seed, int64."""
    # Of the generator's raw bits, since these are the same for every version of NumPy.
    keys = np.random.Philox(np.random.SeedSequence(seed)).random_raw(count)
    return np.argsort(keys, kind="stable")


class Dataset:
    """Batches of samples that `load` makes of items, one pass over all of them an epoch.

    `for x, y in dataset:` goes through one epoch. Threads load samples ahead of the loop, and
    batches come in order: every bit of them is a function of the seed and the epoch's number,
    whatever the threads. In memory are at most `prefetch` batches, one more for each thread that
    is putting a batch together, and the one that the loop has.

    The next loop is the next epoch. A loop that is left early ends its threads, and the one after
    it begins the same epoch again; `dataset.restore(dataset.state())` before it goes on instead.
    Loops inside loops are independent of each other; `state` tells of the one begun last.

    Threads end with the loop, with its iterator (which has `close()`), and with the process. After
    a fork a dataset can be used on both sides, and so can an iterator: the child's goes on with
    threads of its own.

    Args:
        items: what samples are made of: paths, numbers, anything `load` takes.
        load: a function of an item that returns its sample: x, or a tuple (x, y) or
            (x, y, sample_weight), each an array or a number, or a list or dictionary of arrays for
            models with several inputs or outputs. Within a batch all samples have the same shapes
            and dtypes. Threads call it, so it must not depend on what another call does.
        batch_size: samples in a batch; the last of an epoch may have fewer.
        shuffle: a new order each epoch; otherwise that of the items.
        seed: of the orders, 0 or more; None: drawn from convkit's generator.
        drop_last: leave a last batch that is not full out.
        threads: that load; 0: none, samples are loaded when a batch is asked for; None: as many as
            there are processors for this process, but at most 4.
        prefetch: batches that threads may be ahead, at least 1.
        skip: exceptions of `load` for which a sample is left out of its batch. Its name is noted in
            `skipped`, and a warning at the end of the epoch names those that are new. Of a batch
            without samples nothing is seen. Every other exception ends the loop.
        name: a function of an item that returns its name for messages; None: `str` of strings and
            paths, a short `repr` of the rest.

    Attributes:
        items: as given.
        samples: how many items there are.
        batch_size, shuffle, seed, drop_last, threads, prefetch: as given or drawn.
        skipped: the reason why, by the name of the sample, for all samples that were left out.

    Raises:
        ValueError, TypeError: an argument makes no sense; in the loop: samples do not fit together,
            or whatever `load` raised, with a note that names the item.
    """

    _op = "Dataset"  # what messages begin with

    def __init__(
        self,
        items: Iterable[Any],
        load: Callable[[Any], Any],
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        threads: int | None = None,
        prefetch: int = 2,
        skip: tuple[type[Exception], ...] = (),
        name: Callable[[Any], str] | None = None,
    ) -> None:
        op = self._op
        self.items: Sequence[Any] = _indexed(items)
        self.samples = len(self.items)
        self.batch_size = geometry.integer(op, "batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.threads = (
            min(_processors(), _MOST_THREADS)
            if threads is None
            else geometry.integer(op, "threads", threads, 0)
        )
        self.prefetch = geometry.integer(op, "prefetch", prefetch, 1)
        self.skipped: dict[str, str] = {}
        if not self.samples:
            raise geometry.fail(op, "at least one item", "none")
        if not len(self):
            raise geometry.fail(
                op,
                f"a full batch of {self.batch_size} with drop_last=True",
                f"{self.samples} items",
            )
        self.seed = _seed(op, seed) if shuffle else None
        self._make = load
        self._skip = skip
        self._name = name or _name
        self._epoch = 0
        self._position = 0
        self._start = 0  # where the next loop begins
        self._newest = object()  # stands for the loop begun last
        self._warned = 0  # how many of `skipped` have been told

    @staticmethod
    def from_arrays(
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        threads: int = 1,
        prefetch: int = 2,
    ) -> Dataset:
        """A dataset of the rows of arrays, memory-mapped ones too; each batch is a copy.

        Args:
            x, y, sample_weight: arrays with one row per sample, or lists or dictionaries of such;
                None: there is none.
            batch_size, shuffle, seed, drop_last, threads, prefetch: as for `Dataset`.

        Raises:
            ValueError: the arrays have no rows, or not the same number of them.
        """
        given = (x, y, sample_weight)
        if y is None and sample_weight is not None:
            raise geometry.fail("Dataset.from_arrays", "y where there is sample_weight", "None")
        return _Arrays(
            tuple(_nest(one) for one in given if one is not None),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            threads=threads,
            prefetch=prefetch,
        )

    def __len__(self) -> int:
        """Batches in an epoch; one less for each of which every sample is left out."""
        rest = 0 if self.drop_last else self.batch_size - 1
        return (self.samples + rest) // self.batch_size

    def __iter__(self) -> _Epoch:
        self._newest = object()
        self._position, self._start = self._start, 0
        return _Epoch(self, self._newest, self._epoch, self._position)

    def order(self, epoch: int) -> np.ndarray:
        """The items' numbers in the order of an epoch, (samples,), int64."""
        if self.seed is None:
            return np.arange(self.samples)
        return shuffled(self.samples, self.seed, epoch)

    def state(self) -> dict[str, int | None]:
        """Where the loop begun last is, as numbers that JSON can hold.

        Returns:
            "epoch", from 0; "position", the batches of this epoch that the loop has been given; and
            "seed", "samples" and "batch_size", without which these mean something else.
        """
        numbers = (self._epoch, self._position, self.seed, self.samples, self.batch_size)
        return dict(zip(_STATE, numbers, strict=True))

    def restore(self, state: Mapping[str, int | None]) -> None:
        """Let the next loop go on where the state was taken, with the order that it then had.

        After the last batch of an epoch but before its end, that is a loop of no batches.

        Raises:
            ValueError: the state is not of a dataset like this one.
        """
        op = "Dataset.restore"
        if set(state) != set(_STATE):
            raise geometry.fail(op, f"a state with {', '.join(_STATE)}", sorted(state))
        for key, own in (("samples", self.samples), ("batch_size", self.batch_size)):
            if state[key] != own:
                raise geometry.fail(op, f"a state of a dataset with {key} {own}", state[key])
        if (state["seed"] is None) == self.shuffle:
            kind = "with" if self.shuffle else "without"
            raise geometry.fail(
                op, f"a state of a dataset {kind} shuffling", f"seed {state['seed']}"
            )
        epoch = geometry.integer(op, "epoch", state["epoch"], 0)
        position = geometry.integer(op, "position", state["position"], 0)
        if position > len(self):
            raise geometry.fail(op, f"a position of at most {len(self)} batches", position)
        self.seed = _seed(op, state["seed"]) if self.shuffle else None
        self._epoch, self._position, self._start = epoch, position, position
        self._newest = object()  # a loop that still runs no longer counts

    def as_arrays(self) -> Any:
        """All samples at once, in the order of the items: one batch of everything.

        Does not count as a loop: `state` stays as it is.

        Raises:
            ValueError: samples do not fit together, or all were left out.
        """
        batches = -(-self.samples // self.batch_size)
        stream = self._stream(np.arange(self.samples), 0, batches)
        whole: Any = None
        filled = 0
        try:
            for _ in range(batches):
                batch, left_out = stream.take()
                self.skipped.update(left_out)
                if batch is None:
                    continue
                parts = flatten(batch)
                kind = [(part.shape[1:], part.dtype) for part in parts]
                if whole is None:
                    whole, kinds = batch, kind
                    arrays = [np.empty((self.samples, *shape), dtype) for shape, dtype in kind]
                if kind != kinds:
                    raise geometry.fail(
                        "Dataset.as_arrays", f"samples of one kind, {_told(kinds)}", _told(kind)
                    )
                rows = len(parts[0])
                for array, part in zip(arrays, parts, strict=True):
                    array[filled : filled + rows] = part
                filled += rows
        finally:
            stream.close()
        self._warn()
        if whole is None:
            raise geometry.fail("Dataset.as_arrays", "a sample that can be loaded", "none")
        return _packed(whole, [array[:filled] for array in arrays])

    def _stream(self, order: np.ndarray, first: int, last: int) -> Prefetch:
        """Batches of (a batch or None, what was left out of it by name) in this order."""
        size = self.batch_size

        def rows(batch: int) -> np.ndarray:
            return order[batch * size : (batch + 1) * size]

        return Prefetch(
            first,
            last,
            parts=lambda batch: self._parts(rows(batch)),
            load=lambda batch, part: self._load(rows(batch), part),
            finish=lambda batch, parts: self._finish(rows(batch), parts),
            threads=self.threads,
            ahead=self.prefetch,
        )

    def _parts(self, rows: np.ndarray) -> int:
        return len(rows)

    def _load(self, rows: np.ndarray, part: int) -> Any:
        return self._make(self.items[rows[part]])

    def _finish(self, rows: np.ndarray, parts: list[Any]) -> tuple[Any, dict[str, str]]:
        left_out: dict[str, str] = {}
        kept, samples = [], []
        for row, sample in zip(rows, parts, strict=True):
            if not isinstance(sample, Failure):
                kept.append(row)
                samples.append(sample)
                continue
            name = self._name(self.items[row])
            if not isinstance(sample.error, self._skip):
                sample.error.add_note(f"Dataset: while loading {name}")
                raise sample.error
            reason = str(sample.error).removeprefix(f"{name}: ")
            left_out[name] = reason or type(sample.error).__name__
        if not samples:
            return None, left_out
        return _stacked(samples, lambda place: self._name(self.items[kept[place]])), left_out

    def _warn(self) -> None:
        """Tell of samples that were left out since the last time, for the caller's caller."""
        new = list(self.skipped.items())[self._warned :]
        self._warned = len(self.skipped)
        if not new:
            return
        named = "".join(f"\n  {name}: {reason}" for name, reason in new[:_NAMED])
        more = f"\n  and {len(new) - _NAMED} more, in `skipped`" if len(new) > _NAMED else ""
        warnings.warn(
            f"{self._op}: {len(new)} of {self.samples} samples were left out:{named}{more}",
            stacklevel=3,
        )


class _Arrays(Dataset):
    """Rows of arrays, a batch's at once.

    Args:
        arrays: for x, and for y and weights where there are, an array or a nest of them.
    """

    _op = "Dataset.from_arrays"

    def __init__(self, arrays: tuple[Any, ...], **options: Any) -> None:
        op = self._op
        self.arrays = arrays
        self._flat = flatten(arrays)
        if not all(array.ndim for array in self._flat):
            raise geometry.fail(op, "arrays with one row per sample", "a number")
        rows = [len(array) for array in self._flat]
        if len(set(rows)) != 1:
            raise geometry.fail(op, "arrays with as many rows each", ", ".join(map(str, rows)))
        if any(array.dtype.hasobject for array in self._flat):
            raise TypeError(f"{op}: expected arrays of numbers, got one of objects")
        super().__init__(range(rows[0]), int, **options)

    def _parts(self, rows: np.ndarray) -> int:
        return 1

    def _load(self, rows: np.ndarray, part: int) -> Any:
        # A slice of neighbours is read in one go, from a disk too.
        chosen = rows if self.shuffle else slice(int(rows[0]), int(rows[-1]) + 1)
        return [np.array(array[chosen]) for array in self._flat]

    def _finish(self, rows: np.ndarray, parts: list[Any]) -> tuple[Any, dict[str, str]]:
        (loaded,) = parts
        if isinstance(loaded, Failure):
            raise loaded.error
        batch = _packed(self.arrays, loaded)
        return (batch if len(batch) > 1 else batch[0]), {}


class _Epoch(Iterator[Any]):
    """The rest of an epoch, from a batch on; `close()` ends it and its threads."""

    def __init__(self, dataset: Dataset, token: object, epoch: int, first: int) -> None:
        self._dataset = dataset
        self._token = token  # not this object itself: without a cycle, `break` frees it at once
        self._epoch = epoch
        self._position = first
        self._last = len(dataset)
        self._order = dataset.order(epoch)
        self._stream: Prefetch | None = None
        self._over = False

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        try:
            while self._position < self._last:
                stream = self._stream
                if stream is None or stream.inherited:
                    stream = self._dataset._stream(self._order, self._position, self._last)
                    self._stream = stream
                    if self._over:  # closed by another thread, which found no stream yet
                        raise Closed
                batch, left_out = stream.take()
                self._position += 1
                self._dataset.skipped.update(left_out)
                self._report(self._epoch, self._position)
                if batch is not None:
                    return batch
        except BaseException as error:
            self.close()
            if isinstance(error, Closed):
                raise StopIteration from None
            if isinstance(error, StopIteration):  # of `load`; the loop would seem to be complete
                raise RuntimeError("Dataset: a sample's load raised StopIteration") from error
            raise
        self.close()
        self._report(self._epoch + 1, 0)
        self._dataset._warn()
        raise StopIteration

    def _report(self, epoch: int, position: int) -> None:
        if self._dataset._newest is self._token:
            self._dataset._epoch, self._dataset._position = epoch, position

    def close(self) -> None:
        """End the loop: no more batches come, threads go, and what they made is freed."""
        self._over = True
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _indexed(items: Iterable[Any]) -> Sequence[Any]:
    known = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    return items if known and not isinstance(items, Mapping) else list(items)  # type: ignore[return-value]


def _seed(op: str, seed: object) -> int:
    if seed is None:
        return draw_seed()
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{op}: expected seed to be an integer or None, got {seed!r}") from None
    if number < 0:
        raise geometry.fail(op, "a seed of 0 or more", number)
    return number


def _name(item: Any) -> str:
    return str(item) if isinstance(item, (str, os.PathLike)) else reprlib.repr(item)


def _nest(value: Any) -> Any:
    """An array, or a dictionary or list of them; a list of anything but arrays is an array."""
    if isinstance(value, dict):
        return {key: np.asarray(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, np.ndarray) for v in value):
        return list(value)
    return np.asarray(value)


def _packed(form: Any, arrays: Iterable[np.ndarray]) -> Any:
    """Arrays in the form of a sample or batch: x, or a tuple that begins with it."""
    return tuple(pack(list(form), arrays)) if isinstance(form, tuple) else pack(form, arrays)


def _stacked(samples: list[Any], name: Callable[[int], str]) -> Any:
    """A batch of samples, of which each is x, or a tuple that begins with it.

    Args:
        name: of the sample at a place, for messages.
    """
    forms = [
        tuple(map(_nest, sample)) if isinstance(sample, tuple) else _nest(sample)
        for sample in samples
    ]
    arrays = [flatten(form) for form in forms]
    kinds = [[(array.shape, array.dtype) for array in sample] for sample in arrays]
    for place, (form, kind) in enumerate(zip(forms, kinds, strict=True)):
        if kind != kinds[0] or _keys(form) != _keys(forms[0]):
            raise geometry.fail(
                "Dataset",
                f"samples of one kind in a batch, {_told(kinds[0])} as {name(0)}",
                f"{_told(kind)} for {name(place)}",
            )
    if any(array.dtype.hasobject for array in arrays[0]):
        raise TypeError(f"Dataset: expected samples of numbers, got objects for {name(0)}")
    return _packed(forms[0], [np.stack(column) for column in zip(*arrays, strict=True)])


def _keys(form: Any) -> Any:
    """What tells one nest from another, beside its arrays."""
    if isinstance(form, dict):
        return list(form)
    if isinstance(form, (list, tuple)):
        return [_keys(part) for part in form]
    return None


def _told(kind: list[tuple[Any, Any]]) -> str:
    return ", ".join(f"{shape} of {dtype}" for shape, dtype in kind)
