"""A trained model in one file, for another lab's store.

A bundle is a plain tar file (see `extractors.assets.plain_tar`) with the folder NAME/VERSION: the files of the version
and its card. metadata.json has the calibration, the digests and the keys of the features, but nothing of single clips:
people may have consented to one lab only.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from extractors.assets.files import AssetError
from extractors.assets.plain_tar import check_size, read_headers, read_member, read_sums, write_tar
from flows.archive.model_card import card_of, inputs_of
from flows.archive.model_quality import clips_in_words
from flows.archive.models import ModelReference, check_origin, load_model, without_clips
from flows.archive.uncertainty import stored_uncertainty
from flows.session.errors import UserError
from fusion.settings import UncertaintySettings
from storage.errors import StoreError
from storage.files.paths import StorePath
from storage.layout import path_name
from storage.models.keras_file import MAX_FILE_BYTES
from storage.models.serializer import (
    FILES,
    HISTORY_FILE,
    METADATA_FILE,
    MODEL_FILE,
    ModelSerializer,
    read_metadata,
    sealed,
)

CARD = "README.md"
MAX_TEXT_BYTES = 1 << 24
LARGEST = {
    CARD: MAX_TEXT_BYTES,
    METADATA_FILE: MAX_TEXT_BYTES,
    HISTORY_FILE: MAX_TEXT_BYTES,
    MODEL_FILE: MAX_FILE_BYTES,
}


def export_bundle(root: StorePath, model: ModelReference, goal: Path) -> None:
    """Write a model as a bundle; the same model gives the same bytes.

    Args:
        root: the store.
        model: a version in it.
        goal: the file.

    Raises:
        StoreError: the model is damaged.
        OSError: the bundle cannot be written.
    """
    network, metadata = load_model(root, str(model))
    check_origin(model, metadata)
    card = card_of(model, metadata, FILES, inputs_of(network)).encode()
    files = ModelSerializer(root).files(model.name, model.version)
    contents = {CARD: card, **files, METADATA_FILE: sealed(without_clips(metadata)).encode()}
    write_tar(goal, {f"{model}/{file}": data for file, data in contents.items()})


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds: its path, the model's name and version in it, and that version's files without the card."""

    path: Path
    model: ModelReference
    files: Mapping[str, bytes]


def read_bundle(bundle: Path) -> Bundle:
    """Read a file that `export_bundle` wrote, here or elsewhere, and check everything but the model's own file.

    Raises:
        UserError: the file is not a bundle, is damaged or malicious, or cannot be read.
    """
    try:
        model, files = _read(bundle)
        metadata = read_metadata(files[METADATA_FILE], METADATA_FILE)
        check_origin(model, metadata)
        _check_metadata(model, metadata)
    except (AssetError, StoreError, UserError) as error:
        raise UserError(f"{bundle} is rejected: {error}; nothing of it was imported") from error
    except OSError as error:
        raise UserError(f"cannot read the bundle {bundle}: {error.strerror or error}") from error
    return Bundle(bundle, model, files)


def import_bundle(bundle: Bundle, root: StorePath, name: str) -> ModelReference:
    """Add the model of a bundle to a store, as the next version of a name; nothing of a rejected bundle remains.

    Raises:
        UserError: the model's own file is damaged or malicious.
        ValueError: the name cannot be that of a model.
    """
    import fusion.model.kinds  # noqa: F401  # registers the classes; Keras takes seconds to import

    try:
        return ModelReference(name, ModelSerializer(root).add(name, bundle.files))
    except StoreError as error:
        raise UserError(f"{bundle.path} is rejected: {error}; nothing of it was imported") from error


def _read(bundle: Path) -> tuple[ModelReference, dict[str, bytes]]:
    """Return the model in a bundle, and the files of its version, without the card."""
    with bundle.open("rb") as stream:
        members = read_headers(stream, _check_header)
        sums = read_sums(stream, members)
        folders = {member.name.rpartition("/")[0] for member in members[1:]}
        names = {member.name.rpartition("/")[2] for member in members[1:]}
        if len(folders) != 1 or names != set(LARGEST):
            raise AssetError(f"it does not hold one model with the files {', '.join(LARGEST)}")
        files = {}
        for member in members[1:]:
            data = b"".join(read_member(stream, member))
            if hashlib.sha256(data).hexdigest() != sums[member.name]:
                raise AssetError(f"{member.name!r} is damaged: its SHA-256 differs from the one in SHA256SUMS")
            files[member.name.rpartition("/")[2]] = data
    del files[CARD]
    name, _, version = folders.pop().partition("/")
    return ModelReference(name, version), files


def _check_header(header: tarfile.TarInfo) -> None:
    name, _, rest = header.name.partition("/")
    version, _, file = rest.partition("/")
    try:
        path_name("model name", name)
    except ValueError as error:
        raise AssetError(f"{header.name!r} does not belong in a bundle") from error
    if not re.fullmatch("[1-9][0-9]*", version) or file not in LARGEST:
        raise AssetError(f"{header.name!r} does not belong in a bundle")
    check_size(header, LARGEST[file])


def _check_metadata(model: ModelReference, metadata: Mapping[str, Any]) -> None:
    """Read metadata as all commands do, so that they can rely on it afterwards."""
    stored_uncertainty(UncertaintySettings(), metadata)
    try:
        card_of(model, metadata, FILES, [])
        clips_in_words(metadata)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{METADATA_FILE} does not describe a model: {type(error).__name__}: {error}") from error
