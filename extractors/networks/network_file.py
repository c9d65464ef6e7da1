"""A network in a user's own file, .onnx or .keras: what it takes and gives, and how it is run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from extractors.assets.files import AssetError
from extractors.networks.backbone import Describer
from extractors.networks.signature import FileRefusedError, Run, Shape, Signature

REVISION = 1  # part of the cache key: raise it if this code's results change
MAX_FILE_BYTES = 2**31  # bytes; a ViT-L has 1.2 GB


@dataclass(frozen=True)
class FileBackbone:
    """A network in a user's own file. See `extractors.networks.backbone.Backbone`.

    Args:
        path: ends in .onnx or .keras.
        noun: of what it describes, for messages.
        adapt: brings one item, with its batch axis, into the form of the network's input.
        choices: what else changes the numbers, for the key: preprocessing, side.
        output: name of the output to use; may be None if there is only one.
        wanted_dim: numbers in each vector; None for what the file states.
        section: "static" or "dynamic", whose settings these are, for messages.
    """

    path: Path
    noun: str
    adapt: Callable[[np.ndarray], np.ndarray]
    choices: Mapping[str, Any]
    output: str | None
    wanted_dim: int | None
    section: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def dim(self) -> int:
        """Numbers in each vector, as the file states."""
        return self._chosen[1]

    @property
    def numerics(self) -> dict[str, Any]:
        """Everything that changes the numbers. The file's name and place do not."""
        kind, digest = self.path.suffix.lower().removeprefix("."), read_file(self.path)[0]
        return {"network": kind, "revision": REVISION, "digest": digest, "output": self._chosen[0], **self.choices}

    @cached_property
    def _chosen(self) -> tuple[str, int]:
        outputs, setting = read_file(self.path)[1].outputs, f"{self.section}.output"
        shown = ", ".join(f"{name} {_shown(shape)}" for name, shape in outputs.items())
        if self.output is None and len(outputs) > 1:
            raise AssetError(f"{self.path} has several outputs; choose one with {setting}: {shown}")
        name = self.output if self.output is not None else next(iter(outputs))
        if name not in outputs:
            raise AssetError(f"{self.path} has no output {name!r}; {setting} can be one of: {shown}")
        sizes = outputs[name][1:]
        # A pooled map [N, D, 1, 1] is a vector, too.
        if not sizes or None in sizes or sum(size != 1 for size in sizes) > 1:
            raise AssetError(
                f"{self.path}: output {name} is {_shown(outputs[name])}, not a vector [N, D] of known length for each "
                f"{self.noun}; pool it within the network, or choose another with {setting}: {shown}"
            )
        dim = math.prod(size for size in sizes if size is not None)
        if self.wanted_dim not in (None, dim):
            raise AssetError(
                f"{self.path}: output {name} has {dim:,} numbers, not {self.section}.output_dim {self.wanted_dim:,}"
            )
        return name, dim

    def fetch(self) -> None:
        """Check that the file can be used."""
        if self.path.suffix.lower() == ".onnx":
            from extractors.networks.onnx_file import check_runtime

            check_runtime(self.path)
        _ = self.numerics

    def build(self) -> Describer:
        """Open the network."""
        digest, (name, dim) = read_file(self.path)[0], self._chosen
        self.fetch()
        data = _bytes_of(self.path)
        if _digest_of(data) != digest:
            raise AssetError(f"{self.path} has changed while it was in use; run the command again")
        return _FileNetwork(self, _naming(self.path, _library(self.path).open_network, data, name), dim)


@dataclass(frozen=True)
class _FileNetwork:
    backbone: FileBackbone
    run: Run
    dim: int

    def extract(self, items: np.ndarray) -> np.ndarray:
        path = self.backbone.path
        vectors = np.empty((len(items), self.dim), np.float32)
        # One by one: libraries add up in another order in batches of other sizes.
        for row in range(len(items)):
            found = _naming(path, self.run, self.backbone.adapt(items[row : row + 1]))
            if found.size != self.dim:
                raise AssetError(f"{path} gives {list(found.shape)}, but states a vector of {self.dim:,} numbers")
            if not np.isfinite(found).all():
                raise AssetError(f"{path} gives NaN or infinity for a {self.backbone.noun}")
            vectors[row] = found.reshape(-1)
        return vectors


def read_file(path: Path) -> tuple[str, Signature]:
    """Return the digest of a network's file and what it takes and gives.

    Raises:
        AssetError: it cannot be read, or is not a network that can be used; names the reason.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise AssetError(f"cannot read the network {path}: {error.strerror or error}") from error
    return _read(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=8)
def _read(path: Path, *version: int) -> tuple[str, Signature]:
    """Read a file once per version of it, because settings become keys many times in a command."""
    data = _bytes_of(path)
    return _digest_of(data), _naming(path, _library(path).read_signature, data)


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise AssetError(f"{path} has {size:,} bytes; a network may have {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise AssetError(f"cannot read the network {path}: {error.strerror or error}") from error


def _digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _library(path: Path) -> Any:
    if path.suffix.lower() == ".onnx":
        from extractors.networks import onnx_file

        return onnx_file
    from extractors.networks import keras_file

    return keras_file


def _naming(path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, and name the file if it refuses."""
    try:
        return call(*arguments)
    except FileRefusedError as refused:
        raise AssetError(f"cannot use the network {path}: {refused}") from refused


def _shown(shape: Shape) -> str:
    return f"[{', '.join('N' if axis == 0 else str(size or '?') for axis, size in enumerate(shape))}]"
