"""Configurations: what a constructor was given, read from its signature and the attributes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from convkit.configuration import Configured, config_of, described, plain


class Base(Configured):
    def __init__(self, *, name=None, trainable=True, **unknown):
        self.name, self.trainable = name, trainable


class Scale(Base):
    def __init__(self, factor, sizes=(1, 2), inner=None, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.sizes, self.inner = factor, sizes, inner


class Silent(Base):
    """Has the constructor of another."""


class Forgetful(Configured):
    def __init__(self, factor):
        self.size = factor


def test_arguments_come_in_their_order_with_those_of_the_classes_behind():
    made = Scale(2.5, name="s")
    assert config_of(made) == {
        "factor": 2.5,
        "sizes": (1, 2),
        "inner": None,
        "name": "s",
        "trainable": True,
    }
    assert list(made.get_config()) == ["factor", "sizes", "inner", "name", "trainable"]
    assert config_of(made, ("sizes", "name")) == {"factor": 2.5, "inner": None, "trainable": True}
    assert config_of(Silent(name="x")) == {"name": "x", "trainable": True}


def test_an_object_is_made_again():
    made = Scale(np.float32(0.5), [3], Scale(1))
    config = json.loads(json.dumps(made.get_config()))
    assert config["inner"] == json.loads(json.dumps(described(Scale(1))))
    again = Scale.from_config(config)
    assert type(again) is Scale
    assert (again.factor, again.sizes) == (0.5, [3])


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (None, None),
        (True, True),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, 2.0]]), [[1.0, 2.0]]),
        ((1, [2, np.float64(0.5)]), (1, [2, 0.5])),
        ({"a": np.int32(1), 2: "b"}, {"a": 1, "2": "b"}),
        (plain, "plain"),
        (Silent(name="x"), {"class_name": "Silent", "config": {"name": "x", "trainable": True}}),
    ],
)
def test_values_are_what_json_holds(value, right):
    found = plain(value, "x")
    assert found == right
    assert type(found) is type(right)
    json.dumps(found)


def test_what_cannot_be_written_down_is_an_error():
    with pytest.raises(TypeError, match="Scale: factor: expected a value that can be written down"):
        config_of(Scale(object()))
    with pytest.raises(TypeError, match="can be written down"):
        config_of(Scale(lambda x: x))
    with pytest.raises(TypeError, match="Forgetful: expected its argument factor to be kept"):
        Forgetful(1).get_config()


def test_objects_are_described_by_class_and_configuration():
    assert described(Silent())["class_name"] == "Silent"
