"""The inputs of a model: a pair of arrays or a dict, and one clear error if they do not fit the model or each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fusion.errors import InputError

KINDS = ("static", "dynamic")
NAMES = frozenset(f"{kind}{part}" for kind in KINDS for part in ("", "_mask", "_time_s"))

Shape = tuple[int | None, ...]


def by_name(inputs: Any) -> dict[str, Any]:
    """Return the inputs as a dict, of a dict or of the pair (static, dynamic); those that are None are left out.

    Raises:
        InputError: they are neither, an input is missing, or a name is unknown.
    """
    if isinstance(inputs, dict):
        given = {name: value for name, value in inputs.items() if value is not None}
    elif isinstance(inputs, tuple | list) and len(inputs) == 2:
        given = {kind: value for kind, value in zip(KINDS, inputs, strict=True) if value is not None}
    else:
        got = f"{len(inputs)} inputs" if isinstance(inputs, tuple | list) else type(inputs).__name__
        raise InputError(f"inputs must be the pair (static, dynamic) or a dict of arrays, got {got}")
    if not set(KINDS) <= given.keys() <= NAMES:
        raise InputError(
            f"inputs must have the names static and dynamic, and may have {', '.join(sorted(NAMES - set(KINDS)))}; "
            f"got {', '.join(sorted(map(str, given))) or 'none'}"
        )
    return given


def check_inputs(inputs: Any, static_dim: int, dynamic_dim: int) -> dict[str, Any]:
    """Check the types, shapes and numbers of a model's inputs, as far as they are known before a graph runs.

    Args:
        inputs: see `CompletePersonalityModel.call`.
        static_dim: length of a static token.
        dynamic_dim: length of a dynamic token.

    Returns:
        The inputs by name.

    Raises:
        InputError: an input does not fit. Its message names the input, what it must be, and what is given.
    """
    arrays = by_name(inputs)
    for name, value in arrays.items():
        _check_type(name, value)
    given: dict[str, Shape] = {name: tuple(value.shape) for name, value in arrays.items()}
    dims = {"static": static_dim, "dynamic": dynamic_dim}
    for kind, dim in dims.items():
        shape = given[kind]
        if len(shape) not in (2, 3) or shape[-1] not in (dim, None) or 0 in shape:
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
    for kind in KINDS:
        _check_numbers(kind, arrays)
    return arrays


class CheckedModel(keras.Model):
    """A model of static and dynamic tokens that refuses inputs that do not fit, whichever way it is called.

    The check comes before Keras' own code, which would wrap its error in several others.

    Raises:
        InputError: by all methods here, see `check_inputs`.
    """

    static_dim: int
    dynamic_dim: int

    def __init__(self, **kwargs: Any) -> None:
        """Create the model, and turn TF32 off in this process: float32 then means float32 on a GPU, too."""
        tf.config.experimental.enable_tensor_float_32_execution(False)
        super().__init__(**kwargs)

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

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch as Keras does."""
        return super().train_on_batch(self._checked(x), *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch as Keras does."""
        return super().test_on_batch(self._checked(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Score one batch as Keras does."""
        return super().predict_on_batch(self._checked(x))

    def _checked(self, inputs: Any) -> Any:
        """Return datasets as they are, and arrays by name, vectors as sequences of one token.

        Keras keeps one graph for all calls, which vectors after sequences would leave without a rank.
        """
        if isinstance(inputs, tf.data.Dataset | tf.distribute.DistributedDataset | keras.utils.PyDataset | Iterator):
            return inputs
        arrays = check_inputs(inputs, self.static_dim, self.dynamic_dim)
        return arrays | {kind: arrays[kind][:, None] for kind in KINDS if len(arrays[kind].shape) == 2}


def _check_type(name: str, value: Any) -> None:
    """Refuse anything but an array or tensor of real numbers, or of truth values for a mask."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise InputError(f"{name} must be an array or a tensor, got {type(value).__name__}: use numpy.asarray")
    try:
        dtype = keras.backend.standardize_dtype(value.dtype)
    except ValueError:  # of a type that Keras does not have
        dtype = str(value.dtype)
    if name.endswith("_mask") and dtype != "bool":
        raise InputError(f"{name} must be bool, got {dtype}")
    if not (name.endswith("_mask") or dtype.startswith(("float", "bfloat", "int", "uint"))):
        raise InputError(f"{name} must be real numbers, such as float32, got {dtype}")


def _check_numbers(kind: str, inputs: Mapping[str, Any]) -> None:
    """Refuse a clip without a real token, and a real token or time that is not finite. Padding may hold anything."""
    mask = _numbers(inputs.get(f"{kind}_mask"))
    if mask is not None and not (shown := mask.any(axis=1)).all():
        raise InputError(f"{kind}_mask must mark a real token in each clip, and marks none in clip {shown.argmin()}")
    for name in (kind, f"{kind}_time_s"):
        numbers = _numbers(inputs.get(name))
        if numbers is None:
            continue
        faulty = ~np.isfinite(numbers)
        if name == kind:
            faulty = faulty.any(axis=-1)
        if mask is not None:
            faulty = faulty.reshape(mask.shape) & mask
        if faulty.any():
            clip, *token = np.argwhere(faulty)[0]
            of = "".join(f", token {number}" for number in token)
            raise InputError(f"{name} must be finite, and is not in clip {clip}{of}")


def _numbers(value: Any) -> np.ndarray | None:
    """Return the numbers of an array; None without any, such as those of a graph that has not run."""
    if value is None or isinstance(value, keras.KerasTensor) or tf.is_symbolic_tensor(value):
        return None
    return np.asarray(value)


def _fits(shape: Shape, expected: Shape) -> bool:
    if len(shape) != len(expected):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
