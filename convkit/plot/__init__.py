"""Pictures of data, models and training, made with Matplotlib (extra `plot`).

Every function returns a `matplotlib.figure.Figure` and, given `path`, also saves it. Figures stand
on their own: no global state of Matplotlib is read or changed, and no window is opened; in a
notebook a figure shows itself as the last value of a cell.
"""

from convkit.plot.images import feature_maps, filters, predictions
from convkit.plot.overview import overview
from convkit.plot.profile import profile
from convkit.plot.scores import confusion_matrix, history

__all__ = [
    "confusion_matrix",
    "feature_maps",
    "filters",
    "history",
    "overview",
    "predictions",
    "profile",
]
