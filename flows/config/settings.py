"""The settings of a run: one typed tree, from a YAML file and single values on the command line."""

from __future__ import annotations

import re
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
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
from flows.errors import UserError, did_you_mean
from flows.export_settings import ExportSettings
from fusion.evaluation_settings import EvaluateSettings, UncertaintySettings
from fusion.settings import TrainSettings
from storage.paths import StorePath, store_path

# What PyYAML raises for a document that is none, or whose words have an odd tag (`!!int x`, `!!bool x`).
_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError, RecursionError)


# Shortened: a few lines of YAML can stand for a value of billions of words.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_MOST_NAMED = 5


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
    path: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read the settings file and lay other values over it, each of the following over those before.

    Args:
        path: YAML file; without one, the defaults.
        parameters: dotted name -> value, from a deployment's form; None values are left out.
        overrides: dotted name -> value, from the parameter `overrides` of a deployment.
        flags: dotted name -> value, from command-line options; None values are left out.
        assignments: "dotted.name=value" with the value in YAML.

    Raises:
        UserError: the file cannot be read, or names or values are not known; names the origin of each, and the rule.
    """
    tree = _read_yaml(path) if path is not None else {}
    origins = _Origins(path, {})
    for kind, values in (("parameter {}", parameters), ("--{}", flags)):
        for name, value in (values or {}).items():
            if value is not None:
                # An option is called as the last part of its setting; the store's path is --store.
                origins.assign(tree, name, value, kind.format(name.removesuffix(".path").rpartition(".")[2]))
    for name, value in (overrides or {}).items():
        origins.assign(tree, name, value, "parameter overrides")
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name.isprintable():
            raise UserError(f"--set takes NAME=VALUE, as in --set video.fps=25; got {assignment!r}")
        try:
            origins.assign(tree, name.strip(), yaml.safe_load(text), "--set")
        except _NOT_YAML as error:
            raise UserError(f"--set {name}: {text!r} is not a value in YAML") from error
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(" ".join(_explain(error, origins).split())) from error


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


@dataclass
class _Origins:
    """Where settings come from, to be named when one is wrong.

    Args:
        path: of the settings file, if there is one.
        given: dotted name -> what gave it, for all that is laid over the file.
    """

    path: Path | None
    given: dict[str, str]

    def assign(self, tree: dict[str, Any], name: str, value: Any, origin: str) -> None:
        """Put a value into the tree in place of what is there; settings that a whole section does not name stay.

        Raises:
            UserError: one of the sections that the name stands in is a value.
        """
        if isinstance(value, dict) and _settings_in(name):
            for inner, part in value.items():
                self.assign(tree, f"{name}.{inner}", part, origin)
            return
        *sections, last = name.split(".")
        branch: Any = tree
        for place, section in enumerate(sections, start=1):
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                outer = ".".join(sections[:place])
                raise UserError(
                    f"{outer} is a section of settings and cannot have the value {_shown(branch)}{self.of(outer)}; "
                    f"{origin} sets {name}"
                )
        branch[last] = value
        self.given = {known: by for known, by in self.given.items() if not known.startswith(f"{name}.")}
        self.given[name] = origin

    def of(self, name: str) -> str:
        """What gave this setting, or those of this section, in brackets; empty where nothing is known."""
        inside = [by for known, by in self.given.items() if known.startswith(f"{name}.")]
        around = [by for known, by in self.given.items() if f"{name}.".startswith(f"{known}.")]
        found = list(dict.fromkeys(around[-1:] if around else inside))
        if not around and self.path is not None and (line := _line_of(self.path, name)):
            found.append(f"{self.path}, line {line}")
        return f" ({'; '.join(found)})" if found else ""


def _line_of(path: Path, name: str) -> int | None:
    """The line of the settings file in which this setting stands, or else the innermost section around it."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, *_NOT_YAML):
        return None
    line = None
    for part in name.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        # The last of several keys counts, as in the value that was read.
        found = [(key, value) for key, value in pairs if key.value == part]
        if not found:
            break
        key, node = found[-1]
        line = key.start_mark.line + 1
    return line


def _explain(error: ValidationError, origins: _Origins) -> str:
    """All that is wrong, in one line."""
    mistakes = [_mistake(dict(details), origins) for details in error.errors()]
    more = f"; and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
    return "; ".join(mistakes[:_MOST_NAMED]) + more


def _mistake(details: dict[str, Any], origins: _Origins) -> str:
    name = ".".join(str(part) for part in details["loc"])
    origin = origins.of(name)
    if details["type"] == "extra_forbidden":
        question = _nearest_setting(name)
        section = _settings_in(".".join(str(part) for part in details["loc"][:-1]))
        return f"unknown setting {name}{origin}" + (question if question else f"; known there: {', '.join(section)}")
    rule, got = details["msg"].removeprefix("Value error, "), _shown(details["input"])
    choices = re.findall("'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
    question = did_you_mean(details["input"], choices) if isinstance(details["input"], str) and choices else ""
    return f"setting {name}{origin}: {rule[0].lower()}{rule[1:]}; got {got}{question}"


def _nearest_setting(name: str) -> str:
    """A question whether a setting of a like name was meant: there, or in another section."""
    section, _, last = name.rpartition(".")
    there = did_you_mean(last, _settings_in(section))
    if there:
        return there.replace("did you mean ", f"did you mean {section}." if section else "did you mean ")
    ends: dict[str, list[str]] = defaultdict(list)
    for setting in _all_settings(RunConfig):
        ends[setting.rpartition(".")[2]].append(setting)
    near = get_close_matches(last, ends, n=1, cutoff=0.8)
    return f", did you mean {' or '.join(ends[near[0]])}?" if near else ""


def _all_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_settings(field.annotation, f"{prefix}{name}.")


def _settings_in(section: str) -> list[str]:
    prefix = f"{section}." if section else ""
    names = (name.removeprefix(prefix) for name in _all_settings(RunConfig) if name.startswith(prefix))
    return [name for name in names if "." not in name]


def _shown(value: Any) -> str:
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a far too long number"


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
