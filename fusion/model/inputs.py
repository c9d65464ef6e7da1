"""The inputs of a model: a pair of arrays or a dict, and one clear error if they do not fit the model or each other."""

from __future__ import annotations

from typing import Any

import keras

from fusion.errors import InputError

KINDS = ("static", "dynamic")
NAMES = frozenset(f"{kind}{part}" for kind in KINDS for part in ("", "_mask", "_time_s"))

Shape = tuple[int | None, ...]


def by_name(inputs: Any) -> dict[str, Any]:
    """Return the inputs as a dict, of a dict or of the pair (static, dynamic).

    Raises:
        InputError: they are neither, an input is missing, or a name is unknown.
    """
    if isinstance(inputs, dict):
        unknown, missing = sorted(inputs.keys() - NAMES), [kind for kind in KINDS if inputs.get(kind) is None]
        if unknown or missing:
            raise InputError(
                f"inputs must have the names static and dynamic, and may have {', '.join(sorted(NAMES - set(KINDS)))}; "
                f"got {', '.join(sorted(map(str, inputs)))}"
            )
        return inputs
    if not isinstance(inputs, tuple | list) or len(inputs) != 2:
        given = f"{len(inputs)} inputs" if isinstance(inputs, tuple | list) else type(inputs).__name__
        raise InputError(f"inputs must be the pair (static, dynamic) or a dict of arrays, got {given}")
    return dict(zip(KINDS, inputs, strict=True))


def check_inputs(inputs: Any, static_dim: int, dynamic_dim: int) -> None:
    """Check the shapes of a model's inputs, as far as they are known.

    Args:
        inputs: see `CompletePersonalityModel.call`.
        static_dim: length of a static token.
        dynamic_dim: length of a dynamic token.

    Raises:
        InputError: an input does not fit. Its message names the input, the expected shape and the given one.
    """
    given = {name: _shape(value) for name, value in by_name(inputs).items() if value is not None}
    dims = {"static": static_dim, "dynamic": dynamic_dim}
    for kind, dim in dims.items():
        shape = given[kind]
        if len(shape) not in (2, 3) or shape[-1] not in (dim, None) or 0 in shape[1:]:
            swapped = [given[name][-1:] for name in KINDS] == [(dynamic_dim,), (static_dim,)]
            hint = "; static and dynamic seem to be swapped" if swapped else ""
            raise InputError(f"{kind} must be [B, {dim}] or [B, T, {dim}], got {_text(shape)}{hint}")
    clips = given["static"][0]
    if not _fits(given["dynamic"][:1], (clips,)):
        raise InputError(f"dynamic must have as many clips as static, {clips}, got {given['dynamic'][0]}")
    for name, shape in given.items():
        kind = name.partition("_")[0]
        tokens = given[kind][:2] if len(given[kind]) == 3 else (given[kind][0], 1)
        if name != kind and not _fits(shape, tokens):
            raise InputError(f"{name} must be {_text(tokens)}, like the tokens of {kind}, got {_text(shape)}")


class CheckedModel(keras.Model):
    """A model of static and dynamic tokens that refuses inputs that do not fit, whichever way it is called.

    The check comes before Keras' own code, which would wrap its error in several others.

    Raises:
        InputError: by all methods here, see `check_inputs`.
    """

    static_dim: int
    dynamic_dim: int

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Score clips, see `call`."""
        check_inputs(inputs, self.static_dim, self.dynamic_dim)
        return super().__call__(inputs, *args, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as Keras does, on arrays or on a dataset of batches."""
        return super().fit(self._checked(x), *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as Keras does, on arrays or on a dataset of batches."""
        return super().evaluate(self._checked(x), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Score as Keras does, arrays or a dataset of batches."""
        return super().predict(self._checked(x), *args, **kwargs)

    def _checked(self, inputs: Any) -> Any:
        if isinstance(inputs, dict | tuple | list):
            check_inputs(inputs, self.static_dim, self.dynamic_dim)
        return inputs


def _shape(value: Any) -> Shape:
    if not hasattr(value, "shape"):
        value = keras.ops.convert_to_numpy(value)
    shape: Shape = tuple(value.shape)
    return shape


def _fits(shape: Shape, expected: Shape) -> bool:
    if len(shape) != len(expected):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
