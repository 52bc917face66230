"""Layers, with Keras's names, arguments, defaults and output shapes."""

from convkit.layers.base import Layer
from convkit.layers.core import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    Input,
    InputLayer,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from convkit.layers.merging import Add, Concatenate
from convkit.layers.spatial import AveragePooling2D, Conv2D, MaxPooling2D, UpSampling2D

MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
Convolution2D = Conv2D

__all__ = [
    "Activation",
    "Add",
    "AveragePooling2D",
    "AvgPool2D",
    "Concatenate",
    "Conv2D",
    "Convolution2D",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "InputLayer",
    "Layer",
    "MaxPool2D",
    "MaxPooling2D",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "UpSampling2D",
]
