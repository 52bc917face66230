"""Models: `Sequential`, the functional `Model`, and networks by name."""

from convkit.models.autodiff import value_and_grad
from convkit.models.compiled import CompiledModel
from convkit.models.model import Model, Sequential, clone_model
from convkit.models.saving import load_model
from convkit.models.zoo import alexnet, lenet, mlp, mobilenet, resnet, unet, vgg
from convkit.registered import register

__all__ = [
    "CompiledModel",
    "Model",
    "Sequential",
    "alexnet",
    "clone_model",
    "lenet",
    "load_model",
    "mlp",
    "mobilenet",
    "register",
    "resnet",
    "unet",
    "value_and_grad",
    "vgg",
]
