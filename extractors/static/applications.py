"""The table of keras.applications' networks, without their heads, as describers of face crops.

All take the crops as they are, 224 x 224; their pooled outputs do not depend on a fixed size. Listed are those whose
weights Keras checks by a digest of its own.

Sources:
    keras.applications (Keras 3.15): constructors, preprocess_input, names and digests of the weights without heads.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from extractors.networks import Preprocessing

SOURCE = "https://storage.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Application:
    """A network of keras.applications.

    Args:
        constructor: its name there.
        preprocessing: of its input; those with "0-255" have layers for it.
        dim: numbers in its pooled output.
        weights: where the weights without head lie, below `SOURCE`.
        digest: of them, as Keras states it, "<algorithm>:<hex>".
    """

    constructor: str
    preprocessing: Preprocessing
    dim: int
    weights: str
    digest: str

    @property
    def file_name(self) -> str:
        """The name that Keras keeps the weights under."""
        return self.weights.rpartition("/")[2]


def _table() -> dict[str, Application]:
    table = tomllib.loads((Path(__file__).parent / "applications.toml").read_text(encoding="utf-8"))
    return {name: Application(**entry) for name, entry in table.items()}


APPLICATIONS = _table()
"""The networks by name, which is that of their constructor in lower case."""
