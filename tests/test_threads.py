"""Threads: how many there are, forks after them, and the same bits for any number."""

from __future__ import annotations

import os

import numpy as np
import pytest
from processes import output_of

import convkit
from convkit import ops

# What runs before and after a fork: a convolution, and a model's program, on two threads.
WORK = """
import os
import numpy as np
import convkit
from convkit import ops
convkit.set_num_threads(2)
rng = np.random.default_rng(0)
x = rng.normal(size=(16, 28, 28, 3)).astype(np.float32)
kernel = rng.normal(size=(5, 5, 3, 16)).astype(np.float32)
convkit.utils.set_random_seed(0)
model = convkit.models.lenet()
model.compile("adam", "sparse_categorical_crossentropy")
images, labels = rng.random((64, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, 64)
def work(_=None):
    dx, dkernel, _ = ops.conv2d_backward(ops.conv2d(x, kernel), x, kernel)
    return dx.tobytes() + dkernel.tobytes() + model.predict(images).tobytes()
"""


def test_a_forked_child_computes_the_same_bits_and_does_not_hang(tmp_path):
    code = (
        WORK
        + """
expected = work()  # the parent's threads have started
def child_of_this():
    child = os.fork()
    if child == 0:
        same = work() == expected
        model.fit(images, labels, verbose=0)
        os._exit(0 if same else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
codes = [child_of_this(), child_of_this()]
child = os.fork()
if child == 0:
    os._exit(child_of_this())  # a child of a child
codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes, work() == expected)
"""
    )
    assert output_of(code, tmp_path, OMP_NUM_THREADS="2") == "[0, 0, 0] True"


def test_a_child_forked_before_any_thread_started_works_too(tmp_path):
    code = (
        WORK
        + """
child = os.fork()
if child == 0:
    work()
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
work()
print(code)
"""
    )
    assert output_of(code, tmp_path, OMP_NUM_THREADS="2") == "0"


def test_a_pool_of_forked_processes_works(tmp_path):
    code = (
        WORK
        + """
import multiprocessing
expected = work()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print([found == expected for found in pool.map(work, range(4))])
"""
    )
    assert output_of(code, tmp_path, OMP_NUM_THREADS="2") == "[True, True, True, True]"


def test_a_fork_from_another_thread_works(tmp_path):
    code = (
        WORK
        + """
import threading
expected = work()
found = []
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0 if work() == expected else 1)
    found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread = threading.Thread(target=fork)
thread.start()
thread.join()
print(found)
"""
    )
    assert output_of(code, tmp_path, OMP_NUM_THREADS="2") == "[0]"


COUNT = "import convkit; print(convkit.get_num_threads())"


def test_omp_num_threads_is_a_limit(tmp_path):
    most = int(output_of(COUNT, tmp_path, OMP_NUM_THREADS=""))
    assert 1 <= most <= len(os.sched_getaffinity(0))
    for wish in (1, 2, 1000):
        assert int(output_of(COUNT, tmp_path, OMP_NUM_THREADS=str(wish))) == min(wish, most)


@pytest.mark.parametrize("nonsense", ["0", "-3", "many"])
def test_an_omp_num_threads_that_makes_no_sense_is_no_limit(tmp_path, nonsense):
    assert output_of(COUNT, tmp_path, OMP_NUM_THREADS=nonsense) == output_of(
        COUNT, tmp_path, OMP_NUM_THREADS=""
    )


def test_the_processors_that_a_process_may_use_are_a_limit(tmp_path):
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + COUNT
    assert output_of(code, tmp_path, OMP_NUM_THREADS="") == "1"


def test_set_num_threads_sets(threads):
    for count in (1, 2, 3, 17):
        threads(count)
        assert convkit.get_num_threads() == count
    threads(np.int64(2))
    assert convkit.get_num_threads() == 2


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**31, ValueError),
        (2**70, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_set_num_threads_refuses_what_is_no_number_of_threads(threads, count, error):
    threads(2)
    with pytest.raises(error, match="set_num_threads"):
        convkit.set_num_threads(count)
    assert convkit.get_num_threads() == 2


def conv_work(x, kernel, bias):
    y = ops.conv2d(x, kernel, bias, padding="same", activation="relu")
    return (y, *ops.conv2d_backward(y, x, kernel, bias, padding="same", activation="relu"))


def pool_work(x, kernel, bias):
    y, z = ops.max_pool2d(x, 3, strides=2), ops.avg_pool2d(x, 2)
    return (
        *(y, z, ops.max_pool2d_backward(y, x, 3, strides=2)),
        *(ops.avg_pool2d_backward(z, x, 2), ops.upsample2d(x, 2, interpolation="bilinear")),
    )


def dense_work(x, kernel, bias):
    rows = x.reshape(-1, 75)
    weights = np.resize(kernel, (75, 33))
    y = ops.dense(rows, weights)
    return (y, *ops.dense_backward(y, rows, weights), ops.softmax(y), ops.log_softmax(rows))


def loss_work(x, kernel, bias):
    p = ops.softmax(x)
    y = ops.categorical_crossentropy(x, p)
    return (y, *ops.categorical_crossentropy_backward(y, x, p), ops.mean_absolute_error(x, p))


@pytest.mark.parametrize("work", [conv_work, pool_work, dense_work, loss_work])
def test_ops_give_the_same_bits_on_one_two_and_three_threads(backend, dtype, threads, work):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 40, 35, 5)).astype(dtype)
    kernel = rng.normal(size=(3, 3, 5, 17)).astype(dtype)
    bias = rng.normal(size=17).astype(dtype)
    threads(1)
    expected = [array.tobytes() for array in work(x, kernel, bias) if array is not None]
    for count in (2, 3):
        threads(count)
        found = [array.tobytes() for array in work(x, kernel, bias) if array is not None]
        assert found == expected


def test_many_more_threads_than_processors_work(tmp_path):
    code = (
        WORK
        + """
expected = work()
convkit.set_num_threads(200)
print(work() == expected)
"""
    )
    assert output_of(code, tmp_path) == "True"
