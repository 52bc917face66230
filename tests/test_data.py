"""convkit.data.Dataset: batches in order whatever the threads, bounded, closed, forked, resumed."""

from __future__ import annotations

import gc
import itertools
import json
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from processes import output_of

import convkit
from convkit.data import Dataset
from convkit.prefetch import Prefetch

THREADS = [0, 1, 4]


def sample(item: int) -> tuple[np.ndarray, int]:
    return np.full((2, 3), item, np.float32), item


def late(item: int) -> tuple[np.ndarray, int]:
    """A sample that takes now more, now less time, so that threads overtake each other."""
    time.sleep(random.random() / 2000)
    return sample(item)


def labels(dataset: Dataset) -> list[list[int]]:
    return [y.tolist() for _, y in dataset]


def running() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("convkit-data")]


def no_threads_left() -> bool:
    until = time.monotonic() + 10
    while running() and time.monotonic() < until:
        time.sleep(0.002)
    return not running()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    if running():
        gc.collect()  # what a test's error holds
    assert no_threads_left()


# --- Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
def test_batches_of_items(threads):
    dataset = Dataset(range(10), sample, batch_size=4, threads=threads)
    assert len(dataset) == 3
    batches = list(dataset)
    assert [x.shape for x, _ in batches] == [(4, 2, 3), (4, 2, 3), (2, 2, 3)]
    assert all(x.dtype == np.float32 and x.flags.writeable for x, _ in batches)
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for x, y in batches:
        np.testing.assert_array_equal(x, np.broadcast_to(y[:, None, None], x.shape))


def test_drop_last():
    dataset = Dataset(range(10), sample, batch_size=4, drop_last=True)
    assert len(dataset) == 2
    assert labels(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(Dataset(range(8), sample, batch_size=4, drop_last=True)) == 2
    with pytest.raises(ValueError, match="a full batch of 4 with drop_last=True, got 3 items"):
        Dataset(range(3), sample, batch_size=4, drop_last=True)


def test_same_bits_for_any_number_of_threads():
    def epochs(threads: int, prefetch: int) -> list:
        dataset = Dataset(
            range(103), late, batch_size=8, shuffle=True, seed=5, threads=threads, prefetch=prefetch
        )
        return [(x.tobytes(), y.tobytes()) for _ in range(3) for x, y in dataset]

    expected = epochs(0, 1)
    assert len(expected) == 3 * 13
    for threads, prefetch in [(1, 1), (1, 3), (2, 2), (4, 1), (4, 2), (16, 5)]:
        assert epochs(threads, prefetch) == expected


def test_order_is_a_function_of_seed_and_epoch():
    dataset = Dataset(range(50), sample, batch_size=50, shuffle=True, seed=3)
    orders = [labels(dataset)[0] for _ in range(4)]
    assert [sorted(order) for order in orders] == [list(range(50))] * 4
    assert len({tuple(order) for order in orders}) == 4
    assert [dataset.order(epoch).tolist() for epoch in range(4)] == orders
    other = Dataset(range(50), sample, batch_size=50, shuffle=True, seed=4)
    assert other.order(0).tolist() != orders[0]
    # Any version of NumPy, and any machine.
    short = Dataset(range(8), sample, shuffle=True, seed=1)
    assert short.order(0).tolist() == ORDER_OF_8
    assert Dataset(range(3), sample).order(7).tolist() == [0, 1, 2]


ORDER_OF_8 = [2, 0, 1, 4, 5, 6, 7, 3]


def test_seed_comes_from_the_process():
    convkit.utils.set_random_seed(7)
    first = Dataset(range(20), sample, shuffle=True)
    second = Dataset(range(20), sample, shuffle=True)
    convkit.utils.set_random_seed(7)
    again = Dataset(range(20), sample, shuffle=True)
    assert first.seed == again.seed != second.seed
    assert Dataset(range(20), sample, seed=3).seed is None


def test_kinds_of_samples():
    def batch(load, count=3):
        (only,) = Dataset(range(count), load, threads=2)
        return only

    x = batch(lambda item: np.full(2, item, np.uint8))
    np.testing.assert_array_equal(x, np.array([[0, 0], [1, 1], [2, 2]], np.uint8), strict=True)
    np.testing.assert_array_equal(batch(lambda item: [item, 1.5]), [[0, 1.5], [1, 1.5], [2, 1.5]])
    x, y, weight = batch(lambda item: (np.zeros(2), item, 0.5))
    assert (x.shape, y.tolist(), weight.tolist()) == ((3, 2), [0, 1, 2], [0.5] * 3)

    x, y = batch(lambda item: ([np.ones(2), np.zeros((3, 1))], {"b": item, "a": np.ones(4)}))
    assert isinstance(x, list) and [one.shape for one in x] == [(3, 2), (3, 3, 1)]
    assert y["b"].tolist() == [0, 1, 2] and y["a"].shape == (3, 4)
    # The order in which a dictionary was filled is no part of it.
    both = [{"a": np.zeros(2), "b": np.ones(2)}, {"b": np.ones(2), "a": np.zeros(2)}]
    x = batch(lambda item: both[item], 2)
    assert (x["a"] == 0).all() and (x["b"] == 1).all()


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    "other",
    [
        (np.zeros(4), 0),
        (np.zeros(3, np.float32), 0),
        (np.zeros(3), 0.0),
        (np.zeros(3), 0, 1),
        np.zeros(3),
        ({"x": np.zeros(3)}, 0),
    ],
    ids=["shape", "dtype", "label", "longer", "shorter", "nest"],
)
def test_samples_that_do_not_fit_together(threads, other):
    def load(item: int):
        return other if item == 5 else (np.zeros(3), 0)

    with pytest.raises(ValueError, match=r"Dataset: expected samples of one kind .* for 5$"):
        list(Dataset(range(8), load, batch_size=8, threads=threads))


def test_samples_of_objects():
    with pytest.raises(TypeError, match="expected samples of numbers, got objects for 0"):
        list(Dataset([0], lambda item: {1, 2}))


# --- Arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_from_arrays(threads, shuffle):
    x = np.arange(44, dtype=np.uint8).reshape(11, 4)
    y = np.arange(11)
    dataset = Dataset.from_arrays(x, y, batch_size=4, shuffle=shuffle, seed=1, threads=threads)
    assert (len(dataset), dataset.samples) == (3, 11)
    for epoch in range(2):
        order = dataset.order(epoch)
        batches = list(dataset)
        got_x, got_y = (np.concatenate(part) for part in zip(*batches, strict=True))
        np.testing.assert_array_equal(got_x, x[order], strict=True)
        np.testing.assert_array_equal(got_y, y[order], strict=True)
    batches[0][0][...] = 0  # batches are copies
    assert x[5, 0] == 20
    whole_x, whole_y = dataset.as_arrays()
    np.testing.assert_array_equal(whole_x, x, strict=True)
    np.testing.assert_array_equal(whole_y, y, strict=True)


def test_from_arrays_of_many_kinds(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(6, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (batch,) = Dataset.from_arrays(mapped)
    assert type(batch) is np.ndarray and batch.shape == (6, 2)
    ((a, b), y, w) = next(iter(Dataset.from_arrays([mapped, np.zeros(6)], range(6), np.ones(6))))
    assert a.shape == (6, 2) and b.shape == w.shape == (6,) and y.tolist() == list(range(6))
    (named, y) = next(iter(Dataset.from_arrays({"b": mapped, "a": np.zeros(6)}, [0] * 6)))
    assert named["b"].shape == (6, 2) and named["a"].shape == y.shape == (6,)


def test_from_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match="arrays with as many rows each, got 3, 4"):
        Dataset.from_arrays(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="one row per sample"):
        Dataset.from_arrays(np.float32(1))
    with pytest.raises(ValueError, match="at least one item"):
        Dataset.from_arrays(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="expected y where there is sample_weight"):
        Dataset.from_arrays(np.zeros(3), sample_weight=np.ones(3))
    with pytest.raises(TypeError, match="arrays of numbers"):
        Dataset.from_arrays(np.array([None, {}]))


@pytest.mark.parametrize("threads", THREADS)
def test_as_arrays(threads):
    dataset = Dataset(range(10), late, batch_size=4, shuffle=True, seed=1, threads=threads)
    before = dataset.state()
    x, y = dataset.as_arrays()
    assert x.shape == (10, 2, 3) and y.tolist() == list(range(10))
    assert dataset.state() == before
    cut = Dataset(range(10), sample, batch_size=4, drop_last=True, threads=threads)
    assert cut.as_arrays()[1].tolist() == list(range(10))
    with pytest.raises(ValueError, match=r"as_arrays: expected samples of one kind, \(0,\) of"):
        Dataset(range(3), np.zeros, batch_size=1, threads=threads).as_arrays()


# --- Memory and threads --------------------------------------------------------------------------


class Living:
    """Makes samples, and counts those that are alive."""

    def __init__(self) -> None:
        self.now = self.most = self.made = 0
        self.lock = threading.Lock()

    def __call__(self, item: int) -> np.ndarray:
        x = np.zeros(5)
        with self.lock:
            self.made += 1
            self.now += 1
            self.most = max(self.most, self.now)
        weakref.finalize(x, self._gone)
        return x

    def _gone(self) -> None:
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_few_samples_are_alive(threads, prefetch):
    living = Living()
    dataset = Dataset(range(400), living, batch_size=10, threads=threads, prefetch=prefetch)
    for number, x in enumerate(dataset, 1):
        assert len(x) == 10
        if number % 10 == 1:
            time.sleep(0.02)  # threads get as far ahead as they may
        assert living.made <= 10 * (number + prefetch)
    assert living.most <= 10 * prefetch
    assert living.made == 400
    gc.collect()
    assert living.now == 0


def test_threads_run_ahead_no_further_than_allowed():
    living = Living()
    batches = iter(Dataset(range(100), living, batch_size=5, threads=3, prefetch=2))
    next(batches)
    time.sleep(0.1)
    assert living.made == 15  # the one taken and two ahead
    assert len(running()) == 3
    batches.close()


def test_threads_load_at_the_same_time():
    together = threading.Barrier(4, timeout=10)

    def load(item: int) -> int:
        together.wait()
        return item

    assert [x.tolist() for x in Dataset(range(8), load, batch_size=2, threads=4, prefetch=2)] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]


@pytest.mark.parametrize("threads", THREADS)
def test_break_ends_the_threads(threads):
    living = Living()
    for _ in Dataset(range(10_000), living, batch_size=2, threads=threads):
        assert len(running()) == threads
        break
    assert no_threads_left()
    made = living.made
    time.sleep(0.01)
    assert living.made == made <= 6


def test_close_does_not_wait_for_a_sample():
    leave = threading.Event()
    batches = iter(Dataset(range(10), lambda item: leave.wait(60), batch_size=1, threads=2))
    got = []
    reader = threading.Thread(target=lambda: got.append(next(batches, "over")))
    reader.start()
    while not running():
        time.sleep(0.001)
    batches.close()
    reader.join(10)
    assert got == ["over"] and next(batches, "over") == "over"
    leave.set()


def test_close_ends_the_iterator():
    batches = iter(Dataset(range(10), sample, batch_size=1))
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []


def test_iterator_that_is_forgotten_in_a_cycle():
    batches = iter(Dataset(range(100), sample, batch_size=1, threads=2))
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    assert len(running()) == 2
    del batches, cycle
    gc.collect()
    assert no_threads_left()


def test_iterator_that_was_never_used_has_no_threads():
    batches = iter(Dataset(range(10), sample))
    assert running() == []
    del batches


def test_loops_inside_loops():
    dataset = Dataset(range(4), sample, batch_size=2, shuffle=True, seed=1, threads=2)
    first = labels(dataset)
    for _, y in dataset:
        inner = labels(dataset)
        assert len(inner) == 2 and inner != [y.tolist()] * 2
    assert sorted(itertools.chain(*first)) == [0, 1, 2, 3]
    pairs = list(zip(dataset, dataset, strict=True))
    assert all(np.array_equal(a[1], b[1]) for a, b in pairs)  # both of the same epoch


# --- Errors --------------------------------------------------------------------------------------


def failing(item: int) -> tuple[np.ndarray, int]:
    if item in (6, 7):
        time.sleep(0.01 if item == 6 else 0)
        raise KeyError(f"no {item}")
    return sample(item)


@pytest.mark.parametrize("threads", THREADS)
def test_errors_reach_the_reader_with_the_name(threads):
    dataset = Dataset(range(20), failing, batch_size=4, threads=threads)
    got = []
    for _ in range(2):  # the loop after it begins the epoch again
        batches = iter(dataset)
        got.append(next(batches)[1].tolist())
        with pytest.raises(KeyError, match="no 6") as caught:
            next(batches)
        assert caught.value.__notes__ == ["Dataset: while loading 6"]
        assert "failing" in [entry.name for entry in caught.traceback]
        with pytest.raises(StopIteration):
            next(batches)
        assert no_threads_left()
    assert got == [[0, 1, 2, 3]] * 2
    assert dataset.state()["position"] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_errors_of_all_kinds(error):
    def load(item: int) -> int:
        raise error

    with pytest.raises(error):
        list(Dataset(range(3), load, threads=2, skip=(ValueError,)))


@pytest.mark.parametrize("threads", THREADS)
def test_stop_iteration_is_an_error_too(threads):
    nothing = iter(())
    with pytest.raises(RuntimeError, match="load raised StopIteration") as caught:
        list(Dataset(range(3), lambda item: next(nothing), threads=threads))
    assert caught.value.__cause__.__notes__ == ["Dataset: while loading 0"]


def test_names_of_items(tmp_path):
    def load(item: object) -> None:
        raise ValueError("bad")

    for item, name in [
        (tmp_path, str(tmp_path)),
        ("a.png", "a.png"),
        (("b", 3), "('b', 3)"),
    ]:
        with pytest.raises(ValueError, match="bad") as caught:
            list(Dataset([item], load))
        assert caught.value.__notes__ == [f"Dataset: while loading {name}"]
    with pytest.raises(ValueError, match="bad") as caught:
        list(Dataset([np.zeros(10_000)], load))
    assert len(caught.value.__notes__[0]) < 100
    with pytest.raises(ValueError, match="bad") as caught:
        list(Dataset([("c.png", 3)], load, name=lambda item: item[0]))
    assert caught.value.__notes__ == ["Dataset: while loading c.png"]


def test_a_thread_that_breaks_down_is_noticed():
    def parts(batch: int) -> int:
        raise MemoryError("nothing left")

    stream = Prefetch(0, 3, parts, lambda batch, part: 0, lambda batch, parts: 0, 2, 1)
    with pytest.raises(MemoryError, match="nothing left"):
        stream.take()
    stream.close()


def test_threads_that_cannot_be_started(monkeypatch):
    start = threading.Thread.start
    started = []

    def second_fails(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start"):
        list(Dataset(range(100), sample, threads=3))
    assert no_threads_left()


@pytest.mark.parametrize("threads", THREADS)
def test_skip(threads):
    def load(item: int) -> tuple[np.ndarray, int]:
        if item in (1, 4, 5, 6, 7):
            raise ValueError("torn" if item != 5 else "")
        return late(item)

    dataset = Dataset(range(10), load, batch_size=4, threads=threads, skip=(ValueError,))
    with pytest.warns(UserWarning, match=r"Dataset: 5 of 10 samples were left out") as told:
        assert labels(dataset) == [[0, 2, 3], [8, 9]]
    assert told[0].filename == __file__
    text = str(told[0].message)
    assert text.splitlines()[1:] == [
        "  1: torn",
        "  4: torn",
        "  5: ValueError",
        "  6: torn",
        "  7: torn",
    ]
    assert list(dataset.skipped) == ["1", "4", "5", "6", "7"]
    assert dataset.skipped["1"] == "torn"
    assert dataset.state()["epoch"] == 1
    assert labels(dataset) == [[0, 2, 3], [8, 9]]  # nothing new to tell
    assert dataset.as_arrays()[1].tolist() == [0, 2, 3, 8, 9]


def test_skip_tells_of_what_is_new_and_names_no_more_than_twenty():
    bad = set(range(30))

    def load(item: int) -> int:
        if item in bad:
            raise ValueError("torn")
        return item

    dataset = Dataset(range(40), load, batch_size=8, skip=(ValueError,))
    with pytest.warns(UserWarning, match="30 of 40 samples") as told:
        whole = dataset.as_arrays()
    assert told[0].filename == __file__
    assert whole.tolist() == list(range(30, 40))
    assert "  19: torn\n  and 10 more, in `skipped`" in str(told[0].message)
    bad.add(33)
    with pytest.warns(UserWarning, match="1 of 40 samples were left out:\n  33: torn$"):
        list(dataset)
    bad.update(range(40))
    with (
        pytest.warns(UserWarning, match="9 of 40"),
        pytest.raises(ValueError, match="a sample that can be loaded, got none"),
    ):
        dataset.as_arrays()
    assert list(dataset) == []


def test_other_errors_are_not_skipped():
    dataset = Dataset(range(20), failing, batch_size=4, skip=(ValueError,))
    with pytest.raises(KeyError):
        list(dataset)
    assert dataset.skipped == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "Dataset: expected batch_size to be at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size to be an integer"),
        ({"threads": -1}, ValueError, "threads to be at least 0"),
        ({"prefetch": 0}, ValueError, "prefetch to be at least 1"),
        ({"shuffle": True, "seed": -1}, ValueError, "a seed of 0 or more"),
        ({"shuffle": True, "seed": "x"}, TypeError, "seed to be an integer or None"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        Dataset(range(3), sample, **options)


def test_items_of_any_kind():
    assert labels(Dataset((i for i in range(3)), sample)) == [[0, 1, 2]]
    assert labels(Dataset({5: "a", 7: "b"}, sample)) == [[5, 7]]
    assert labels(Dataset(np.arange(3), sample)) == [[0, 1, 2]]
    with pytest.raises(ValueError, match="at least one item"):
        Dataset([], sample)


# --- State ---------------------------------------------------------------------------------------


def pairs_of(batches) -> list[bytes]:
    return [x.tobytes() + y.tobytes() for x, y in batches]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("taken", range(4))
def test_state_and_restore(threads, taken):
    def make() -> Dataset:
        return Dataset(range(11), late, batch_size=4, shuffle=True, threads=threads)

    whole = make()
    list(whole)
    start = whole.state()
    expected = [pairs_of(whole) for _ in range(3)]

    stopped = make()
    stopped.restore(start)
    batches = iter(stopped)
    first = pairs_of(itertools.islice(batches, taken))
    saved = json.loads(json.dumps(stopped.state()))
    assert (saved["epoch"], saved["position"]) == (1, taken)
    batches.close()
    assert stopped.state() == saved

    resumed = make()
    resumed.restore(saved)
    assert resumed.state() == saved
    assert first + pairs_of(resumed) == expected[0]
    assert pairs_of(resumed) == expected[1]
    assert pairs_of(resumed) == expected[2]
    assert resumed.state()["epoch"] == 4


def test_a_loop_that_was_left_begins_again_or_goes_on():
    dataset = Dataset(range(6), sample, batch_size=2)
    for _ in dataset:
        break
    assert dataset.state()["position"] == 1
    assert labels(dataset) == [[0, 1], [2, 3], [4, 5]]
    for _ in dataset:
        break
    dataset.restore(dataset.state())
    assert labels(dataset) == [[2, 3], [4, 5]]
    assert labels(dataset) == [[0, 1], [2, 3], [4, 5]]
    assert dataset.state() == {
        "epoch": 3,
        "position": 0,
        "seed": None,
        "samples": 6,
        "batch_size": 2,
    }


def test_state_tells_of_the_newest_loop():
    dataset = Dataset(range(6), sample, batch_size=2)
    old = iter(dataset)
    next(old)
    new = iter(dataset)
    assert dataset.state()["position"] == 0
    list(old)
    assert dataset.state()["position"] == 0 and dataset.state()["epoch"] == 0
    next(new)
    assert dataset.state()["position"] == 1
    dataset.restore({**dataset.state(), "epoch": 9})
    next(new)
    assert dataset.state()["position"] == 1 and dataset.state()["epoch"] == 9
    new.close()


def test_state_of_another_dataset():
    dataset = Dataset(range(6), sample, batch_size=2)
    state = dataset.state()
    shuffled = Dataset(range(6), sample, batch_size=2, shuffle=True)
    for change, message in [
        ({"samples": 7}, "a dataset with samples 6, got 7"),
        ({"batch_size": 3}, "batch_size 2, got 3"),
        ({"seed": 1}, "a dataset without shuffling, got seed 1"),
        ({"position": 4}, "at most 3 batches, got 4"),
        ({"epoch": -1}, "epoch to be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            dataset.restore({**state, **change})
    with pytest.raises(ValueError, match="a state with epoch, position"):
        dataset.restore({"epoch": 1})
    with pytest.raises(ValueError, match="a dataset with shuffling, got seed None"):
        shuffled.restore(state)
    with pytest.raises(TypeError, match="epoch to be an integer"):
        dataset.restore({**state, "epoch": None})
    assert dataset.state() == state


def test_pickle():
    dataset = Dataset(range(6), sample, batch_size=2, shuffle=True, seed=3)
    list(dataset)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.state() == dataset.state()
    assert labels(copy) == labels(dataset)


# --- Processes -----------------------------------------------------------------------------------

START = """if True:
    import gc, os, sys, time
    import numpy as np
    from convkit.data import Dataset
    def load(item):
        time.sleep(SECONDS if item >= 8 else 0)
        return np.full(3, item), item
    def labels(batches):
        return [y.tolist() for _, y in batches]
"""


def test_ctrl_c_ends_a_reader_that_waits(tmp_path):
    code = START.replace("SECONDS", "60") + (
        "    data = Dataset(range(100), load, batch_size=4, threads=2)\n"
        "    try:\n"
        "        for x, y in data:\n"
        "            print(y.tolist(), flush=True)\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped', data.state()['position'], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "[0, 1, 2, 3]\n"
    assert process.stdout.readline() == "[4, 5, 6, 7]\n"
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "stopped 2\n"
    assert process.wait(30) == 0
    assert time.monotonic() - start < 20
    process.stdout.close()


@pytest.mark.parametrize("end", ["", "sys.exit()", "raise SystemExit", "gc.collect(); sys.exit()"])
def test_no_hang_at_exit(tmp_path, end):
    code = START.replace("SECONDS", "60") + (
        "    batches = iter(Dataset(range(100), load, batch_size=4, threads=3))\n"
        "    print(next(batches)[1].tolist(), next(batches)[1].tolist())\n"
        f"    {end}\n"
    )
    start = time.monotonic()
    assert output_of(code, tmp_path) == "[0, 1, 2, 3] [4, 5, 6, 7]"
    assert time.monotonic() - start < 30


def test_exit_with_threads_that_are_idle_is_quick_and_silent(tmp_path):
    code = START.replace("SECONDS", "0") + (
        "    streams = [iter(Dataset(range(1000), load, batch_size=4)) for _ in range(5)]\n"
        "    for one in streams: next(one)\n"
        "    time.sleep(0.1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fork(tmp_path):
    code = START.replace("SECONDS", "0.001") + (
        "    data = Dataset(range(100), load, batch_size=4, shuffle=True, seed=1, threads=4)\n"
        "    expected = labels(data)\n"
        "    second = data.order(1).reshape(-1, 4).tolist()\n"
        "    batches = iter(data)\n"
        "    assert labels([next(batches) for _ in range(3)]) == second[:3]\n"
        "    children = []\n"
        "    for _ in range(4):\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            assert labels(batches) == second[3:]  # goes on with threads of its own\n"
        "            assert sorted(sum(labels(data), [])) == list(range(100))\n"
        "            os._exit(0)\n"
        "        children.append(child)\n"
        "    for _ in range(2):\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            batches.close(); del batches; gc.collect()\n"
        "            sys.exit(7)  # with everything that a process does at its end\n"
        "        children.append(child)\n"
        "    assert labels(batches) == second[3:]\n"
        "    print([os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children])\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.stdout) == ("", "[0, 0, 0, 0, 7, 7]\n")


def test_import_of_convkit_loads_neither_data_nor_pillow(tmp_path):
    code = (
        "import sys, convkit, convkit.datasets\n"
        "print([m for m in sys.modules if m in ('PIL', 'convkit.data', 'convkit.prefetch')])\n"
        "convkit.data.Dataset\n"
        "print('PIL' in sys.modules)\n"
    )
    assert output_of(code, tmp_path).splitlines() == ["[]", "False"]
