"""Callbacks: what `fit` calls as it goes, with Keras's names, arguments and defaults."""

from convkit.callbacks.base import Callback, CallbackList, History, Logs, ProgressBar, describe
from convkit.callbacks.checkpoints import BackupAndRestore, ModelCheckpoint
from convkit.callbacks.control import (
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from convkit.callbacks.records import CSVLogger, TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "describe",
]
