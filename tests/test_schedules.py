"""Learning-rate schedules: against Keras and PyTorch, and in programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits

import convkit
from convkit import callbacks, layers, models, optimizers, schedules
from convkit.graph import Variable
from convkit.program import Program

# ---- rates ---------------------------------------------------------------------------------------

STEPS = [0, 1, 2, 5, 9, 10, 11, 25, 30, 31, 70, 75, 200]
# Keras 3.15.1 on TensorFlow, in float32, by
#     schedule = eval(made, vars(keras.optimizers.schedules))
#     print([float(schedule(step)) for step in STEPS])
KERAS = [
    (
        "ExponentialDecay(0.1, 10, 0.5)",
        [
            0.10000000149011612,
            0.09330330044031143,
            0.08705505728721619,
            0.0707106813788414,
            0.05358867719769478,
            0.05000000074505806,
            0.046651650220155716,
            0.01767767034471035,
            0.012500000186264515,
            0.011662913486361504,
            0.0007812500116415322,
            0.0005524271982721984,
            9.536743306171047e-08,
        ],
    ),
    (
        "ExponentialDecay(0.1, 10, 0.5, staircase=True)",
        [
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.05000000074505806,
            0.05000000074505806,
            0.02500000037252903,
            0.012500000186264515,
            0.012500000186264515,
            0.0007812500116415322,
            0.0007812500116415322,
            9.536743306171047e-08,
        ],
    ),
    (
        "InverseTimeDecay(0.1, 10, 0.5)",
        [
            0.10000000149011612,
            0.0952381044626236,
            0.09090909361839294,
            0.07999999821186066,
            0.06896551698446274,
            0.06666667014360428,
            0.06451613456010818,
            0.04444444552063942,
            0.03999999910593033,
            0.03921568766236305,
            0.02222222276031971,
            0.021052632480859756,
            0.00909090880304575,
        ],
    ),
    (
        "InverseTimeDecay(0.1, 10, 0.5, staircase=True)",
        [
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.06666667014360428,
            0.06666667014360428,
            0.05000000074505806,
            0.03999999910593033,
            0.03999999910593033,
            0.02222222276031971,
            0.02222222276031971,
            0.00909090880304575,
        ],
    ),
    (
        "PiecewiseConstantDecay([5, 30], [0.1, 0.2, 0.05])",
        [
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.10000000149011612,
            0.20000000298023224,
            0.20000000298023224,
            0.20000000298023224,
            0.20000000298023224,
            0.20000000298023224,
            0.05000000074505806,
            0.05000000074505806,
            0.05000000074505806,
            0.05000000074505806,
        ],
    ),
    (
        "PolynomialDecay(0.1, 30)",
        [
            0.10000000149011612,
            0.096670001745224,
            0.09334000200033188,
            0.08335000276565552,
            0.07003000378608704,
            0.06669999659061432,
            0.0633700042963028,
            0.016750002279877663,
            9.999999747378752e-05,
            9.999999747378752e-05,
            9.999999747378752e-05,
            9.999999747378752e-05,
            9.999999747378752e-05,
        ],
    ),
    (
        "PolynomialDecay(0.1, 30, 0.01, power=2.0)",
        [
            0.10000000149011612,
            0.0940999910235405,
            0.08839999884366989,
            0.07249999791383743,
            0.054099999368190765,
            0.04999999701976776,
            0.04609999805688858,
            0.012500000186264515,
            0.009999999776482582,
            0.009999999776482582,
            0.009999999776482582,
            0.009999999776482582,
            0.009999999776482582,
        ],
    ),
    (
        "PolynomialDecay(0.1, 30, 0.01, power=0.5, cycle=True)",
        [
            0.10000000149011612,
            0.09848728775978088,
            0.09694826602935791,
            0.09215838462114334,
            0.08529940247535706,
            0.08348468691110611,
            0.08162402361631393,
            0.04674234986305237,
            0.009999999776482582,
            0.07256995886564255,
            0.052426405251026154,
            0.04674234986305237,
            0.029639609158039093,
        ],
    ),
    (
        "CosineDecay(0.1, 30)",
        [
            0.10000000149011612,
            0.09972609579563141,
            0.09890738129615784,
            0.09330127388238907,
            0.07938926666975021,
            0.07500000298023224,
            0.07033683359622955,
            0.006698730867356062,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ],
    ),
    (
        "CosineDecay(0.1, 30, alpha=0.2)",
        [
            0.10000000149011612,
            0.09978087991476059,
            0.09912590682506561,
            0.09464102238416672,
            0.08351141214370728,
            0.08000000566244125,
            0.0762694701552391,
            0.025358984246850014,
            0.020000001415610313,
            0.020000001415610313,
            0.020000001415610313,
            0.020000001415610313,
            0.020000001415610313,
        ],
    ),
    (
        "CosineDecay(0.1, 60, 0.1, warmup_target=0.5, warmup_steps=10)",
        [
            0.10000000149011612,
            0.14000000059604645,
            0.18000000715255737,
            0.30000001192092896,
            0.4599999785423279,
            0.5,
            0.4996916651725769,
            0.4340990483760834,
            0.38749998807907104,
            0.3771478533744812,
            0.05000000074505806,
            0.05000000074505806,
            0.05000000074505806,
        ],
    ),
    (
        "CosineDecay(0.0, 60, warmup_target=0.5, warmup_steps=0)",
        [
            0.5,
            0.49965739250183105,
            0.49863046407699585,
            0.4914814531803131,
            0.4727516174316406,
            0.46650636196136475,
            0.4596676230430603,
            0.3147047758102417,
            0.2499999850988388,
            0.23691602051258087,
            0.0,
            0.0,
            0.0,
        ],
    ),
    (
        "CosineDecayRestarts(0.1, 10)",
        [
            0.10000000149011612,
            0.0975528284907341,
            0.09045084565877914,
            0.04999999701976776,
            0.0024471760261803865,
            0.10000000149011612,
            0.09938441962003708,
            0.014644661918282509,
            0.10000000149011612,
            0.09984587132930756,
            0.10000000149011612,
            0.09903926402330399,
            0.07777851074934006,
        ],
    ),
    (
        "CosineDecayRestarts(0.1, 10, t_mul=1.0, m_mul=0.5, alpha=0.1)",
        [
            0.10000000149011612,
            0.09779754281044006,
            0.09140576422214508,
            0.05499999597668648,
            0.012202458456158638,
            0.055000003427267075,
            0.05389877036213875,
            0.021250000223517418,
            0.021250000223517418,
            0.020974693819880486,
            0.010703125037252903,
            0.01035156287252903,
            0.010000086389482021,
        ],
    ),
    (
        "CosineDecayRestarts(0.1, 10, t_mul=1.5, m_mul=0.9)",
        [
            0.10000000149011612,
            0.0975528284907341,
            0.09045084565877914,
            0.04999999701976776,
            0.0024471760261803865,
            0.08999999612569809,
            0.0890166386961937,
            0.08099999278783798,
            0.07152479141950607,
            0.06759978830814362,
            0.01822499744594097,
            0.005996465217322111,
            0.0015287463320419192,
        ],
    ),
]


@pytest.mark.parametrize(("made", "expected"), KERAS)
def test_rates_are_those_of_keras(made, expected):
    schedule = eval(made, vars(schedules))
    found = [schedule(step) for step in STEPS]
    assert all(type(rate) is float for rate in found)
    # Keras rounds to float32 at each operation.
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)


# PyTorch 2.13, by
#     optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1)
#     schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **options, cycle_momentum=False)
#     for _ in range(total_steps):
#         print(optimizer.param_groups[0]["lr"])
#         optimizer.step()
#         schedule.step()
# after so many steps, or after each of three.
TORCH_STEPS = [0, 1, 5, 8, 9, 14, 15, 17, 18, 29]
TORCH = [
    (
        "max_lr=0.1, total_steps=30",
        [
            0.0040000000000000036,
            0.0076537824394582454,
            0.0703688047535243,
            0.1,
            0.09944154354509119,
            0.0811745653949763,
            0.0750001,
            0.06112620219362893,
            0.0537366897333025,
            4e-07,
        ],
    ),
    (
        "max_lr=0.1, total_steps=31, pct_start=0.5, anneal_strategy='linear', div_factor=10, "
        "final_div_factor=100",
        [
            0.01,
            0.016206896551724137,
            0.0410344827586207,
            0.05965517241379311,
            0.06586206896551725,
            0.09689655172413794,
            0.09677741935483872,
            0.08388709677419355,
            0.07744193548387097,
            0.006545161290322593,
        ],
    ),
    (
        "max_lr=0.1, total_steps=30, three_phase=True",
        [
            0.0040000000000000036,
            0.0076537824394582454,
            0.0703688047535243,
            0.1,
            0.09634621756054176,
            0.018058874503045722,
            0.007653782439458237,
            0.003941889446488619,
            0.0037709349601012885,
            4e-07,
        ],
    ),
    ("max_lr=0.1, total_steps=3", [0.09944154354509119, 0.046263710266697504, 4e-07]),
]


@pytest.mark.parametrize(("options", "expected"), TORCH)
def test_one_cycle_is_that_of_pytorch(options, expected):
    schedule = schedules.OneCycle(**eval(f"dict({options})"))
    steps = TORCH_STEPS if len(expected) > 3 else range(3)
    np.testing.assert_allclose([schedule(step) for step in steps], expected, rtol=1e-9)
    last = schedule(schedule.total_steps - 1)
    np.testing.assert_allclose([schedule(schedule.total_steps), schedule(10**6)], last)
    assert schedules.OneCycle(0.1, 1)(0) == pytest.approx(0.1 / 25 / 1e4)


def test_restarts_come_at_their_steps():
    """Where the logarithms of the closed form would round."""
    schedule = schedules.CosineDecayRestarts(1.0, 10, t_mul=1.1)
    start, length = 0.0, 10.0
    for _ in range(30):
        before, after = int(np.ceil(start + length)) - 1, int(np.ceil(start + length))
        assert schedule(before) < 0.2
        assert schedule(after) > 0.9
        start, length = start + length, length * 1.1


MADE = [eval(made, vars(schedules)) for made, _ in KERAS] + [
    schedules.OneCycle(0.1, 30, three_phase=True, anneal_strategy="linear")
]


@pytest.mark.parametrize("schedule", MADE, ids=lambda one: type(one).__name__)
def test_configurations_make_the_same_schedule(schedule):
    again = schedules.deserialize(schedules.serialize(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert [again(step) for step in STEPS] == [schedule(step) for step in STEPS]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ExponentialDecay", (-0.1, 10, 0.5)),
        ("ExponentialDecay", (0.1, 0, 0.5)),
        ("InverseTimeDecay", (0.1, -1, 0.5)),
        ("PiecewiseConstantDecay", ([1, 2], [0.1, 0.2])),
        ("PiecewiseConstantDecay", ([2, 1], [0.1, 0.2, 0.3])),
        ("PolynomialDecay", (0.1, 0)),
        ("PolynomialDecay", (0.1, 10, "low")),
        ("CosineDecay", (np.nan, 10)),
        ("CosineDecay", (0.1, 10, 0.0, "name", 0.2, -1)),
        ("CosineDecayRestarts", (0.1, 10, 0.5)),
        ("OneCycle", (0.1, 0)),
        ("OneCycle", (0.1, 10, 1.0)),
        ("OneCycle", (0.1, 10, 0.3, "steps")),
    ],
)
def test_options_out_of_range_are_errors(kind, options):
    with pytest.raises((ValueError, TypeError), match=f"{kind}: expected"):
        getattr(schedules, kind)(*options)


# ---- in an optimizer -----------------------------------------------------------------------------


class Inverse(schedules.LearningRateSchedule):
    """One of a user's own; notes the steps that it is asked about."""

    def __init__(self, initial: float) -> None:
        self.initial = initial
        self.asked: list[int] = []

    def __call__(self, step: int) -> float:
        self.asked.append(step)
        return self.initial / (step + 1)


def test_the_rate_of_the_next_step_is_shown_and_cannot_be_set():
    optimizer = optimizers.SGD(schedules.ExponentialDecay(0.5, 1, 0.5))
    variable = Variable(np.zeros(1), "w")
    for step in range(4):
        assert optimizer.learning_rate == 0.5 ** (step + 1)
        optimizer.apply([-np.ones(1)], [variable])
    assert variable.value[0] == 0.5 + 0.25 + 0.125 + 0.0625
    with pytest.raises(TypeError, match=r"SGD: expected a schedule in place of another, got 0\.1"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = schedules.PolynomialDecay(1.0, 8, 0.0)
    assert optimizer.learning_rate == 0.5
    optimizer.apply([-np.ones(1)], [variable])
    assert variable.value[0] == 0.5 + 0.25 + 0.125 + 0.0625 + 0.5


def test_a_schedule_may_take_a_numbers_place_until_there_are_programs():
    optimizer = optimizers.SGD(0.1)
    optimizer.learning_rate = Inverse(0.5)
    assert optimizer.learning_rate == 0.5
    optimizer = optimizers.SGD(0.1)
    optimizer.apply([np.ones(1)], [Variable(np.zeros(1), "w")])
    with pytest.raises(TypeError, match="give schedules to the constructor"):
        optimizer.learning_rate = Inverse(0.5)


@pytest.mark.parametrize("bad", [-1.0, np.nan, "fast", None])
def test_a_schedule_that_gives_no_rate_is_an_error(bad):
    optimizer = optimizers.SGD(lambda step: 0.1 if step < 2 else bad)
    variable = Variable(np.zeros(1), "w")
    for _ in range(2):
        optimizer.apply([np.ones(1)], [variable])
    with pytest.raises((ValueError, TypeError), match="the learning rate of step 2"):
        optimizer.apply([np.ones(1)], [variable])
    assert variable.value[0] == pytest.approx(-0.2)


def test_prepare_asks_for_no_more_than_it_must():
    schedule = Inverse(1.0)
    optimizer = optimizers.SGD(schedule)
    variable, gradient = Variable(np.zeros(1), "w"), Variable(-np.ones(1), "g")
    program = Program("float64", effects=optimizer.record([gradient.symbol], [variable]))
    schedule.asked.clear()
    assert optimizer.prepare(0, 5) == 1  # known since it was recorded
    program.run(0, 1, 1)
    assert optimizer.prepare(None, 4) == 4
    assert max(schedule.asked) == 4
    schedule.asked.clear()
    program.run(0, 2, 1)
    assert optimizer.prepare(3, 2) == 2
    assert schedule.asked == [3]
    schedule.initial = 2.0
    assert optimizer.prepare(3, 2) == 2
    program.run(0, 2, 1)
    assert variable.value[0] == pytest.approx(1 + 1 / 2 + 1 / 3 + 2 / 4 + 2 / 5)
    assert optimizer.prepare(5, 5000) == 1024
    assert optimizers.SGD().prepare(None, 5000) == 5000


# ---- in fit --------------------------------------------------------------------------------------


def network(optimizer: Any, dtype: str = "float32") -> models.Sequential:
    convkit.utils.set_random_seed(4)
    model = models.Sequential(
        [
            layers.Input((5,), dtype=dtype),
            layers.Dense(9, activation="relu", dtype=dtype),
            layers.Dense(3, activation="softmax", dtype=dtype),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def points(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(count, 5)), rng.integers(0, 3, count)


class ByHand(callbacks.Callback):
    """Sets the rate of each step."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def on_train_batch_begin(self, batch: int, logs: Any) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = self.schedule(int(optimizer.iterations.numpy()[0]))


class EveryBatch(callbacks.Callback):
    """Has `fit` run one step at a time."""

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        pass


SCHEDULES = [
    schedules.CosineDecay(0.01, 40, warmup_target=0.3, warmup_steps=7),
    schedules.PiecewiseConstantDecay([3, 20], [0.1, 0.01, 0.2]),
    lambda step: 0.3 / (step + 1),
]


@pytest.mark.parametrize("kind", [optimizers.SGD, optimizers.AdamW])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("batch", [5, 32])  # breadth-first and depth-first
def test_fit_gives_the_bits_of_rates_set_by_hand(place, dtype, kind, schedule, batch):
    x, y = points(99)
    found = []
    for optimizer, called in ((kind(schedule), []), (kind(1.0), [ByHand(schedule)])):
        model = network(optimizer, np.dtype(dtype).name)
        if place is not None:
            model.to(f"cuda:{place}")
        model.fit(x, y, batch_size=batch, epochs=3, verbose=0, callbacks=called)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("kind", [optimizers.SGD, optimizers.Adam])
def test_a_step_on_a_gpu_stays_fused(place, kind):
    if place is None:
        pytest.skip("of GPUs")
    model = network(kind(SCHEDULES[0]))
    model.to(f"cuda:{place}")
    model.fit(*points(40), batch_size=8, verbose=0)
    (step,) = (program for key, program in model._programs.items() if key[0][0] == "train")
    assert step.program.fused


def test_a_long_epoch_goes_through_several_tables():
    schedule = Inverse(0.5)
    x, y = points(2500)
    found = []
    for optimizer, called in (
        (optimizers.SGD(schedule), []),
        (optimizers.SGD(schedule), [EveryBatch()]),
        (optimizers.SGD(1.0), [ByHand(lambda step: 0.5 / (step + 1))]),
    ):
        schedule.asked.clear()
        model = network(optimizer)
        model.fit(x, y, batch_size=1, epochs=1, verbose=0, callbacks=called)
        found.append(model.get_weights())
        assert not schedule.asked or max(schedule.asked) == 2499  # of no step beyond the last
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert_same_bits(a, b)


def test_train_on_batch_and_fit_count_on():
    x, y = points(20)
    optimizer = optimizers.SGD(Inverse(0.5))
    model = network(optimizer)
    other = network(optimizers.SGD(1.0))
    for step in range(3):
        model.train_on_batch(x, y)
        other.optimizer.learning_rate = 0.5 / (step + 1)
        other.train_on_batch(x, y)
    model.fit(x, y, batch_size=20, verbose=0, shuffle=False)
    other.optimizer.learning_rate = 0.5 / 4
    other.fit(x, y, batch_size=20, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        assert_same_bits(a, b)


def test_averages_take_the_place_of_weights_when_fit_ends():
    x, y = points(64)
    model = network(optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    seen: list[list[np.ndarray]] = []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            seen.append([w.astype(np.float64) for w in self.model.get_weights()])

    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[Watch()])
    for i, weight in enumerate(model.get_weights()):
        average = seen[0][i]
        for weights in seen[1:]:
            average = 0.5 * average + 0.5 * weights[i]
        np.testing.assert_allclose(weight, average, rtol=1e-5, atol=1e-6)
