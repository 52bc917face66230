"""The order of an epoch: permutations that follow from a seed, and what `fit` does with them."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest

import convkit
from convkit import Input, Model, Sequential, callbacks, layers
from convkit.graph import Symbol
from convkit.program import Program, gather


class Shuffler:
    """A program that gathers n rows of one byte."""

    def __init__(self, n: int) -> None:
        self.x = Symbol((None,), "uint8", place="source")
        self.index = Symbol((None,), "int64", place="fed")
        self.y = gather(self.x, self.index, "float32")
        self.program = Program("float32", results=[self.y])
        self.order = np.full(n, -1, np.int64)
        self.source = np.arange(n).astype(np.uint8)
        self.rows = np.zeros(n, np.float32)
        self.bind()

    def bind(self) -> None:
        for symbol, array in ((self.x, self.source), (self.index, self.order), (self.y, self.rows)):
            self.program.bind(symbol, array)

    def __call__(self, seed: int) -> np.ndarray:
        """The order that a run without samples fills."""
        self.program.run(0, 0, 1, shuffle=seed)
        return self.order


def off_by(counts: np.ndarray, expected: float) -> float:
    """How far chi-square is from its mean, in standard deviations, for counts of equal chances."""
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return float((chi_square - freedom) / np.sqrt(2 * freedom))


# ---- permutations ------------------------------------------------------------------------------


def test_every_number_of_rows_up_to_300_is_permuted():
    for n in range(301):
        shuffler = Shuffler(n)
        for seed in (0, 1, 2**64 - 1):
            np.testing.assert_array_equal(np.sort(shuffler(seed)), np.arange(n))


@pytest.mark.parametrize(
    "n", [1021, 4093, 65521, 1000003, *(2**k + d for k in (9, 12, 16, 20) for d in (-1, 0, 1))]
)
def test_many_rows_are_permuted(n):
    shuffler = Shuffler(n)
    order = shuffler(n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    assert np.count_nonzero(order == np.arange(n)) < 10  # one on average
    before = order.copy()
    assert np.count_nonzero(shuffler(n + 1) == before) < 10


def test_an_order_is_the_same_wherever_it_is_made():
    assert Shuffler(12)(1).tolist() == [10, 0, 2, 8, 6, 5, 9, 3, 1, 11, 7, 4]
    assert Shuffler(1000)(2**62)[:8].tolist() == [783, 374, 837, 890, 643, 517, 903, 861]


@pytest.mark.parametrize("n", [1000, 100_003])
def test_an_order_does_not_depend_on_the_number_of_threads(threads, n):
    made = []
    for count in (1, 2, 3):
        threads(count)
        made.append(Shuffler(n)(7).tobytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_a_few_rows_are_as_likely(n):
    seeds = 20_000
    shuffler = Shuffler(n)
    seen = Counter(tuple(shuffler(seed)) for seed in range(seeds))
    counts = np.array([seen[order] for order in permutations(range(n))])
    assert counts.sum() == seeds
    assert abs(off_by(counts, seeds / counts.size)) < 4


@pytest.mark.parametrize(("n", "seeds"), [(7, 20_000), (10, 20_000), (64, 8_000), (300, 2_000)])
def test_every_row_comes_at_every_place_and_behind_every_other_as_often(n, seeds):
    shuffler = Shuffler(n)
    at = np.zeros((n, n))
    behind = np.zeros((n, n))
    places = np.arange(n)
    for seed in range(seeds):
        order = shuffler(seed)
        at[places, order] += 1
        behind[order[:-1], order[1:]] += 1
    assert abs(off_by(at[0], seeds / n)) < 4
    assert abs(off_by(at, seeds / n)) < 4
    assert abs(off_by(behind[~np.eye(n, dtype=bool)], seeds / n)) < 4


@pytest.mark.parametrize("n", [1000, 60_000, 65_536])
def test_neighbours_and_seeds_are_not_correlated(n):
    shuffler = Shuffler(n)
    orders = [np.arange(n), *(shuffler(seed).copy() for seed in range(8))]
    bound = 5 / np.sqrt(n)
    for order in orders[1:]:
        for lag in (1, 2, 3, 16, 128):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < bound
    for one, other in pairwise(orders):
        assert abs(np.corrcoef(one, other)[0, 1]) < bound


# ---- runs --------------------------------------------------------------------------------------


def test_rows_are_gathered_in_the_order_that_the_run_made():
    shuffler = Shuffler(50)
    assert shuffler.program.run(0, 50, 16, shuffle=3) == 50
    np.testing.assert_array_equal(shuffler.rows, shuffler.order)


def test_a_seed_fills_the_whole_order_wherever_the_run_begins_and_none_leaves_it():
    shuffler = Shuffler(50)
    order = shuffler(3).copy()
    assert shuffler.program.run(0, 20, 16) == 20
    np.testing.assert_array_equal(shuffler.order, order)
    assert shuffler.program.run(20, 50, 16, shuffle=4) == 50
    assert shuffler.order.tolist() != order.tolist()
    np.testing.assert_array_equal(shuffler.rows[:20], order[:20])
    np.testing.assert_array_equal(shuffler.rows[20:], shuffler.order[20:])
    shuffler.order[10] = 50
    with pytest.raises(IndexError, match="index 50 is outside the 50 rows"):
        shuffler.program.run(0, 50, 16)
    assert shuffler.program.run(0, 50, 16, shuffle=4) == 50


def test_a_read_only_index_is_only_read():
    shuffler = Shuffler(5)
    shuffler.order[:] = [4, 2, 0, 1, 3]
    shuffler.order.flags.writeable = False
    shuffler.bind()
    with pytest.raises(ValueError, match="program: expected an index that can be written"):
        shuffler.program.run(0, 5, 5, shuffle=1)
    assert shuffler.order.tolist() == [4, 2, 0, 1, 3]
    assert shuffler.program.run(0, 5, 5) == 5
    assert shuffler.rows.tolist() == [4, 2, 0, 1, 3]


def test_an_index_with_more_rows_than_its_source_is_refused():
    shuffler = Shuffler(5)
    shuffler.program.bind(shuffler.x, shuffler.source[:4].copy())
    with pytest.raises(ValueError, match="at most the 4 rows of its source, got 5"):
        shuffler.program.run(0, 5, 5, shuffle=1)
    assert shuffler.order.tolist() == [-1] * 5
    shuffler.program.bind(shuffler.x, np.arange(9, dtype=np.uint8))
    shuffler.program.run(0, 5, 5, shuffle=1)
    assert sorted(shuffler.rows) == [0, 1, 2, 3, 4]


def test_a_program_without_an_index_has_nothing_to_shuffle():
    x = Symbol((None,), "uint8", place="fed")
    y = gather(x, None, "float32")
    program = Program("float32", results=[y])
    program.bind(x, np.zeros(3, np.uint8))
    program.bind(y, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="expected an index of rows to shuffle, got none"):
        program.run(0, 3, 3, shuffle=1)


def test_an_index_that_is_not_bound_is_told():
    shuffler = Shuffler(5)
    with shuffler.program.bound((shuffler.index, shuffler.order)):
        pass
    with pytest.raises(ValueError, match="a value was never bound"):
        shuffler.program.run(0, 5, 5, shuffle=1)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "1"])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(TypeError):
        Shuffler(5)(seed)


def test_ctrl_c_ends_a_long_shuffle(threads):
    threads(1)
    shuffler = Shuffler(2**24)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(3):  # other processes may keep the signal waiting until the end
            shuffler.order[:] = -1
            timer = threading.Timer(0.01, signal.raise_signal, (signal.SIGINT,))
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                timer.start()
                shuffler(1)
                timer.join()
            timer.join()
            if -1 in shuffler.order:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert -1 in shuffler.order
    assert -1 not in shuffler(1)


# ---- fit ---------------------------------------------------------------------------------------


class Weights(callbacks.Callback):
    """The weights after each batch."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.seen.append(b"".join(w.tobytes() for w in self.model.get_weights()))


def fitted(seed: int, **options: object) -> tuple[Model, Weights]:
    convkit.utils.set_random_seed(0)
    model = Sequential([Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile("adam", "mse")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(100, 6)), rng.normal(size=(100, 1))
    convkit.utils.set_random_seed(seed)
    weights = Weights()
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[weights], **options)
    return model, weights


def test_fit_goes_by_the_seed_alone(threads):
    threads(1)
    first = fitted(1)[1].seen
    assert len(set(first)) == 14
    for count in (1, 2, 3):
        threads(count)
        assert fitted(1)[1].seen == first
    assert not set(fitted(2)[1].seen) & set(first)


def test_fit_without_shuffling_needs_no_seed():
    assert fitted(1, shuffle=False)[1].seen == fitted(2, shuffle=False)[1].seen
