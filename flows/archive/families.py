"""The feature families of a configuration: the one place where settings become cache keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from extractors import dynamic, static
from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.assets.own import find_own
from extractors.faces.quality import QUALITY
from extractors.faces.settings import FaceModels
from extractors.faces.track import FACE_ROW
from extractors.optical_flow.computer import OpticalFlowComputer
from flows.config.settings import RunConfig
from flows.session import console
from flows.session.errors import UserError
from storage.files.paths import StorePath
from storage.shards.family import Family
from storage.shards.store import FeatureStore

log = logging.getLogger(__name__)

FACE_ASSET, FULL_RANGE_ASSET = "face_detector", "face_detector_full_range"
CHECK_ASSETS: dict[str, str] = {"yunet": "yunet", "landmarks": "face_landmarks"}
Part = Literal["faces", "static", "dynamic"]
PARTS: tuple[Part, ...] = ("faces", "static", "dynamic")


@dataclass(frozen=True)
class Families:
    """The three families of one configuration; a family's settings include those of the families it is made from."""

    faces: Family
    static: Family
    dynamic: Family

    @property
    def face_check(self) -> str | None:
        """The second detector that confirmed the faces; None in features of before it could be chosen."""
        check = self.faces.settings["faces"].get("check")
        return None if check is None else str(check)

    @property
    def features(self) -> str:
        """Keys of the features behind a score, as the trait CSV states them."""
        return f"static:{self.static.key} dynamic:{self.dynamic.key}"


def families_of(config: RunConfig) -> Families:
    """Return the families of a configuration whose `weights` are settled (see `settle_weights`).

    If `faces.check` is "auto", the check that this machine has counts.

    The key represents the numbers that a model sees, so float16 features have another key than float32 features. With
    one key for both, a run with another `store.dtype` would add to the existing features, and models and scores would
    come from a mixture that nothing records. The price is that float32 features are computed again for float16.
    """
    weights = settled_weights(config)
    known = catalog.known_assets()
    faces = {
        "video": config.video.numerics,
        "faces": {**config.faces.numerics, "check": settled_check(config)},
        "networks": {name: known[name].digest for name in face_assets(config)},
    }
    crops = {"faces": faces, "crops": config.crops.model_dump(mode="json")}
    # Rounding changes the numbers. Boxes of faces are never rounded, and float32 leaves the settings unchanged.
    kept = {} if config.store.dtype == "float32" else {"kept_as": config.store.dtype}
    motion = {
        **OpticalFlowComputer.from_settings(config.optical_flow).numerics,
        "bound_px": config.optical_flow.bound_px,
    }
    return Families(
        faces=Family("faces", dim=len(FACE_ROW), settings=faces, quality=("detected", *QUALITY)),
        static=Family(
            "static",
            dim=static.FEATURES,
            settings={**crops, **kept, "static": config.static.numerics(weights, config.seed, config.assets)},
            quality=(*QUALITY, "face_score"),
        ),
        dynamic=Family(
            "dynamic",
            dim=dynamic.FEATURES,
            settings={
                **crops,
                **kept,
                "optical_flow": motion,
                "dynamic": config.dynamic.numerics(weights, config.seed),
            },
            quality=(*QUALITY, "face_score", "fields"),
        ),
    )


def stored_families(root: str | StorePath, metadata: Mapping[str, Any]) -> Families:
    """Return the families that a model was trained on, as the store describes them, whatever the present settings.

    Args:
        root: the store's folder.
        metadata: of the model.

    Raises:
        UserError: the store no longer has these features.
    """
    stored = {(family.name, family.key): family for family in FeatureStore(root).families()}
    try:
        static, dynamic = (stored[name, metadata[f"{name}_key"]] for name in ("static", "dynamic"))
    except KeyError as error:
        raise UserError(
            f"{root} has no features static:{metadata['static_key']} dynamic:{metadata['dynamic_key']}, on which this "
            "model was trained; run `traitline extract` with the settings of that time"
        ) from error
    # Facts were added over time. The oldest features have only the coverage, and their boxes have none.
    known = tuple(name for name in static.quality if name in QUALITY)
    facts = known if len(known) > 1 else ()
    settings = static.settings["faces"]
    # Rows had no eyes and no shots at first.
    dim = len(FACE_ROW) if "revision" in settings["faces"] else 5
    faces = Family("faces", dim=dim, settings=settings, quality=("detected", *facts))
    return Families(faces, static, dynamic)


def settle_weights(config: RunConfig, needs: Sequence[Part] = PARTS) -> RunConfig:
    """Replace `auto` by the best that this machine can get, and check that the needed assets are present.

    This concerns `weights` and `faces.check`.

    Raises:
        extractors.assets.AssetError: an asset cannot be found; the message says where to put it.
        UserError: a fine-tuned network and the other networks have different base weights.
    """
    settled = _with_check(_without_auto(config), needs)
    _resolve(settled, needs)
    if (config.faces.check, settled.faces.check) == ("auto", "landmarks"):
        console.say(
            "Faces: checked by the network for face landmarks, because YuNet is not available here: it takes more "
            "things for faces, and knows fewer profiles. The features have keys of their own. `traitline assets "
            "fetch yunet` gets YuNet; --set faces.check=landmarks chooses this check and silences this line.",
            style="yellow",
        )
    if settled.static.weights is not None:
        base = find_own(settled.static.weights, settled.assets).base
        if base != settled.weights:
            raise UserError(
                f"{settled.static.weights} was fine-tuned from {base} weights, and the other networks have "
                f"{settled.weights} ones: give --weights {base}, or name another in static.weights"
            )
    return settled


def _without_auto(config: RunConfig) -> RunConfig:
    """Choose pretrained weights if all networks can get them, needed or not: together they determine the key."""
    if config.weights != "auto":
        return config
    pretrained = config.model_copy(update={"weights": "pretrained"})
    try:
        _resolve(pretrained, ("static", "dynamic"))
    except AssetError:
        return config.model_copy(update={"weights": "random"})
    return pretrained


def _with_check(config: RunConfig, needs: Sequence[Part]) -> RunConfig:
    """Settle `faces.check: auto`, fetching YuNet if no check is on this machine."""
    if config.faces.check != "auto" or "faces" not in needs:
        return config
    check = settled_check(config)
    yunet = catalog.known_assets()[CHECK_ASSETS["yunet"]]
    if check == "yunet" and catalog.find(yunet, config.assets) is None:
        try:
            catalog.resolve(yunet.name, folder=asset_folder(config, yunet.name))
        except AssetError as error:
            log.info("%s", error)
            check = "landmarks"
    return config.model_copy(update={"faces": config.faces.model_copy(update={"check": check})})


def settled_weights(config: RunConfig) -> Literal["pretrained", "random"]:
    """Return the weights of a configuration that `settle_weights` has settled.

    Raises:
        ValueError: they are still "auto".
    """
    if config.weights == "auto":
        raise ValueError("weights must be settled first: see settle_weights")
    return config.weights


def settled_check(config: RunConfig) -> Literal["yunet", "landmarks"]:
    """Return the check for false faces; for "auto" the one whose file is on this machine, preferably YuNet.

    Without either it is YuNet, which other machines have that extract features with these settings.
    """
    if config.faces.check != "auto":
        return config.faces.check
    known = catalog.known_assets()
    has_yunet, has_landmarks = (catalog.find(known[name], config.assets) is not None for name in CHECK_ASSETS.values())
    return "landmarks" if has_landmarks and not has_yunet else "yunet"


def face_assets(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the assets that finding faces needs."""
    full_range = () if config.faces.model == "short" else (FULL_RANGE_ASSET,)
    return (FACE_ASSET, *full_range, CHECK_ASSETS[settled_check(config)])


def face_models(config: RunConfig) -> FaceModels:
    """Return the files of the networks that find faces, each checked.

    Raises:
        extractors.assets.AssetError: one is damaged or unavailable.
    """

    def path(name: str) -> Path:
        (file,) = catalog.known_assets()[name].files
        return catalog.resolve(name, folder=asset_folder(config, name)) / file.name

    check = settled_check(config)
    return FaceModels(
        path(FACE_ASSET),
        None if config.faces.model == "short" else path(FULL_RANGE_ASSET),
        path(CHECK_ASSETS[check]),
        check,
    )


def static_weights(config: RunConfig) -> str:
    """Return the weights of ResNet-50, as `StaticFeatureExtractor` takes them."""
    return config.static.weights if config.static.weights is not None else config.weights


def asset_folder(config: RunConfig, name: str) -> Path | None:
    """Return the folder in which the user keeps this asset, if the settings name one."""
    return config.assets / name if config.assets is not None else None


def _resolve(config: RunConfig, needs: Sequence[Part]) -> None:
    names: dict[Part, tuple[str, ...]] = {"faces": face_assets(config)}
    if config.weights != "random":
        names["dynamic"] = (dynamic.ASSET,)
        if config.static.weights is None:
            names["static"] = (static.ASSET,)
    for part in needs:
        for name in names.get(part, ()):
            try:
                catalog.resolve(name, folder=asset_folder(config, name))
            except AssetError as error:
                if part == "faces":  # needed whatever the weights are
                    raise
                raise AssetError(
                    f"{error}. To try everything without them, give --weights random, or --weights auto, which "
                    "`traitline demo` uses and which uses random ones if no others are available: such scores mean "
                    "nothing"
                ) from error
