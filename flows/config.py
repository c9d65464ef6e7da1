"""The settings of a run: one typed tree, from a YAML file and single values on the command line."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, ValidationError

from extractors.crops import CropSettings
from extractors.dynamic import DynamicSettings
from extractors.faces import FaceSettings
from extractors.finetune import FinetuneSettings
from extractors.limits import Limits
from extractors.optical_flow import OpticalFlowSettings
from extractors.static import StaticSettings
from extractors.video import VideoSettings
from flows.errors import UserError
from flows.export_settings import ExportSettings
from fusion.evaluation_settings import EvaluateSettings, UncertaintySettings
from fusion.settings import TrainSettings
from storage.paths import StorePath, store_path

# What PyYAML raises for a document that is none, or whose words have an odd tag (`!!int x`, `!!bool x`).
_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError, RecursionError)


# Shortened: a few lines of YAML can stand for a value of billions of words.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def _place(value: object) -> StorePath:
    if not isinstance(value, str | StorePath):
        raise ValueError("name a folder, or an address such as s3://bucket/folder")
    return store_path(value)


Place = Annotated[StorePath, PlainValidator(_place), PlainSerializer(str)]
"""Where something lies: on this machine or, where it is an address, on object storage."""


class StoreSettings(BaseModel, frozen=True, extra="forbid"):
    """Where features, models and scores are kept."""

    path: Place = Field(
        Path("store"),
        description="Folder of the store, made where it is absent; or an address such as s3://bucket/store.",
    )
    format: Literal["parquet", "hdf5"] = Field(
        "parquet", description="Format of new feature shards: parquet (for other programs) or hdf5 (somewhat faster)."
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Kept numbers of new static and dynamic features; float16 halves the bytes, changes a number by "
        "at most 0.05 % of itself, and has keys of its own.",
    )


class ExtractSettings(BaseModel, frozen=True, extra="forbid"):
    """How the archive is worked through."""

    runner: Literal["local", "processes", "dask"] = Field(
        "local",
        description="Where shards are extracted: local, in this process; processes, in several on this machine; "
        "dask, on the workers of a Dask cluster.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Worker processes of runner processes, or of Dask's own cluster where no address is given (count); "
        "by default one per GPU, or 2 without one.",
    )
    address: str | None = Field(
        None, description="Dask's scheduler, as in tcp://host:8786; without one, runner dask starts a cluster here."
    )
    resources: dict[str, float] = Field(
        {}, description="What each shard takes of a Dask worker, as in {GPU: 1} for `dask worker --resources GPU=1`."
    )
    shard_size: int = Field(64, ge=1, description="Videos per shard: what is committed at a time (count).")
    retry_failed: bool = Field(False, description="Try videos again that were refused before with the same settings.")
    processes: int | None = Field(
        None,
        ge=1,
        description="Child processes that prepare videos for the networks of a worker (count); by default one per core "
        "that the worker may use.",
    )
    stall_s: float = Field(
        120, gt=0, description="Seconds without progress after which preparing a video is broken off, reason timeout."
    )
    max_failed_fraction: float = Field(
        0.5, ge=0, le=1, description="The run fails when more than this share of the videos it worked on was refused."
    )


class ReportSettings(BaseModel, frozen=True, extra="forbid"):
    """What the report shows of single clips."""

    clips: tuple[str, ...] = Field(
        (),
        description="Videos whose attention is drawn over time, by video_id; none named: the extremes of each trait.",
    )
    frames: bool = Field(
        False,
        description="Put small pictures of these clips into the page, where their videos can be read. They show faces: "
        "give such a page only to those who may see them.",
    )


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """Everything that a run depends on."""

    videos: Path | None = Field(
        None,
        description="Folder of videos, searched with its subfolders; or a list of videos: .txt with a path in each "
        "line, or .csv, .tsv or .parquet with a column video_id, path or the like.",
    )
    videos_root: Path | None = Field(
        None,
        description="Folder that the paths in a list of videos are relative to; by default the list's own. Give it the "
        "folder that holds all videos, so that ids are the same as without a list.",
    )
    labels: Path | None = Field(
        None, description="Label file: CSV, Parquet or First Impressions pickle; or the folder of those pickles."
    )
    invert_neuroticism: bool | None = Field(
        None,
        description="Take 1 - x for neuroticism. By default (null) only for First Impressions pickles, which call "
        "'neuroticism' what rises with the other four traits, that is, emotional stability.",
    )
    out: Place | None = Field(
        None, description="File of scores to write, .csv or .parquet; by default a CSV in STORE/exports."
    )
    model: str | None = Field(
        None,
        description="Score with this model, NAME, NAME/VERSION or NAME/ALIAS, instead of training one from the labels.",
    )
    train_as: str = Field(
        "traits", pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name under which a trained model is kept."
    )
    weights: Literal["pretrained", "random", "auto"] = Field(
        "pretrained",
        description="Weights of both feature networks: pretrained; random (seeded, for trials only); auto: pretrained "
        "where they can be had, else random.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of random network weights.")
    assets: Path | None = Field(None, description="Folder with the assets' folders, in place of the usual search.")
    store: StoreSettings = StoreSettings()
    extract: ExtractSettings = ExtractSettings()
    limits: Limits = Limits()
    video: VideoSettings = VideoSettings()
    faces: FaceSettings = FaceSettings()
    crops: CropSettings = CropSettings()
    optical_flow: OpticalFlowSettings = OpticalFlowSettings()
    static: StaticSettings = StaticSettings()
    dynamic: DynamicSettings = DynamicSettings()
    train: TrainSettings = TrainSettings()
    uncertainty: UncertaintySettings = UncertaintySettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    report: ReportSettings = ReportSettings()


def load_config(
    path: Path | None = None, *, flags: Mapping[str, Any] | None = None, assignments: Sequence[str] | None = None
) -> RunConfig:
    """Read the settings file and lay the command line's values over it.

    Args:
        path: YAML file; without one, the defaults.
        flags: dotted name -> value, from command-line options; None values are left out.
        assignments: "dotted.name=value" with the value in YAML, over all else.

    Raises:
        UserError: the file cannot be read, or a name or value is not known; names the place and the rule.
    """
    tree = _read_yaml(path) if path is not None else {}
    for name, value in (flags or {}).items():
        if value is not None:
            _assign(tree, name, value)
    for assignment in assignments if assignments is not None else ():
        name, equals, text = assignment.partition("=")
        if not equals or not name.isprintable():
            raise UserError(f"--set takes NAME=VALUE, as in --set video.fps=25; got {assignment!r}")
        try:
            _assign(tree, name.strip(), yaml.safe_load(text))
        except _NOT_YAML as error:
            raise UserError(f"--set {name}: {text!r} is not a value in YAML") from error
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(" ".join(_explain(error, path).split())) from error


def dump_config(config: RunConfig) -> str:
    """The effective tree as commented YAML that `load_config` reads back."""
    return "\n".join(_lines(config, "")) + "\n"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the settings file {path}: {error.strerror}") from error
    except _NOT_YAML as error:
        place = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{place} is not YAML: {reason}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold names and values, such as 'videos: clips'; see `traitline config show`")
    return tree


def _assign(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise UserError(f"{section} is a section of settings and cannot have the value {_shown(branch)}")
        tree = branch
    tree[last] = value


def _explain(error: ValidationError, path: Path | None) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    where, got = f" ({path})" if path is not None else "", _shown(first["input"])
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_names(first["loc"][:-1])
        return f"unknown setting {name}{where}; known there: {', '.join(known)}{more}"
    return f"setting {name}{where}: {first['msg'][0].lower()}{first['msg'][1:]}; got {got}{more}"


def _shown(value: Any) -> str:
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a far too long number"


def _known_names(section: tuple[int | str, ...]) -> list[str]:
    model: Any = RunConfig
    for part in section:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _lines(model: BaseModel, indent: str) -> list[str]:
    lines = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            lines += ["", f"{indent}{name}:  # {_summary(value)}", *_lines(value, indent + "  ")]
        else:
            plain = model.model_dump(mode="json", include={name})[name]
            text = yaml.safe_dump({name: plain}, default_flow_style=True, width=10_000, allow_unicode=True)
            lines.append(f"{indent}{text.strip()[1:-1]}  # {field.description}")
    return lines


def _summary(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]
