"""The course's program as its slides have it, but for `import convkit as keras`."""

from __future__ import annotations

import os

import numpy as np
import pytest

import convkit as keras

SAMPLES = 2000


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST where CONVKIT_DATA says that it is there, else the digits inside the package."""
    keras.utils.set_random_seed(0)
    if os.environ.get("CONVKIT_DATA"):
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
        x_train, y_train = x_train[:SAMPLES], y_train[:SAMPLES]
        x_test, y_test = x_test[:500], y_test[:500]
    else:
        (x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data(size=28)
    x_train = x_train.reshape(x_train.shape[0], 28, 28, 1)
    x_test = x_test.reshape(x_test.shape[0], 28, 28, 1)
    return x_train / 255.0, y_train, x_test / 255.0, y_test


def deck_model():
    model = keras.models.Sequential()
    model.add(
        keras.layers.Conv2D(
            filters=6,
            kernel_size=5,
            strides=(1, 1),
            padding="same",
            input_shape=(28, 28, 1),
            data_format="channels_last",
            activation="relu",
        )
    )
    model.add(keras.layers.MaxPooling2D(pool_size=(2, 2), strides=(2, 2)))
    model.add(
        keras.layers.Conv2D(
            filters=16, kernel_size=5, strides=(1, 1), padding="valid", activation="relu"
        )
    )
    model.add(keras.layers.MaxPooling2D(pool_size=(2, 2), strides=(2, 2)))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(120, input_shape=(400,), activation="relu"))
    model.add(keras.layers.Dense(84, input_shape=(120,), activation="relu"))
    model.add(keras.layers.Dense(units=10, activation="softmax"))
    return model


def test_the_program_trains_and_recognises_digits(data):
    x_train, y_train, x_test, y_test = data
    keras.utils.set_random_seed(0)
    model = deck_model()
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    history = model.fit(x_train, keras.utils.to_categorical(y_train), epochs=6, batch_size=32)
    assert set(history.history) == {"accuracy", "loss"}
    predicted = model.predict(x_test, batch_size=128).argmax(axis=1)
    loss, accuracy = model.evaluate(x_test, keras.utils.to_categorical(y_test))
    assert accuracy == pytest.approx(np.mean(predicted == y_test), abs=1e-6)
    assert accuracy > 0.85
    assert 0 < loss < 1


def test_the_program_with_mean_squared_error_and_sgd_learns(data):
    x_train, y_train, *_ = data
    keras.utils.set_random_seed(0)
    model = deck_model()
    model.compile(loss="mean_squared_error", optimizer="sgd", metrics=["accuracy"])
    y_train = keras.utils.to_categorical(y_train)
    history = model.fit(x_train, y_train, epochs=2, batch_size=32).history
    assert history["loss"][1] < history["loss"][0] < 0.1


def test_the_decks_integer_labels_get_an_error_that_says_what_to_do(data):
    x_train, y_train, *_ = data
    model = deck_model()
    for loss in ("categorical_crossentropy", "mean_squared_error"):
        model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
        with pytest.raises(ValueError, match=r"to_categorical\(y, 10\)") as error:
            model.fit(x_train, y_train, epochs=1, batch_size=32)
        if loss == "categorical_crossentropy":
            assert "sparse_categorical_crossentropy" in str(error.value)
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(x_train[:64], y_train[:64], epochs=1, batch_size=32)


def test_the_model_of_the_deck_is_lenet():
    deck, lenet = deck_model(), keras.models.lenet()
    assert [type(layer) for layer in deck.layers] == [type(layer) for layer in lenet.layers]
    assert [w.shape for w in deck.get_weights()] == [w.shape for w in lenet.get_weights()]
    lenet.set_weights(deck.get_weights())
    x = np.random.default_rng(0).random((3, 28, 28, 1))
    assert lenet.predict(x).tobytes() == deck.predict(x).tobytes()
