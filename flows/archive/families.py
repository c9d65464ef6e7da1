"""The feature families of a configuration: here settings become cache keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.assets.own import find_own
from extractors.dynamic.backbones import dynamic_backbone
from extractors.dynamic.settings import I3D
from extractors.faces.quality import QUALITY
from extractors.faces.settings import FaceModels, FaceSettings
from extractors.faces.track import FACE_ROW
from extractors.networks import is_network_file
from extractors.networks.backbone import Backbone
from extractors.networks.joined import JoinedBackbone
from extractors.optical_flow.computer import OpticalFlowComputer
from extractors.static.backbones import static_backbone
from extractors.static.settings import RESNET50, StaticSettings
from flows.config.settings import RunConfig, Weights
from flows.session.errors import UserError
from fusion.errors import some_of
from storage.files.paths import StorePath
from storage.shards.family import Family, known_keys
from storage.shards.store import FeatureStore

FACE_ASSET, FULL_RANGE_ASSET = "face_detector", "face_detector_full_range"
CHECK_ASSET, RECOGNIZER_ASSET = "yunet", "face_recognizer"
Part = Literal["faces", "static", "dynamic"]
Kind = Literal["static", "dynamic"]
PARTS: tuple[Part, ...] = ("faces", "static", "dynamic")


@dataclass(frozen=True)
class Families:
    """The three families of one configuration. A family's settings include those of the families it is made from."""

    faces: Family
    static: Family
    dynamic: Family

    @property
    def features(self) -> str:
        """Return the keys of the features behind a score, as in the trait CSV."""
        return f"static:{self.static.key} dynamic:{self.dynamic.key}"


def families_of(config: RunConfig) -> Families:
    """Return the families of a configuration whose `weights` are settled (see `settle_weights`).

    Float16 features have other keys than float32 features: with one key for both, models and scores could come from a
    mixture that nothing records. The price is that float16 features are not made from existing float32 features.
    """
    known = catalog.known_assets()
    networks = backbones_of(config)
    faces = {
        "video": config.video.numerics,
        "faces": config.faces.numerics,
        "networks": {name: known[name].digest for name in face_assets(config.faces)},
    }
    crops = {"faces": faces, "crops": config.crops.model_dump(mode="json")}
    # Boxes of faces are never rounded. Float32 has no entry, so that older stores stay valid.
    kept = {} if config.store.dtype == "float32" else {"kept_as": config.store.dtype}
    motion = {
        **OpticalFlowComputer.from_settings(config.optical_flow).numerics,
        "bound_px": config.optical_flow.bound_px,
    }
    return Families(
        faces=Family("faces", dim=len(FACE_ROW), settings=faces, quality=("detected", *QUALITY)),
        static=Family(
            "static",
            dim=networks["static"].dim,
            settings={**crops, **kept, "static": networks["static"].numerics},
            quality=(*QUALITY, "face_score"),
        ),
        dynamic=Family(
            "dynamic",
            dim=networks["dynamic"].dim,
            settings={**crops, **kept, "optical_flow": motion, "dynamic": networks["dynamic"].numerics},
            quality=(*QUALITY, "face_score", "fields"),
        ),
    )


def backbones_of(config: RunConfig) -> dict[Kind, Backbone]:
    """Return the networks of a configuration whose `weights` are settled, by family, not built yet.

    Raises:
        extractors.assets.AssetError: a network in the user's own file cannot be used.
    """
    weights, fields = settled_weights(config.weights), config.crops.window_fields
    return {
        "static": static_backbone(config.static, weights, config.seed, config.assets),
        "dynamic": dynamic_backbone(config.dynamic, weights, fields, config.seed, config.assets),
    }


def networks_of(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Describe the networks behind a configuration's features, by family: name, dimension, origin."""
    return {kind: _known_of(network) for kind, network in backbones_of(config).items()}


def _known_of(network: Backbone) -> dict[str, Any]:
    known = {"name": network.name, "dim": network.dim}
    if isinstance(network, JoinedBackbone):
        return known | {"joined": [_known_of(one) for one in network.networks]}
    return {**known, **network.numerics}


def network_name(network: Mapping[str, Any], kind: str) -> str:
    """Return the name of a network that `networks_of`, a model's metadata or a family describes.

    Args:
        kind: "static" or "dynamic"; the oldest models and features had one network of each, and do not name it.
    """
    if "joined" in network:
        return " + ".join(network_name(one, kind) for one in network["joined"])
    usual = RESNET50 if kind == "static" else I3D
    return str(network.get("name", network.get("network", usual)))


def model_networks(metadata: Mapping[str, Any]) -> str:
    """Return the names of both networks whose features a model takes."""
    known = metadata.get("networks", {})
    return " and ".join(network_name(known.get(kind, {}), kind) for kind in ("static", "dynamic"))


def stored_networks(root: str | StorePath) -> str:
    """Return the names of the networks that a store's features come from, as in "static features of resnet50"."""
    found: dict[str, set[str]] = {}
    for family in FeatureStore(root).families():
        if family.name != "faces":
            name = network_name(family.settings.get(family.name, {}), family.name)
            found.setdefault(family.name, set()).add(name)
    named = (f"{kind} features of {', '.join(sorted(names))}" for kind, names in sorted(found.items(), reverse=True))
    return " and ".join(named) or "no features"


def lacking_features(root: str | StorePath, families: Families) -> str:
    """Return what a store lacks, what it has instead, and what to do, to follow "has no" or "has"."""
    wanted = (families.static, families.dynamic)
    needed = " and ".join(network_name(family.settings.get(family.name, {}), family.name) for family in wanted)
    differing: dict[str, tuple[str, str]] = {}
    stored = FeatureStore(root).families()
    for family in wanted:
        others = (other for other in stored if other.name == family.name)
        nearest = sorted((_differences(other, family) for other in others), key=len)[:1]
        differing |= nearest[0] if nearest else {}
    made = some_of([f"{name} {there} (not {here})" for name, (there, here) in differing.items()], limit=3)
    cure = f"add `--weights {differing['weights'][0]}`" if differing.keys() == {"weights"} else "give the same settings"
    return (
        f"features of {needed} made with these settings; {root} has {stored_networks(root)}"
        f"{f', made with {made}: {cure}, or' if differing else ':'} run `traitline extract` with these settings first"
    )


def _differences(there: Family, here: Family) -> dict[str, tuple[str, str]]:
    """Return the settings in which a family differs from another of its name: name -> (its value, the other's)."""
    unnamed = {"optical_flow.engine": "cpu"}  # its keys do not name it
    values, others = (unnamed | dict(_named(family.settings, family.name)) for family in (there, here))
    names = [name for name in {**values, **others} if values.get(name) != others.get(name)]
    if any(name == "weights" or name.endswith(".base_model") for name in names):  # the cause of the others
        names = [name for name in names if name.rpartition(".")[2] not in ("seed", "digest", "revision")]
    return {name: (str(values.get(name, "unset")), str(others.get(name, "unset"))) for name in names}


def _named(settings: Mapping[str, Any], kind: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the facts that a family's key is made of, under the names of their settings if they have any."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value, kind, f"{key}.")
        else:
            name = f"{prefix}{key}"
            yield {f"{kind}.weights": "weights", f"{kind}.network": f"{kind}.base_model"}.get(name, name), value


def check_same_networks(networks: Mapping[Kind, Backbone], families: Families) -> None:
    """Check networks against keys from another machine, which may have other files of the same name.

    Raises:
        UserError: a network differs.
    """
    kinds: tuple[tuple[Kind, Family], ...] = (("static", families.static), ("dynamic", families.dynamic))
    for kind, family in kinds:
        if networks[kind].numerics != family.settings[kind]:
            raise UserError(
                f"{networks[kind].name} is another network here than where the run began; copy it from that machine"
            )


def stored_families(root: str | StorePath, metadata: Mapping[str, Any]) -> Families:
    """Return the families that a model was trained on, as the store describes them, whatever the present settings.

    Raises:
        UserError: the store no longer has these features.
    """
    stored = {(family.name, key): family for family in FeatureStore(root).families() for key in known_keys(family)}
    try:
        static, dynamic = (stored[name, metadata[f"{name}_key"]] for name in ("static", "dynamic"))
    except KeyError as error:
        needed = model_networks(metadata)
        raise UserError(
            f"the model needs features of {needed} (static:{metadata['static_key']} "
            f"dynamic:{metadata['dynamic_key']}), and {root} has {stored_networks(root)}; run `traitline extract` with "
            f"the settings that it was trained with (weights={metadata['weights']})"
            f"{', or train a model on what is there' if stored else ''}"
        ) from error
    # Facts were added over time. The oldest features have only the coverage, and their boxes have no facts.
    known = tuple(name for name in static.quality if name in QUALITY)
    facts = known if len(known) > 1 else ()
    settings = static.settings["faces"]
    # Rows had no eyes and no shots at first.
    dim = len(FACE_ROW) if "revision" in settings["faces"] else 5
    faces = Family("faces", dim=dim, settings=settings, quality=("detected", *facts))
    return Families(faces, static, dynamic)


def settle_weights(config: RunConfig, needs: Sequence[Part] = PARTS) -> RunConfig:
    """Replace `weights: auto` by the best weights that are available, and check that the needed assets are present.

    Raises:
        extractors.assets.AssetError: an asset is missing; the message says where to put it.
        UserError: a fine-tuned network and the other networks have different base weights.
    """
    settled = _without_auto(config)
    _resolve(settled, needs)
    for network in settled.static.networks:
        if network.weights is None or network.base_model != RESNET50:
            continue
        base = find_own(network.weights, settled.assets).base
        if base != settled.weights:
            raise UserError(
                f"{network.weights} was fine-tuned from {base} weights, and the other networks have "
                f"{settled.weights} ones: set weights={base}, or name another in static.weights"
            )
    return settled


def _without_auto(config: RunConfig) -> RunConfig:
    """Choose pretrained weights only if both networks have them: together they determine the key."""
    if config.weights != "auto":
        return config
    pretrained = config.model_copy(update={"weights": "pretrained"})
    try:
        _resolve(pretrained, ("static", "dynamic"))
    except AssetError:
        return config.model_copy(update={"weights": "random"})
    return pretrained


def settled_weights(weights: Weights) -> Literal["pretrained", "random"]:
    """Return weights that `settle_weights` has settled.

    Raises:
        ValueError: they are still "auto".
    """
    if weights == "auto":
        raise ValueError("weights must be settled first: see settle_weights")
    return weights


def check_resnet50(static: StaticSettings, what: str) -> None:
    """Check that static features come from resnet50 alone.

    Args:
        what: the work that needs it, for the message.

    Raises:
        UserError: they come from another network.
    """
    chosen = [network.base_model for network in static.networks]
    if chosen != [RESNET50]:
        raise UserError(f"{what} is for resnet50 only, not for static.base_model {' and static.also '.join(chosen)}")


def static_weights(config: RunConfig) -> str:
    """Return the weights of ResNet-50, as `StaticFeatureExtractor` takes them."""
    return config.static.weights if config.static.weights is not None else config.weights


def asset_folder(assets: Path | None, name: str) -> Path | None:
    """Return the folder in which the user keeps this asset, if the setting `assets` names one for all of them."""
    return assets / name if assets is not None else None


def face_assets(faces: FaceSettings) -> tuple[str, ...]:
    """Return the names of the assets that finding faces needs."""
    full_range = () if faces.model == "short" else (FULL_RANGE_ASSET,)
    return (FACE_ASSET, *full_range, CHECK_ASSET, RECOGNIZER_ASSET)


def face_models(config: RunConfig) -> FaceModels:
    """Return the files of the networks that find, check and recognise faces.

    Raises:
        extractors.assets.AssetError: one cannot be found.
    """

    def path(name: str) -> Path:
        (file,) = catalog.known_assets()[name].files
        return catalog.resolve(name, folder=asset_folder(config.assets, name)) / file.name

    full_range = path(FULL_RANGE_ASSET) if FULL_RANGE_ASSET in face_assets(config.faces) else None
    return FaceModels(path(FACE_ASSET), full_range, path(CHECK_ASSET), path(RECOGNIZER_ASSET))


def _resolve(config: RunConfig, needs: Sequence[Part]) -> None:
    if "faces" in needs:
        for name in face_assets(config.faces):
            catalog.resolve(name, folder=asset_folder(config.assets, name))
    needed = [backbone for kind, backbone in backbones_of(config).items() if kind in needs]
    for network in chain.from_iterable(one.networks if isinstance(one, JoinedBackbone) else (one,) for one in needed):
        try:
            network.fetch()
        except AssetError as error:
            if config.weights == "random" or is_network_file(network.name):  # random weights do not help
                raise
            raise AssetError(
                f"{error}. For a trial without them, set weights=random (--weights random); or weights=auto, as "
                "`traitline demo` does, which falls back to random weights: such scores mean nothing"
            ) from error
