"""What a process of Traitline imports: Keras without libraries that only its wrappers and pictures need."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from flows.session.environment import settle_environment
settle_environment()
settle_environment()
import keras
print(sorted({"matplotlib", "sklearn"} & sys.modules.keys()))
import matplotlib.pyplot
from sklearn.linear_model import Ridge
print(Ridge.__name__, keras.layers.Dense(1)(keras.ops.ones((1, 2))).shape)
"""


def test_keras_does_without_what_nothing_here_uses_and_others_import_it():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "Ridge (1, 1)"]
