"""Factors for the sums of `csrc/cpu/conv_cost.h` that fit times, beside those that stand there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import report
from choice_times import Timing, mean
from conv_costs import FORMS, Form, errors, fit, form, made

FEWEST = 8  # times for a fit
ALL = "all"  # instruction sets together

Sample = tuple[list[float], float]  # values of the terms, seconds; of a pixel


@dataclass
class Fitted:
    """Times of one sum by one instruction set, or by all, and the factors that fit them."""

    form: Form
    isa: str
    terms: np.ndarray  # (times, terms), of a pixel
    times: np.ndarray  # of a pixel, in multiply-adds
    factors: np.ndarray


def fits(timings: Sequence[Timing]) -> tuple[list[Fitted], dict[str, float]]:
    """Factors of each sum for each instruction set, and for all where there are several; and
    seconds of a multiply-add on each, by which the sums that stand are right in the median."""
    samples = _samples(timings)
    ratios: dict[str, list[float]] = {}
    for (its, isa), several in samples.items():
        standing = its.standing()
        ratios.setdefault(isa, []).extend(s / np.dot(standing, terms) for terms, s in several)
    units = {isa: float(np.median(values)) for isa, values in ratios.items()}
    found = []
    for its in FORMS:
        by_isa = {
            isa: [(terms, s / unit) for terms, s in samples.get((its, isa), ())]
            for isa, unit in units.items()
        }
        if len(units) > 1:
            by_isa[ALL] = list(itertools.chain(*by_isa.values()))
        for isa, several in by_isa.items():
            if len(several) >= FEWEST:
                terms, times = (np.array(values) for values in zip(*several, strict=True))
                found.append(Fitted(its, isa, terms, times, fit(terms, times)))
    return found, units


def _samples(timings: Sequence[Timing]) -> dict[tuple[Form, str], list[Sample]]:
    found: dict[tuple[Form, str], list[Sample]] = {}
    for timing in timings:
        shape = timing.shape
        for name, seconds in timing.seconds.items():
            its = form(name, timing.of_pass, shape)
            if its is not None:
                values = its.values(name, timing.of_pass, shape, timing.isa)
                pixels = shape.batch * made(shape, timing.of_pass) ** 2
                found.setdefault((its, timing.isa), []).append((values, seconds / pixels))
    return found


def tables(timings: Sequence[Timing], chosen: Sequence[tuple[Timing, str]]) -> list[str]:
    """The factors, what the sums err by, and what choices they would make; `chosen`: what convkit
    takes for each."""
    found, units = fits(timings)
    columns = [*units, ALL] if len(units) > 1 else [*units]
    factors, misses = [], []
    for its in dict.fromkeys(one.form for one in found):
        mine = {one.isa: one for one in found if one.form is its}
        standing = its.standing()
        for i, (code, _) in enumerate(its.terms):
            name = "" if i else its.name
            fitted = [f"{mine[isa].factors[i]:.2f}" if isa in mine else "-" for isa in columns]
            factors.append([name, f"`{code}`", f"{standing[i]:g}", *fitted])
        for isa, one in mine.items():
            both = [errors(given, one.terms, one.times) for given in (standing, one.factors)]
            cells = [f"{np.quantile(e, q):.0%}" for q in (0.5, 0.9) for e in both]
            misses.append([its.name, isa, str(len(one.times)), *cells])
    unit = ", ".join(f"{isa} {1e9 * seconds:.3f} ns" for isa, seconds in units.items())
    heads = ("median: stands", "fitted", "90 %: stands", "fitted")
    return [
        f"Factors of conv_cost.h, in multiply-adds ({unit}):",
        report.table(("sum", "term", "stands", *columns), factors),
        "Relative errors of the sums:",
        report.table(("sum", "isa", "times", *heads), misses),
        "Mean regret of going by the sums alone, without what else conv_choice.h knows:",
        report.table(
            ("isa", "pass", "shapes", "as chosen", "sums that stand", "fitted sums"),
            _by_sums(found, chosen),
        ),
    ]


def _by_sums(found: Sequence[Fitted], chosen: Sequence[tuple[Timing, str]]) -> list[list[str]]:
    fitted = {(one.form, one.isa): one.factors for one in found}
    regrets: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for timing, name in chosen:
        costs: tuple[dict[str, float], ...] = ({}, {})
        for algorithm in timing.seconds:
            its = form(algorithm, timing.of_pass, timing.shape)
            if its is None or (its, timing.isa) not in fitted:
                break
            values = its.values(algorithm, timing.of_pass, timing.shape, timing.isa)
            for cost, factors in zip(costs, (its.standing(), fitted[its, timing.isa]), strict=True):
                cost[algorithm] = float(np.dot(factors, values))
        else:
            names = (name, *(min(cost, key=cost.__getitem__) for cost in costs))
            by = regrets.setdefault((timing.isa, timing.of_pass), [])
            by.append(tuple(timing.regret(one) for one in names))
    return [
        [isa, of_pass, str(len(by)), *(f"{mean(values):.3f}" for values in zip(*by, strict=True))]
        for (isa, of_pass), by in regrets.items()
    ]
