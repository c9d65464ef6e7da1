"""The settings of a run: one typed tree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator

from extractors.dynamic.extractor import DynamicSettings
from extractors.faces.crops import CropSettings
from extractors.faces.detector import FaceSettings
from extractors.optical_flow.computer import OpticalFlowSettings
from extractors.static.extractor import StaticSettings
from extractors.static.finetune import FinetuneSettings
from extractors.video.grid import VideoSettings
from extractors.video.limits import Limits
from flows.config.export import ExportSettings
from fusion.settings import EvaluateSettings, TrainSettings, UncertaintySettings
from storage.files.paths import StorePath, store_path


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
        "that the worker may use, and no more than there are videos.",
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
