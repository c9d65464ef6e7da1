"""References to models of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.archive.families import Families, model_networks
from flows.config.settings import RunConfig
from flows.session.errors import UserError, did_you_mean
from storage.errors import StoreError, UnreachableError
from storage.files.paths import StorePath, store_path
from storage.models.serializer import LATEST, ModelSerializer
from storage.shards.family import known_keys

if TYPE_CHECKING:
    from fusion.model.kinds import PersonalityModel

# Metadata that scoring and the report need.
_FROM_TRAINING = {"static_key": str, "dynamic_key": str, "weights": str, "settings": dict}


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model of the store, written NAME/VERSION."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def trains(config: RunConfig) -> bool:
    """Tell whether a run with these settings trains a model: it has labels, and names no model."""
    return config.labels is not None and config.model is None


def find_model(root: str | StorePath, reference: str) -> ModelReference:
    """Find a model by NAME (its latest version), NAME/3, NAME/latest or NAME/ALIAS.

    Raises:
        UserError: there is no such store or model; the message names a similar model, or the existing ones.
    """
    name, slash, word = reference.partition("/")
    if not store_path(root).is_dir():
        raise UserError(f"there is no store {root}")
    serializer = ModelSerializer(root)
    try:
        if serializer.versions(name):
            return ModelReference(name, serializer.resolve(name, word if slash else LATEST))
    except UnreachableError:
        raise
    except ValueError as error:
        raise UserError(f"a model is named NAME, NAME/VERSION or NAME/ALIAS; got {reference!r}") from error
    except StoreError:
        pass  # reported below, with the existing models
    known = [
        f"{name}/{word}"
        for name in serializer.names()
        for word in (*serializer.versions(name), *serializer.aliases(name))
    ]
    others = (
        f"there are {', '.join(known)}" if known else "it has no models; `traitline train --labels FILE` trains one"
    )
    raise UserError(f"there is no model {reference} in {root}{did_you_mean(reference, known) or f'; {others}'}")


def load_model(root: str | StorePath, reference: str) -> tuple[PersonalityModel, dict[str, Any]]:
    """Load a trained model, ready for `fusion.predict`. Runs no code from its file.

    Args:
        root: the store.
        reference: NAME (its latest version), NAME/3, NAME/latest or NAME/ALIAS.

    Returns:
        The model, and its metadata: keys of the features, training data, performance, calibration.

    Raises:
        UserError: there is no such store or model.
        StoreError: its files are damaged.
    """
    from fusion.model.kinds import PersonalityModel  # registers the classes that a saved model is made of

    model = find_model(root, reference)
    network, metadata = ModelSerializer(root).load(model.name, model.version)
    if not isinstance(network, PersonalityModel):
        raise UserError(f"{model} is a {type(network).__name__}, not a model of this program; name another")
    return network, metadata


def chosen_model(config: RunConfig) -> ModelReference:
    """Return the model that the settings name, or else the latest that was trained here.

    Raises:
        UserError: there is no such model, or it was not made by `traitline train`.
        StoreError: its metadata are damaged.
    """
    model = find_model(config.store.path, config.train_as if config.model is None else config.model)
    check_origin(model, ModelSerializer(config.store.path).metadata(model.name, model.version))
    return model


def without_clips(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's metadata without those of single training clips: marks, labels and scores."""
    facts = {name: value for name, value in metadata.items() if name != "clip_marks"}
    if facts.get("unseen") is not None:
        facts["unseen"] = {name: value for name, value in facts["unseen"].items() if name != "sample"}
    return facts


def check_origin(model: object, metadata: Mapping[str, Any]) -> None:
    """Raise UserError if a model, given with its metadata, was not made by `traitline train`."""
    lacking = [name for name, kind in _FROM_TRAINING.items() if not isinstance(metadata.get(name), kind)]
    if lacking:
        raise UserError(
            f"{model} was not made by `traitline train`: its metadata.json lacks {', '.join(lacking)}; name another "
            "model"
        )


def check_features(
    model: ModelReference, metadata: Mapping[str, Any], families: Families, networks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise UserError if a model, given with its metadata, was trained on other features than these.

    Args:
        networks: behind these features, from `networks_of`.
    """
    own = metadata["static_key"] in known_keys(families.static), metadata["dynamic_key"] in known_keys(families.dynamic)
    if not all(own):
        raise UserError(
            f"{model} was trained on features static:{metadata['static_key']} dynamic:{metadata['dynamic_key']} "
            f"({model_networks(metadata)}), but these settings give {families.features} "
            f"({model_networks({'networks': networks})}); use the settings that it was trained with (weights: "
            f"{metadata['weights']}), or `traitline rescore --model {model}`, which finds its features in the store"
        )
