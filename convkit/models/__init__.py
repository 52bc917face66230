"""Models: `Sequential`, the functional `Model`, and networks by name."""

from convkit.models.compiled import CompiledModel
from convkit.models.model import Model, Sequential
from convkit.models.zoo import lenet

__all__ = ["CompiledModel", "Model", "Sequential", "lenet"]
