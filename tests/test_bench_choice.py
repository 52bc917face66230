"""`bench_choice.py`: every algorithm is timed where it can be used, what the tables say of the
times, and that the sums of conv_cost.h are those that are fitted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import bench_choice
import choice_fit
import conv_costs
import numpy as np
import pytest
from choice_cases import Shape, shapes
from choice_times import Timing, calls_of
from conv_costs import BACKWARD_INPUT, BACKWARD_KERNEL, FORMS, FORWARD, PASSES

from convkit import _core, ops

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """What the program prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench_choice.py", *arguments])
        bench_choice.main()
        return capsys.readouterr().out

    return run


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column is `head`, a list for each row."""
    lines = iter(text.splitlines())
    first = next(line for line in lines if line.startswith(f"| {head}"))
    assert next(lines).startswith("| -")
    rows = [first]
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(line)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def synthetic(isa: str, unit: float, factors: Callable[[conv_costs.Form], list[float]]) -> list:
    """Timings of kernels of two sizes, seconds that are the sums with other factors."""
    timings = []
    for shape in shapes(only="×12×12×"):
        for of_pass in PASSES:
            seconds = {}
            for name in ("product", "windows", "planes", "winograd2", "winograd4"):
                form = conv_costs.form(name, of_pass, shape)
                if form is not None:
                    cost = np.dot(factors(form), form.values(name, of_pass, shape, isa))
                    pixels = shape.batch * conv_costs.made(shape, of_pass) ** 2
                    seconds[name] = unit * cost * pixels
            if seconds:
                timings.append(Timing(isa, of_pass, shape, seconds))
    return timings


# ---- shapes and calls ----------------------------------------------------------------------------


def test_shapes_can_be_told_apart_and_chosen():
    found = list(shapes())
    assert len({str(shape) for shape in found}) == len(found)
    assert {shape.kernel for shape in found} == {1, 3, 5, 7}
    assert {str(shape) for shape in shapes("12×12×3 → 6 by 5×5", [1, 4])} == {
        "1×12×12×3 → 6 by 5×5",
        "4×12×12×3 → 6 by 5×5",
    }


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "shape",
    [
        Shape(2, 12, 3, 6, 3),
        Shape(2, 12, 3, 40, 3),
        Shape(3, 14, 6, 16, 5, "valid"),
        Shape(2, 9, 4, 6, 3, stride=2),
    ],
    ids=str,
)
def test_calls_are_those_of_the_algorithms(shape):
    found = calls_of(shape)
    chosen = ops.plan("conv2d", shape.x, shape.weights, **shape.options)
    for of_pass in PASSES:
        calls = found[of_pass]
        assert {chosen[of_pass], "product"} <= set(calls)
        results = []
        for call in calls.values():
            result = call()
            result = result if of_pass == FORWARD else result[PASSES.index(of_pass) - 1]
            results.append(result.copy())
        for result in results[1:]:
            np.testing.assert_allclose(result, results[0], atol=1e-4 * np.abs(results[0]).max())
    asked = ops.plan("conv2d", shape.x, shape.weights, **shape.options, algorithm="product")
    assert set(asked.values()) == {"product"}


# ---- regret --------------------------------------------------------------------------------------


def test_regret_is_what_the_choice_takes_by_the_fastest(run, tmp_path):
    """Of times that are given: the choice is the fastest but for one shape."""
    rows = []
    for shape, of_pass in (
        (Shape(1, 28, 64, 64, 3), FORWARD),
        (Shape(1, 28, 64, 64, 3), BACKWARD_KERNEL),
        (Shape(1, 4, 64, 64, 3), FORWARD),
    ):
        chosen = ops.plan("conv2d", shape.x, shape.weights, **shape.options)[of_pass]
        seconds = {chosen: 2e-3, "other": 1e-3 if shape.side == 4 else 3e-3}
        rows.append(
            bench_choice._row(Timing(_core.backend_name(), of_pass, shape, seconds), chosen)
        )
    given = tmp_path / "times.json"
    given.write_text(json.dumps({"rows": rows}))
    text = run("--times", str(given))
    head, forward, gradient = table(text, "isa")
    assert head[2:] == ["shapes", "mean", "side < 7", "≥ 7", "90 %", "worst", "> 1.1"]
    assert forward[1:] == ["forward", "2", "1.414", "2.000", "1.000", "1.90", "2.00", "1"]
    assert gradient[1:] == ["backward_kernel", "1", "1.000", "-", "1.000", "1.00", "1.00", "0"]
    assert "1×4×4×64 → 64 by 3×3" in text
    assert "other 1.00 ms" in text
    assert table(run("--times", str(given), "--only", "28×28"), "isa")[1][2:4] == ["1", "1.000"]


def test_the_program_measures_and_reads_what_it_wrote(run, tmp_path: Path):
    before = _core.backend_name(), _core.get_num_threads()
    written, picture = tmp_path / "times.json", tmp_path / "times.png"
    sets = ("--isa", *_core.available_backends()[:2])
    text = run(*sets, "--quick", "--only", "4×4×3", "--json", str(written), "--plot", str(picture))
    summary = table(text, "isa")
    assert {row[1] for row in summary[1:]} == set(PASSES)
    rows = json.loads(written.read_text())["rows"]
    assert {row["isa"] for row in rows} == set(sets[1:])
    assert all(row["chosen"] in row["seconds"] and row["regret"] >= 1 for row in rows)
    assert picture.stat().st_size > 0
    assert table(run(*sets, "--times", str(written)), "isa") == summary
    assert (_core.backend_name(), _core.get_num_threads()) == before


# ---- fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_sums_are_those_of_the_header(form):
    assert min(form.standing()) > 0
    assert len(form.standing()) == len(form.terms)


def test_a_sum_that_stands_otherwise_is_named():
    with pytest.raises(ValueError, match=r"^conv_cost.h: expected 'return 7 \* # \+"):
        conv_costs.numbers("return 7 * # + nothing")


@pytest.mark.parametrize("isa", conv_costs.LANES)
def test_known_factors_are_found(isa):
    rng = np.random.default_rng(1)
    known = {form: form.standing() * rng.uniform(0.5, 2, len(form.terms)) for form in FORMS}
    found, units = choice_fit.fits(synthetic(isa, 2e-10, known.__getitem__))
    assert {one.form for one in found} == {f for f in FORMS if f.kind == ""}  # but 1 × 1 kernels
    for one in found:
        np.testing.assert_allclose(one.factors * units[isa] / 2e-10, known[one.form], rtol=1e-6)


def test_instruction_sets_are_fitted_apart_and_together():
    timings = [
        timing
        for isa, unit in (("avx512", 1e-10), ("avx2", 3e-10))
        for timing in synthetic(isa, unit, conv_costs.Form.standing)
    ]
    found, units = choice_fit.fits(timings)
    assert units == pytest.approx({"avx512": 1e-10, "avx2": 3e-10})
    assert {one.isa for one in found} == {"avx512", "avx2", "all"}
    for one in found:
        np.testing.assert_allclose(one.factors, one.form.standing(), rtol=1e-6)
    chosen = [(timing, "product") for timing in timings]
    text = "\n".join(choice_fit.tables(timings, chosen))
    head, *rows = table(text, "sum ")
    assert head == ["sum", "term", "stands", "avx512", "avx2", "all"]
    assert all(float(row[2]) == pytest.approx(float(row[3]), abs=0.006) for row in rows)
    head, *rows = table(text, "isa")
    assert head[3:] == ["as chosen", "sums that stand", "fitted sums"]
    assert all(row[4:] == ["1.000", "1.000"] and float(row[3]) > 1 for row in rows)


def test_no_factor_is_negative():
    terms = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    np.testing.assert_allclose(conv_costs.fit(terms, np.array([1.0, 3.0, 5.0]))[1], 0)
    np.testing.assert_allclose(conv_costs.fit(terms, np.array([3.0, 5.0, 7.0])), [2, 1])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("of_pass", [BACKWARD_INPUT, BACKWARD_KERNEL])
def test_choices_go_by_these_sums(of_pass):
    """But for what conv_choice.h knows beside them: so it is most of the shapes that agree."""
    isa, agree = _core.backend_name(), []
    for shape in shapes("12×12", [16]):
        costs = {}
        for name in calls_of(shape)[of_pass]:
            form = conv_costs.form(name, of_pass, shape)
            if form is not None:
                costs[name] = np.dot(form.standing(), form.values(name, of_pass, shape, isa))
        if costs:
            chosen = ops.plan("conv2d", shape.x, shape.weights, **shape.options)[of_pass]
            agree.append(chosen == min(costs, key=costs.__getitem__))
    assert len(agree) > 100
    assert np.mean(agree) > 0.95
