"""Devices: loading their library or saying why not, and their kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkers import assert_same_bits
from devices import DEVICES, EMULATED, emulator
from processes import output_of

import convkit
from convkit import _core, layers, models, ops

needs_emulator = pytest.mark.skipif(EMULATED is None, reason="needs the emulated library")
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture
def emulated() -> Iterator[ctypes.CDLL]:
    """The emulator's controls, with its kernels in use. Afterwards it is as it was.

    Tests count blocks of memory, so what earlier ones left goes first: arrays nobody uses, and this
    thread's queue with its workspace, since something fails in it.
    """
    library = emulator()
    before = _core.backend_name()
    _core.use_backend("cuda_emulated")
    gc.collect()
    library.emulator_fail_allocation(1)
    with pytest.raises(MemoryError):
        add(np.zeros((1, 1)), np.zeros((1, 1)))
    yield library
    library.emulator_recover()
    library.emulator_fail_allocation(0)
    library.emulator_fail_kernel(0)
    library.emulator_set_order(b"forward")
    _core.use_backend(before)


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    spec = _core.Elementwise(size=a.shape[1])
    return _core.run_kernel("add", spec, len(a), a.dtype.name, [a, b], [a.shape])[0]


# ---- libraries -----------------------------------------------------------------------------------


@pytest.mark.skipif(_core.cuda_built, reason="this build has the library")
def test_a_build_without_cuda_says_how_to_have_it():
    with pytest.raises(RuntimeError, match=r"^cuda: this convkit was built without CUDA; .*ON"):
        _core.load_device()
    assert ops.relu(np.float32([-1, 1])).tolist() == [0, 1]


def test_a_library_that_is_not_there(tmp_path):
    path = str(tmp_path / "none.so")
    with pytest.raises(RuntimeError, match=f"^device: no library at {path}$"):
        _core.load_device(path)


def test_a_file_that_is_no_library(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("not a library")
    with pytest.raises(RuntimeError, match=r"^device: could not load .*text\.so"):
        _core.load_device(str(path))


def test_a_library_of_something_else():
    with pytest.raises(RuntimeError, match=r"^device: expected a library of convkit, got .*_core"):
        _core.load_device(_core.__file__)


@needs_compiler
def test_a_library_of_another_build(tmp_path):
    source, path = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("unsigned long long convkit_device_layout(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", path], check=True)
    with pytest.raises(RuntimeError, match=r"^device: expected a library of the same build as"):
        _core.load_device(str(path))


# One sentence each, from a process in which the emulator plays the machine.
MACHINES = {
    "devices=0": "cuda: no GPU was found",
    "devices=-1": "cuda: no GPU can be used: initialization error",
    "driver=0": "cuda: no NVIDIA driver was found",
    "driver=12020 runtime=13000": "cuda: the NVIDIA driver is too old: expected one for CUDA 13.0, "
    "got one for CUDA 12.2",
    "major=6 minor=1": "cuda: this build has no code that the GPU can run: it is for compute "
    "capability 7.5, the GPU is 6.1 (emulated)",
}


@needs_emulator
@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_that_lacks_something_says_what(machine, tmp_path):
    code = f"""if True:
        import ctypes
        import numpy as np
        from convkit import _core, ops
        library = ctypes.CDLL({str(EMULATED)!r})
        library.emulator_set.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        for setting in {machine!r}.split():
            name, value = setting.split("=")
            assert library.emulator_set(name.encode(), int(value)) == 0
        try:
            _core.load_device({str(EMULATED)!r})
        except RuntimeError as error:
            print(error)
        try:
            _core.use_backend("cuda_emulated")
        except ValueError as error:
            assert "generic" in str(error) or "neon" in str(error)
            assert ops.relu(np.float32([-1, 1])).tolist() == [0, 1]
            print("the processor works")
    """
    assert output_of(code, tmp_path).splitlines() == [MACHINES[machine], "the processor works"]


@needs_emulator
def test_a_library_is_loaded_once_and_on_demand_alone(tmp_path):
    code = f"""if True:
        import convkit
        from convkit import _core
        def mapped():
            return "_cuda" in open("/proc/self/maps").read()
        print(mapped(), {str(EMULATED)!r} in open("/proc/self/maps").read())
        names = {{_core.load_device({str(EMULATED)!r}) for _ in range(3)}}
        print(mapped(), names, _core.backend_name() in _core.available_backends())
        _core.use_backend("cuda_emulated")
        print(_core.backend_name(), "cuda_emulated" in _core.available_backends())
    """
    assert output_of(code, tmp_path).splitlines() == [
        "False False",
        "True {'cuda_emulated'} True",
        "cuda_emulated False",
    ]


@needs_emulator
def test_a_second_library_with_the_same_kernels_is_refused(tmp_path):
    copy = shutil.copy(Path(str(EMULATED)), tmp_path / "copy.so")
    with pytest.raises(RuntimeError, match="another cuda_emulated is loaded already"):
        _core.load_device(str(copy))


def test_what_is_asked_of_a_device_that_was_not_loaded():
    with pytest.raises(ValueError, match="expected one that was loaded, got 'rocm'"):
        _core.describe_device("rocm")
    with pytest.raises(ValueError, match="got 'rocm'"):
        _core.device_blocks("rocm")


def test_devices_describe_themselves():
    for backend in DEVICES:
        for name, (major, minor), memory in _core.describe_device(backend):
            assert name and major >= 7 and 0 <= minor <= 9 and memory > 2**20


@pytest.fixture(scope="module")
def device_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/cuda/device_check.cpp, compiled."""
    folder, sources = tmp_path_factory.mktemp("device"), Path(__file__).parents[1]
    program = folder / "device_check"
    code = sources / "tests" / "cuda" / "device_check.cpp"
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    command = ["c++", "-std=c++17", f"-I{sources / 'csrc'}", str(code), "-o", str(program), "-ldl"]
    subprocess.run(command, check=True, env=environment)
    return program


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("order", ["forward", "reverse", "random:3", "verify"])
def test_streams_events_graphs_and_memory(device_check, name, order):
    library = EMULATED if name == "cuda_emulated" else Path(_core.__file__).parent / "_cuda.so"
    if name == "cuda" and order != "forward":
        pytest.skip("a GPU has an order of its own")
    done = subprocess.run(
        [device_check, str(Path(str(library)).resolve())],
        env={**os.environ, "CONVKIT_EMULATOR_ORDER": order},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


# ---- precision -----------------------------------------------------------------------------------


def test_precision():
    assert convkit.get_precision() == "float32"
    try:
        for precision in ("tf32", "bf16", "float32"):
            convkit.set_precision(precision)
            assert convkit.get_precision() == precision
    finally:
        convkit.set_precision("float32")


@pytest.mark.parametrize("precision", ["fp16", "TF32", "", None, 1])
def test_set_precision_refuses_what_is_none(precision):
    with pytest.raises(ValueError, match="set_precision: expected precision to be one of"):
        convkit.set_precision(precision)
    with pytest.raises((ValueError, TypeError)):
        _core.set_precision(precision)
    assert convkit.get_precision() == "float32"


def test_precision_is_nothing_to_the_processor(rng):
    x, kernel = (rng.normal(size=(16, 16)).astype(np.float32) for _ in range(2))
    expected = ops.dense(x, kernel)
    try:
        convkit.set_precision("bf16")
        assert_same_bits(ops.dense(x, kernel), expected)
    finally:
        convkit.set_precision("float32")


# ---- kernels that a backend lacks, and what devices do not run -----------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_that_a_device_lacks(device_backend, dtype):
    x = np.zeros(16, dtype)
    expected = f"multiply_add_peak: expected a backend that has it, got {device_backend}"
    with pytest.raises(ValueError, match=expected):
        _core.run_kernel("multiply_add_peak", _core.Elementwise(size=1), 1, dtype, [], [x])


def test_programs_say_that_they_do_not_run_on_devices(device_backend):
    model = models.Sequential([layers.Input((4,)), layers.Dense(2)])
    x = np.ones((3, 4), np.float32)
    function = model.compiled()
    expected = f"program: expected a processor's backend, got {device_backend}"
    for run in (lambda: model.predict(x, verbose=0), lambda: function(x[:1])):
        with pytest.raises(RuntimeError, match=expected):
            run()


# ---- staging: arrays of the host -----------------------------------------------------------------


def test_results_come_back_and_inputs_stay(device_backend, dtype, rng):
    a, b = (rng.normal(size=(5, 7)).astype(dtype) for _ in range(2))
    copies = a.copy(), b.copy()
    assert_same_bits(add(a, b), a + b)
    assert_same_bits(add(a, a), a + a)
    assert_same_bits(a, copies[0])
    assert_same_bits(b, copies[1])


def test_a_result_in_the_place_of_an_input(device_backend, dtype, rng):
    a, b = (rng.normal(size=(5, 7)).astype(dtype) for _ in range(2))
    expected = a + b
    spec = _core.Elementwise(size=7)
    (found,) = _core.run_kernel("add", spec, 5, np.dtype(dtype).name, [a, b], [a])
    assert found is a
    assert_same_bits(a, expected)


def test_what_is_updated_is_read_first(device_backend):
    total = np.array([1.5, 2.0])
    x = np.arange(6, dtype=np.float32)
    _core.run_kernel("accumulate", _core.Mean(rows=2), 3, "float32", [x], [total])
    assert total.tolist() == [16.5, 8.0]


def test_arrays_without_elements(device_backend):
    empty = np.zeros((0, 7), np.float32)
    assert add(empty, empty).shape == (0, 7)


def test_an_argument_that_may_be_missing(device_backend, rng):
    x, kernel = (rng.normal(size=(6, 6)).astype(np.float32) for _ in range(2))
    with_zeros = ops.dense(x, kernel, np.zeros(6, np.float32))
    np.testing.assert_array_equal(ops.dense(x, kernel), with_zeros)


@pytest.mark.parametrize("index", [None, [2, 0, 2]])
def test_rows_are_gathered_from_a_source_of_any_length(device_backend, index):
    source = np.arange(20, dtype=np.uint8).reshape(5, 4)
    rows = None if index is None else np.array(index)
    spec = _core.Gather(size=4, type=0, scale=0.5, offset=1.0)
    (y,) = _core.run_kernel("gather", spec, 3, "float32", [source, rows], [(3, 4)])
    np.testing.assert_array_equal(y, source[index or slice(3)] * np.float32(0.5) + 1)


def test_rows_that_a_source_does_not_have_are_refused():
    source = np.zeros((5, 4), np.uint8)
    spec = _core.Gather(size=4, type=0, scale=1.0, offset=0.0)
    for index in ([0, 5, 1], [0, -1, 1]):
        with pytest.raises(ValueError, match="gather: index: expected rows that the source has"):
            _core.run_kernel("gather", spec, 3, "float32", [source, np.array(index)], [(3, 4)])
    with pytest.raises(ValueError, match="gather: source: expected rows that the source has"):
        _core.run_kernel("gather", spec, 6, "float32", [source, None], [(6, 4)])
    with pytest.raises(ValueError, match="gather: source: expected rows of another size"):
        _core.run_kernel("gather", spec, 2, "float32", [source[:, :3].copy(), None], [(2, 4)])


def test_ops_are_not_replayed_but_give_what_the_device_gives(device_backend):
    x = np.arange(-8, 8, dtype=np.float32).reshape(1, 16)
    expected = np.maximum(x, 0)
    before = ops.relu.replays
    for _ in range(3):
        assert_same_bits(ops.relu(x), expected)
    out = np.empty_like(x)
    for _ in range(3):
        assert ops.relu(x, out=out) is out
        assert_same_bits(out, expected)
    assert ops.relu.replays == before


def test_what_was_learnt_on_one_backend_is_right_on_the_others(device_backend, rng):
    x = rng.normal(size=(3, 11, 5)).astype(np.float32)
    on_device = ops.softmax(x)
    _core.use_backend(_core.available_backends()[-1])
    replays = ops.softmax.replays
    np.testing.assert_allclose(ops.softmax(x), on_device, rtol=1e-5)
    assert ops.softmax.replays == replays  # each backend learns for itself
    np.testing.assert_allclose(ops.softmax(x), on_device, rtol=1e-5)
    assert ops.softmax.replays == replays + 1


def test_several_threads_at_a_time(device_backend, rng):
    arrays = [rng.normal(size=(4, 33)).astype(np.float32) for _ in range(4)]
    wrong = []

    def work(x: np.ndarray) -> None:
        for _ in range(5):
            if not np.array_equal(add(x, x), x + x):
                wrong.append(x)

    workers = [threading.Thread(target=work, args=(x,)) for x in arrays]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_nothing_is_left_in_memory(device_backend, rng):
    x = rng.normal(size=(4, 33)).astype(np.float32)
    add(x, x)
    before = _core.device_blocks(device_backend)
    for _ in range(3):
        add(x, x)
    assert _core.device_blocks(device_backend) == before


# ---- when something fails ------------------------------------------------------------------------


@needs_emulator
@pytest.mark.parametrize("k", [1, 2, 3])
def test_an_allocation_that_fails_leaves_nothing_behind(emulated, k, rng):
    x = rng.normal(size=(4, 33)).astype(np.float32)
    add(x, x)
    blocks, size = _core.device_blocks("cuda_emulated"), emulated.emulator_allocated_bytes()
    emulated.emulator_fail_allocation(k)
    with pytest.raises(MemoryError):
        add(x, x)
    assert _core.device_blocks("cuda_emulated") == blocks
    assert emulated.emulator_allocated_bytes() == size
    assert_same_bits(add(x, x), x + x)


def gradient_of_kernel(seed: int = 0) -> np.ndarray:
    """By a kernel that needs a workspace."""
    rng = np.random.default_rng(seed)
    x, dy, kernel = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((32, 9, 9, 3), (32, 7, 7, 5), (3, 3, 3, 5))
    )
    return ops.conv2d_backward(dy, x, kernel, needs=(False, True, False))[1]


@needs_emulator
def test_every_allocation_of_a_kernel_with_a_workspace_may_fail(emulated):
    expected = gradient_of_kernel()
    blocks = []
    for k in range(1, 20):
        emulated.emulator_fail_allocation(k)
        try:
            found = gradient_of_kernel()
            break
        except MemoryError:
            # The queue went too, since something failed in it: the next one has no workspace yet.
            blocks.append(_core.device_blocks("cuda_emulated"))
    assert len(blocks) >= 3
    assert len(set(blocks)) == 1
    assert_same_bits(found, expected)


@needs_emulator
def test_a_thread_gives_its_memory_back_when_it_ends(emulated):
    blocks = _core.device_blocks("cuda_emulated")
    counts = []

    def work() -> None:
        gradient_of_kernel()
        counts.append(_core.device_blocks("cuda_emulated"))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert counts == [blocks + 1]
    # Python has joined a thread before what is the thread's own is destroyed.
    deadline = time.monotonic() + 60
    while _core.device_blocks("cuda_emulated") > blocks and time.monotonic() < deadline:
        time.sleep(0.001)
    assert _core.device_blocks("cuda_emulated") == blocks


@needs_emulator
def test_a_kernel_that_fails_is_a_runtime_error_that_names_it(emulated, rng):
    x = rng.normal(size=(4, 33)).astype(np.float32)
    expected = add(x, x)
    blocks = _core.device_blocks("cuda_emulated")
    emulated.emulator_fail_kernel(1)
    with pytest.raises(RuntimeError, match=r"^cuda: .*add"):
        add(x, x)
    emulated.emulator_recover()
    assert _core.device_blocks("cuda_emulated") == blocks
    assert_same_bits(add(x, x), expected)
