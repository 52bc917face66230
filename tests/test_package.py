"""The package as it is installed: what importing it costs, what is in it, what it says without
its compiled part."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import output_of

import convkit

FOLDER = Path(convkit.__file__).parent
LAZY = ("matplotlib", "tqdm", "pooch", "safetensors", "PIL", "requests", "torch", "cupy")


def test_importing_convkit_imports_nothing_that_is_heavy(tmp_path):
    code = "import sys, convkit; print(*sorted(m for m in sys.modules if '.' not in m))"
    assert set(output_of(code, tmp_path).split()).isdisjoint(LAZY)


def test_training_without_a_bar_needs_none_of_the_lazy_packages(tmp_path):
    code = """if True:
        import sys
        import numpy as np
        import convkit
        model = convkit.Sequential([convkit.Input((4,)), convkit.layers.Dense(2, "softmax")])
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
        model.predict(np.ones((8, 4)))
        convkit.datasets.digits.load_data()
        model.summary(print_fn=lambda text: None)
        print(*sorted(m for m in sys.modules if "." not in m))
    """
    assert set(output_of(code, tmp_path).split()).isdisjoint(LAZY)


def test_submodules_are_loaded_at_their_first_use(tmp_path):
    code = """if True:
        import sys, convkit
        print([m for m in ("layers", "models", "ops") if f"convkit.{m}" in sys.modules])
        convkit.ops.relu
        print("convkit.ops" in sys.modules, "convkit.models" in sys.modules)
    """
    assert output_of(code, tmp_path).splitlines() == ["[]", "True False"]


@pytest.mark.parametrize("name", convkit.__all__)
def test_public_names_are_there(name):
    assert getattr(convkit, name) is not None
    assert name in dir(convkit)


@pytest.mark.parametrize(
    "module",
    [
        *("activations", "callbacks", "config", "datasets", "initializers", "layers", "losses"),
        *("metrics", "models", "ops", "optimizers", "plot", "utils"),
    ],
)
def test_public_functions_and_classes_have_docstrings(module):
    loaded = getattr(convkit, module)
    names = getattr(loaded, "__all__", None) or [n for n in vars(loaded) if not n.startswith("_")]
    for name in names:
        value = getattr(loaded, name)
        if callable(value) and getattr(value, "__module__", "").startswith("convkit"):
            assert value.__doc__, f"{module}.{name}"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'convkit' has no attribute 'Conv3D'"):
        _ = convkit.Conv3D


def test_types_and_digits_are_inside_the_package():
    for name in ("py.typed", "_core.pyi"):
        assert (FOLDER / name).is_file()
    for name in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"):
        assert (FOLDER / "datasets" / "data" / "digits" / name).stat().st_size > 100


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert convkit.__version__ == version("convkit-nn")


def test_sources_without_the_compiled_part_say_what_to_do(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "convkit", ignore=shutil.ignore_patterns("_core*.so"))
    # Without the site's packages, or the installed convkit would step in.
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import convkit"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: convkit: Python found the sources rather than the installed package"
    )
    assert "another folder" in last
    assert "pip install -e ." in last
