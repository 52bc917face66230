"""Optimizers, with Keras's names, defaults and definitions: state, and one update rule each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Self

import numpy as np

from convkit import _core, configuration, device, geometry, graph, registered
from convkit import schedules as schedules  # as in Keras: optimizers.schedules
from convkit.graph import Node, Symbol, Variable
from convkit.per_step import TABLE, PerStep
from convkit.program import Program

Schedule = Callable[[int], float]


class Optimizer(configuration.Configured):
    """Base class.

    A step counts itself, adds the gradients of penalties, clips gradients, takes weight decay off
    the weights, updates them, their averages, and holds them to their constraints, in this order.

    Args:
        learning_rate: at least 0; may be changed at any time. Or a schedule
            (`convkit.schedules`), a function of the number of updates so far.
        weight_decay: at least 0; before an update each weight loses this share of itself times the
            learning rate (Loshchilov and Hutter, 2019). None: nothing.
        clipnorm: each weight's gradient is scaled down to this norm. None or 0: it is not.
        clipvalue: each value of gradients is held to -clipvalue .. clipvalue. None or 0: it is not.
        global_clipnorm: all gradients together are scaled down to this norm. None or 0: they are
            not. Only one of the three may be given.
        use_ema: whether moving averages of the weights are kept, which take the weights' place at
            the end of `fit` (`finalize_variable_values`).
        ema_momentum: 0 <= ema_momentum <= 1; of the averages.
        ema_overwrite_frequency: after each so many updates the averages take the weights' place,
            too. None: only at the end.
        name: None: made from the class's name.
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: expected arguments of this class or of Optimizer, "
                f"got {', '.join(unknown)}"
            )
        self.name = name or type(self).__name__.lower()
        self.weight_decay = self._optional("weight_decay", weight_decay)
        self.clipnorm = self._optional("clipnorm", clipnorm)
        self.clipvalue = self._optional("clipvalue", clipvalue)
        self.global_clipnorm = self._optional("global_clipnorm", global_clipnorm)
        if sum(x is not None for x in (clipnorm, clipvalue, global_clipnorm)) > 1:
            raise geometry.fail(
                type(self).__name__,
                "one of clipnorm, clipvalue and global_clipnorm",
                f"{clipnorm}, {clipvalue} and {global_clipnorm}",
            )
        self.use_ema = bool(use_ema)
        self.ema_momentum = geometry.between(
            type(self).__name__, "ema_momentum", ema_momentum, 0, 1
        )
        self.ema_overwrite_frequency = ema_overwrite_frequency or None
        if self.ema_overwrite_frequency is not None:
            self.ema_overwrite_frequency = geometry.integer(
                type(self).__name__, "ema_overwrite_frequency", ema_overwrite_frequency, 1
            )
        self.iterations = Variable(np.zeros(1, np.int64), "iterations", trainable=False)
        self._rate = 0.0
        self._schedule: Schedule | None = None
        self._set_rate(learning_rate)
        self._rates: dict[str, Variable] = {}
        self._per_step: dict[tuple[str, str], PerStep] = {}
        self._slots: dict[tuple[int, str], Variable] = {}
        # The parameters that have slots: kept, so that their ids are not given away again.
        self._parameters: dict[int, Variable] = {}
        self._undecayed: Callable[[Variable], bool] = lambda variable: False
        self._recorded = False
        self._applied: dict[tuple[int, ...], tuple[Program, list[Variable]]] = {}

    def _number(self, name: str, value: Any, below: float = inf) -> float:
        return geometry.number(type(self).__name__, name, value, 0, below)

    def _optional(self, name: str, value: Any) -> float | None:
        return None if value is None else self._number(name, value)

    # ---- the learning rate -----------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The next update's learning rate.

        Raises:
            TypeError: when it is set: the optimizer has a schedule, which only another schedule can
                replace; or a schedule is to replace a number that programs were recorded with.
        """
        if self._schedule is not None:
            return self._scheduled(int(self.iterations.host()[-1]))
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        if self._schedule is not None and not callable(value):
            raise TypeError(
                f"{type(self).__name__}: expected a schedule in place of another, got {value!r}; "
                "a learning rate that was given as a number can be set to others"
            )
        if self._schedule is None and callable(value) and self._recorded:
            raise TypeError(
                f"{type(self).__name__}: expected a number, got {value!r}; give schedules to the "
                "constructor"
            )
        self._set_rate(value)
        for rate in self._rates.values():
            rate.assign([self._rate])

    def _set_rate(self, value: Any) -> None:
        if callable(value):
            self._schedule = value
        else:
            self._rate = self._number("learning_rate", value)

    def _scheduled(self, step: int) -> float:
        assert self._schedule is not None
        what = f"the learning rate of step {step}"
        return geometry.number(type(self).__name__, what, self._schedule(step), 0, inf)

    def _overwrites(self, step: int) -> float:
        """-1 where averages take the weights' place, else 0."""
        frequency = self.ema_overwrite_frequency
        return -1.0 if frequency is not None and (step + 1) % frequency == 0 else 0.0

    def prepare(self, first_step: int | None, steps: int) -> int:
        """Gets ready for the coming steps; to be called before a program is run.

        What changes from step to step as Python says, a schedule's learning rates, programs read
        from tables of the next 1024 steps at most. Beyond them the last entry would stay.

        Args:
            first_step: how many updates were made so far; None: as `iterations` says.
            steps: how many are to be made, at least 1. Schedules are asked about no others.

        Returns:
            How many steps may be run until it is called again, at least 1 and at most `steps`.
        """
        changing = {"learning_rate": self._scheduled, "overwrite": self._overwrites}
        ready = steps
        for (name, _), number in self._per_step.items():
            if name in changing:
                if first_step is None:
                    first_step = int(self.iterations.host()[-1])
                ready = min(ready, number.prepare(first_step, steps, changing[name]))
        return ready

    def _number_of_step(self, name: str, dtype: str, values: Sequence[float] = ()) -> PerStep:
        """A number that changes; given values are those of the first steps, the last one stays."""
        key = (name, dtype)
        if key not in self._per_step:
            self._per_step[key] = PerStep(f"{self.name}/{name}", dtype, len(values) or TABLE)
            if values:
                self._per_step[key].fill(0, values)
        return self._per_step[key]

    def _rate_of(self, dtype: str) -> Variable:
        if self._schedule is not None:
            return self._number_of_step("learning_rate", dtype).value
        if dtype not in self._rates:
            value = np.array([self._rate], dtype)
            self._rates[dtype] = Variable(value, "learning_rate", trainable=False)
        return self._rates[dtype]

    # ---- state -----------------------------------------------------------------------------------

    def slot(self, variable: Variable, name: str, value: float = 0.0) -> Variable:
        """The optimizer's own array for a parameter, all `value` at first."""
        key = (id(variable), name)
        if key not in self._slots:
            first = np.full(variable.shape, value, variable.dtype)
            self._slots[key] = Variable(first, f"{variable.name}/{name}", trainable=False)
            self._parameters[id(variable)] = variable
        return self._slots[key]

    @property
    def variables(self) -> list[Variable]:
        """The step count and all state."""
        return [self.iterations, *self._slots.values()]

    def named_variables(self, weights: dict[str, Variable]) -> dict[str, Variable]:
        """The step count and all state of some weights, by keys for files.

        Args:
            weights: by their own keys.
        """
        slots = {id(state) for state in self._slots.values()}
        named = {state.name: state for state in self.variables if id(state) not in slots}
        keys = {id(variable): key for key, variable in weights.items()}
        for (parameter, name), state in self._slots.items():
            if parameter in keys:
                named[f"{keys[parameter]}/{name}"] = state
        return named

    def to(self, gpu: int | None) -> None:
        """Moves all that the optimizer keeps to a GPU, or to the host's memory."""
        numbers = [v for number in self._per_step.values() for v in number.variables]
        for variable in [*self.variables, *self._rates.values(), *numbers]:
            variable.to(gpu)

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Variable] | None = None,
        var_names: Iterable[str] | None = None,
    ) -> None:
        """Says which weights have no weight decay; before the first update.

        Args:
            var_list: these.
            var_names: those in whose names one of these is found, such as "bias"; regular
                expressions.
        """
        if self._recorded:
            raise ValueError(
                "exclude_from_weight_decay: expected an optimizer that was not used yet"
            )
        chosen = list(var_list or [])
        patterns = [re.compile(name) for name in var_names or []]
        self._undecayed = lambda variable: (
            any(variable is one for one in chosen)
            or any(pattern.search(variable.name) for pattern in patterns)
        )

    def finalize_variable_values(self, var_list: Iterable[Variable]) -> None:
        """The end of training: with `use_ema`, averages take the place of weights."""
        for variable in var_list:
            average = self._slots.get((id(variable), "average"))
            if average is not None and int(self.iterations.host()[-1]) > 0:
                variable.assign(average.host())

    # ---- a step ----------------------------------------------------------------------------------

    def record(
        self,
        gradients: Sequence[Symbol],
        variables: Sequence[Variable],
        penalties: bool = True,
    ) -> list[Node]:
        """Records one update of the variables, step count first.

        Args:
            penalties: whether the gradients of regularizers' penalties are still to be added.
        """
        self._recorded = True
        count = _core.Elementwise(size=1)
        nodes = [graph.update("next_step", count, [self.iterations.symbol])]
        nodes += self._record_numbers(variables)
        pairs = list(zip(gradients, variables, strict=True))
        changed = self._clipped(
            [
                v.regularizer.add_to(gradient, v) if penalties and v.regularizer else gradient
                for gradient, v in pairs
            ]
        )
        nodes += self._record_decay(variables)
        nodes += self._record_shared()
        # Those that are the sums of a depth-first program as they are come last: adding these up
        # and the update are one there.
        plain = [
            new is old and v.constraint is None
            for new, (old, v) in zip(changed, pairs, strict=True)
        ]
        for last in (False, True):
            group = [
                (gradient, v)
                for gradient, v, is_plain in zip(changed, variables, plain, strict=True)
                if is_plain is last
            ]
            nodes += [self.update(gradient, v, self._rate_of(v.dtype)) for gradient, v in group]
            for _, v in group:
                nodes += self._record_average(v)
            nodes += [v.constraint.record(v) for _, v in group if v.constraint is not None]
        return nodes

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        """Records the update of one variable."""
        raise TypeError(f"{type(self).__name__}: a subclass of Optimizer must define update")

    def _record_shared(self) -> list[Node]:
        """What all updates of a step share."""
        return []

    def _record_numbers(self, variables: Sequence[Variable]) -> list[Node]:
        """Takes this step's numbers from their tables."""
        made = []
        for dtype in dict.fromkeys(v.dtype for v in variables):
            if self._schedule is not None:
                made.append(self._number_of_step("learning_rate", dtype))
            if self.use_ema:
                # The first average is the weights themselves.
                shares = (-1.0, self.ema_momentum - 1.0)
                made.append(self._number_of_step("minus_share", dtype, shares))
            if self.use_ema and self.ema_overwrite_frequency is not None:
                made.append(self._number_of_step("overwrite", dtype))
        if made:
            self.prepare(None, 1)
        return [number.record(self.iterations.symbol) for number in made]

    def _clipped(self, gradients: list[Symbol]) -> list[Symbol]:
        if self.clipvalue:
            return [_limited("clip_value", g, self.clipvalue) for g in gradients]
        if self.clipnorm:
            return [_limited("clip_norm", g, self.clipnorm, _squares(g)) for g in gradients]
        if self.global_clipnorm:
            squares = None
            for gradient in gradients:
                squares = _squares(gradient, squares)
            return [_limited("clip_norm", g, self.global_clipnorm, squares) for g in gradients]
        return gradients

    def _record_decay(self, variables: Sequence[Variable]) -> list[Node]:
        if not self.weight_decay:
            return []
        return [
            _decay(variable, self._rate_of(variable.dtype), self.weight_decay)
            for variable in variables
            if not self._undecayed(variable)
        ]

    def _record_average(self, variable: Variable) -> list[Node]:
        """average += share * (variable - average), and the average in the variable's place."""
        if not self.use_ema:
            return []
        average = self.slot(variable, "average")
        share = self._number_of_step("minus_share", variable.dtype).value
        nodes = _mix(variable, average, share)
        if self.ema_overwrite_frequency is not None:
            now = self._number_of_step("overwrite", variable.dtype).value
            nodes += _mix(average, variable, now)
        return nodes

    # ---- a loop of one's own ---------------------------------------------------------------------

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable]) -> None:
        """Updates variables by gradients that are there: a step of a training loop of one's own.

        Args:
            grads: an array for each variable, of its shape, as `value_and_grad` gives them: those
                of penalties are in them.
            trainable_variables: all on one device and of one dtype.
        """
        variables = list(trainable_variables)
        if len(grads) != len(variables):
            raise geometry.fail("apply", f"{len(variables)} gradients", len(grads))
        if not variables:
            return
        key = tuple(id(variable) for variable in variables)
        program, gradients = self._applied.get(key, (None, []))
        if program is None or program.forgotten:
            gradients = [
                Variable(np.zeros(v.shape, v.dtype), f"{v.name}/gradient", trainable=False)
                for v in variables
            ]
            nodes = self.record([gradient.symbol for gradient in gradients], variables, False)
            program = Program(variables[0].dtype, effects=nodes, gpu=variables[0].gpu)
            self._applied[key] = program, gradients
        for gradient, value in zip(gradients, grads, strict=True):
            _put(gradient, value)
        self.prepare(None, 1)
        program.run(0, 1, 1)
        graph.touch()

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> None:
        """`apply` for pairs of a gradient and a variable."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    # ---- configuration ---------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        rate = self._rate if self._schedule is None else self._schedule
        return {
            "learning_rate": configuration.plain(rate, f"{type(self).__name__}: learning_rate"),
            **configuration.config_of(self, leave_out=("learning_rate",)),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """An optimizer like the one whose `get_config` gave this, without its state."""
        rate = registered.made(config["learning_rate"], "schedules")
        if isinstance(rate, str):
            rate = registered.found(rate, "schedules")
        return cls(**{**config, "learning_rate": rate})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles, and copies by `copy`, have the arguments, not the state: that is a model's."""
        config = configuration.config_of(self, leave_out=("learning_rate",))
        return _made, (type(self), {**config, "learning_rate": self._schedule or self._rate})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, learning_rate {self.learning_rate:g}>"


def _made(cls: type[Optimizer], config: dict[str, Any]) -> Optimizer:
    return cls(**config)


def _put(gradient: Variable, value: Any) -> None:
    """Assigns an array, which stays on the GPU if it is there as the variable."""
    gpu = gradient.gpu
    if gpu is None or not device.is_device_array(value):
        gradient.assign(value)
        return
    value = device.as_array("apply", gradient.name, value)
    geometry.same_shape("apply", gradient.name, value.shape, gradient.shape)
    with device.on(gpu):
        gradient.value[...] = value


# ---- nodes that surround updates -----------------------------------------------------------------


def _limited(kernel: str, gradient: Symbol, limit: float, *squares: Symbol | None) -> Symbol:
    spec = _core.Clip(size=_size(gradient), limit=limit)
    inputs = [gradient, *squares]
    return graph.call(kernel, spec, None, inputs, [gradient.shape], gradient.dtype)[0]  # type: ignore[no-any-return]


def _squares(x: Symbol, before: Symbol | None = None) -> Symbol:
    spec = _core.Elementwise(size=_size(x))
    return graph.call("square_sum", spec, None, [x, before], [(1,)], x.dtype)[0]  # type: ignore[no-any-return]


def _size(symbol: Symbol) -> int:
    return int(np.prod([size or 0 for size in symbol.shape], dtype=np.int64))


def _decay(variable: Variable, rate: Variable, share: float) -> Node:
    """variable -= rate * share * variable"""
    spec = _core.Decay(size=variable.value.size, rate=share)
    return graph.update("weight_decay", spec, [rate.symbol, variable.symbol])


def _mix(value: Variable, into: Variable, minus_share: Variable) -> list[Node]:
    """into += share * (value - into), exactly the value where the share is 1."""
    spec = _core.Sgd(size=into.value.size, momentum=0.0, nesterov=0)
    inputs = [minus_share.symbol, value.symbol, None, into.symbol]
    return [_decay(into, minus_share, -1.0), graph.update("sgd", spec, inputs)]


# ---- update rules --------------------------------------------------------------------------------


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's look-ahead (Sutskever et al.).

    v = momentum * v - learning_rate * g; w += v, or w += momentum * v - learning_rate * g.

    Args:
        learning_rate: at least 0, or a schedule.
        momentum: 0 <= momentum < 1.
        nesterov: whether the step looks ahead; needs momentum to make a difference.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = self._number("momentum", momentum, 1)
        self.nesterov = bool(nesterov)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        velocity = self.slot(variable, "velocity").symbol if self.momentum else None
        spec = _core.Sgd(
            size=variable.value.size, momentum=self.momentum, nesterov=int(self.nesterov)
        )
        return graph.update("sgd", spec, [rate.symbol, gradient, velocity, variable.symbol])


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with epsilon added outside the bias correction, as Keras does.

    Args:
        learning_rate: at least 0, or a schedule.
        beta_1, beta_2: 0 <= beta < 1, decay of the first and second moments.
        epsilon: at least 0, added to the square root of the second moment.
        amsgrad: whether the largest second moment so far takes its place (Reddi et al., 2018).
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = self._number("beta_1", beta_1, 1)
        self.beta_2 = self._number("beta_2", beta_2, 1)
        self.epsilon = self._number("epsilon", epsilon)
        self.amsgrad = bool(amsgrad)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Adam(
            size=variable.value.size,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )
        slots = [self.slot(variable, "m").symbol, self.slot(variable, "v").symbol]
        if self.amsgrad:
            slots.append(self.slot(variable, "v_hat").symbol)
        return graph.update(
            "amsgrad" if self.amsgrad else "adam",
            spec,
            [rate.symbol, self.iterations.symbol, gradient, *slots, variable.symbol],
        )


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019).

    Args:
        learning_rate: at least 0, or a schedule.
        weight_decay: at least 0, as of `Optimizer`.
        beta_1, beta_2, epsilon, amsgrad: those of `Adam`.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        decay = self._number("weight_decay", weight_decay)
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=decay, **options
        )


class Nadam(Optimizer):
    """Adam with Nesterov's look-ahead (Dozat, 2016).

    Args:
        learning_rate: at least 0, or a schedule.
        beta_1, beta_2: 0 <= beta < 1, decay of the first and second moments.
        epsilon: at least 0, added to the square root of the second moment.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = self._number("beta_1", beta_1, 1)
        self.beta_2 = self._number("beta_2", beta_2, 1)
        self.epsilon = self._number("epsilon", epsilon)
        # Of the decays of the first moment: this step's, the next one's, and the product of all.
        self._products = Variable(np.array([0.0, 0.0, 1.0]), "products", trainable=False)

    @property
    def variables(self) -> list[Variable]:
        return [*super().variables, self._products]

    def _spec(self, size: int) -> Any:
        return _core.Nadam(size=size, beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon)

    def _record_shared(self) -> list[Node]:
        inputs = [self.iterations.symbol, self._products.symbol]
        return [graph.update("nadam_products", self._spec(0), inputs)]

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        return graph.update(
            "nadam",
            self._spec(variable.value.size),
            [
                rate.symbol,
                self.iterations.symbol,
                self._products.symbol,
                gradient,
                self.slot(variable, "m").symbol,
                self.slot(variable, "v").symbol,
                variable.symbol,
            ],
        )


class RMSprop(Optimizer):
    """RMSprop (Hinton, Srivastava and Swersky, 2012), with epsilon under the root, as Keras does.

    Args:
        learning_rate: at least 0, or a schedule.
        rho: 0 <= rho < 1, decay of the mean of squared gradients.
        momentum: 0 <= momentum < 1.
        epsilon: at least 0, added to the mean of squares.
        centered: whether the variance takes the place of the mean of squares (Graves, 2013).
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = self._number("rho", rho, 1)
        self.momentum = self._number("momentum", momentum, 1)
        self.epsilon = self._number("epsilon", epsilon)
        self.centered = bool(centered)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Rmsprop(
            size=variable.value.size, rho=self.rho, momentum=self.momentum, epsilon=self.epsilon
        )
        slots = [
            self.slot(variable, "velocity").symbol,
            self.slot(variable, "momentum").symbol if self.momentum else None,
            self.slot(variable, "average_gradient").symbol if self.centered else None,
        ]
        return graph.update("rmsprop", spec, [rate.symbol, gradient, *slots, variable.symbol])


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer, 2011).

    Args:
        learning_rate: at least 0, or a schedule.
        initial_accumulator_value: at least 0; the sum of squared gradients begins with it.
        epsilon: at least 0, added to the sum of squares.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = self._number(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.epsilon = self._number("epsilon", epsilon)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Adagrad(size=variable.value.size, epsilon=self.epsilon)
        sums = self.slot(variable, "accumulator", self.initial_accumulator_value).symbol
        return graph.update("adagrad", spec, [rate.symbol, gradient, sums, variable.symbol])


class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012).

    Args:
        learning_rate: at least 0, or a schedule; 1 is the method as published.
        rho: 0 <= rho < 1, decay of the means of squares.
        epsilon: at least 0, added to the means of squares.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = self._number("rho", rho, 1)
        self.epsilon = self._number("epsilon", epsilon)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Adadelta(size=variable.value.size, rho=self.rho, epsilon=self.epsilon)
        slots = [
            self.slot(variable, "accumulated_gradient").symbol,
            self.slot(variable, "accumulated_delta").symbol,
        ]
        return graph.update("adadelta", spec, [rate.symbol, gradient, *slots, variable.symbol])


class Lion(Optimizer):
    """Lion (Chen et al., 2023): steps of one size, in the direction of the momentum's sign.

    Args:
        learning_rate: at least 0, or a schedule.
        beta_1: 0 < beta_1 <= 1, share of the momentum in the direction.
        beta_2: 0 <= beta_2 <= 1, decay of the momentum.
        options: those of `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = geometry.between("Lion", "beta_1", beta_1, 0, 1)
        if not self.beta_1:
            raise geometry.fail("Lion", "0 < beta_1 <= 1", beta_1)
        self.beta_2 = geometry.between("Lion", "beta_2", beta_2, 0, 1)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Lion(size=variable.value.size, beta_1=self.beta_1, beta_2=self.beta_2)
        momentum = self.slot(variable, "momentum").symbol
        return graph.update("lion", spec, [rate.symbol, gradient, momentum, variable.symbol])


NAMES: dict[str, Callable[[], Optimizer]] = {
    cls.__name__.lower(): cls for cls in (SGD, Adam, AdamW, Nadam, RMSprop, Adagrad, Adadelta, Lion)
}


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name, a class, an instance or {"class_name": ..., "config": ...}."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()  # type: ignore[call-arg]
    if isinstance(identifier, str):
        name = geometry.choice("optimizers.get", "optimizer", identifier.lower(), tuple(NAMES))
        return NAMES[name]()
    if isinstance(identifier, dict):
        made = registered.made(identifier, "optimizers")
        if isinstance(made, Optimizer):
            return made
    raise TypeError(f"optimizers.get: expected a name or an optimizer, got {identifier!r}")
