"""Pictures of data, models and training, made with Matplotlib (extra `plot`).

Every function returns a `matplotlib.figure.Figure` and, given `path`, also saves it. Figures stand
on their own: no global state of Matplotlib is read or changed, and no window is opened; in a
notebook a figure shows itself as the last value of a cell.
"""

from convkit.plot.features import feature_maps, filters, layer_outputs
from convkit.plot.grad_cam import grad_cam, grad_cam_maps
from convkit.plot.images import mistakes, predictions
from convkit.plot.network import model
from convkit.plot.overview import overview
from convkit.plot.profile import profile
from convkit.plot.scores import confusion_matrix, history, learning_rate

__all__ = [
    "confusion_matrix",
    "feature_maps",
    "filters",
    "grad_cam",
    "grad_cam_maps",
    "history",
    "layer_outputs",
    "learning_rate",
    "mistakes",
    "model",
    "overview",
    "predictions",
    "profile",
]
