"""Which model of the store is meant."""

from __future__ import annotations

from dataclasses import dataclass

from flows.config import RunConfig
from flows.errors import UserError
from storage.models import ModelSerializer


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model of the store, written NAME/VERSION."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def trains(config: RunConfig) -> bool:
    """Whether a run with these settings trains a model: there are labels, and no model is named."""
    return config.labels is not None and config.model is None


def find_model(config: RunConfig, reference: str) -> ModelReference:
    """Find a model of the store by NAME (its latest version) or NAME/VERSION.

    Raises:
        UserError: there is no such model; names those that there are.
    """
    name, _, version = reference.partition("/")
    try:
        versions = ModelSerializer(config.store.path).versions(name)
    except ValueError as error:
        raise UserError(f"a model is named NAME or NAME/VERSION; got {reference!r}") from error
    if versions and version in ("", *versions):
        return ModelReference(name, version if version else versions[-1])
    folder = config.store.path / "models"
    known = sorted(path.parent.name + "/" + path.name for path in folder.glob("*/*") if path.name.isdigit())
    advice = f"there are {', '.join(known)}" if known else "the store has none; train one with --labels"
    raise UserError(f"there is no model {reference} in {config.store.path}; {advice}")


def chosen_model(config: RunConfig) -> ModelReference:
    """The model that the settings name; without one, the latest that was trained here.

    Raises:
        UserError: there is no such model.
    """
    return find_model(config, config.train_as if config.model is None else config.model)
