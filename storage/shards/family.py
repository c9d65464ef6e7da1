"""A family of features: its settings, and the key that represents everything that changes the numbers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from storage.layout import path_name
from storage.shards.features import COLUMNS, VideoFeatures


@dataclass(frozen=True, eq=False)
class Family:
    """One kind of features computed in one way; families with the same key are equal.

    The key changes if and only if a value changes. Numbers count by value (25 and 25.0 are equal); the order of a
    mapping does not count, nor does the difference between a list and a tuple.

    Args:
        name: the kind of features: "faces", "static" or "dynamic".
        dim: numbers in each vector.
        settings: everything that changes those numbers, as JSON values: options, code version, weights.
        quality: names of the additional float32 columns, each with one number per token.

    Raises:
        ValueError: a value is out of range or cannot be represented in JSON.
    """

    name: str
    dim: int
    settings: Mapping[str, Any]
    quality: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        path_name("family name", self.name)
        if type(self.dim) is not int or self.dim < 1:
            raise ValueError(f"dim must be a whole number of at least 1, not {self.dim}")
        if len({*self.quality, *COLUMNS}) != len(self.quality) + len(COLUMNS):
            raise ValueError(f"quality columns must differ from each other and from {COLUMNS}: {self.quality}")
        object.__setattr__(self, "quality", tuple(self.quality))
        # A plain copy: later changes to the caller's objects must not change the key.
        object.__setattr__(self, "settings", _plain(dict(self.settings)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Family) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """The first sixteen hexadecimal characters of the SHA-256 of the canonical JSON of all values."""
        return _key(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON represents them."""
        return {
            "name": self.name,
            "dim": self.dim,
            "quality": list(self.quality),
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Family:
        """Build a family from the values of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: they are not the values of a family.
        """
        return cls(**values)

    def check(self, video: VideoFeatures) -> None:
        """Refuse features that do not belong to this family.

        Raises:
            ValueError: the length of the vectors or the names of the quality columns differ.
        """
        if video.vectors.shape[1] != self.dim:
            raise ValueError(
                f"{video.video_id}: {self.name} vectors have {self.dim} numbers, not {video.vectors.shape[1]}"
            )
        if set(video.quality) != set(self.quality):
            raise ValueError(f"{video.video_id}: {self.name} has quality {self.quality}, not {tuple(video.quality)}")


def key_before_manifest(family: Family) -> str:
    """Return the key that a family had while the version of the shards' layout was a part of it."""
    return _key({**family.to_dict(), "schema_version": 1})


def known_keys(family: Family) -> tuple[str, str]:
    """Return the keys by which models name a family: the present one, and that of models of before the manifest."""
    return family.key, key_before_manifest(family)


def canonical_json(value: Any) -> str:
    """Serialise a value to JSON uniquely: sorted keys, no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _key(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Copy into plain JSON values, with whole floats as integers, so that equal settings have equal JSON."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"settings must be finite numbers, not {value}")
            return int(value) if value.is_integer() else value
        case Mapping():
            if not all(isinstance(name, str) for name in value):
                raise ValueError(f"names of settings must be text: {list(value)}")
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    raise ValueError(f"settings must be JSON values, not {type(value).__name__} {value!r}")
