"""The settings of a run: one typed tree."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    field_serializer,
    field_validator,
    model_validator,
)

from extractors.dynamic.settings import DynamicSettings
from extractors.faces.settings import CropSettings, FaceSettings
from extractors.optical_flow.parameters import OpticalFlowSettings
from extractors.static.settings import FinetuneSettings, StaticSettings
from extractors.video.settings import Limits, VideoSettings
from flows.session.console import without_secrets
from flows.session.errors import UserError
from fusion.settings import EvaluateSettings, TrainSettings, UncertaintySettings
from fusion.training.space import SearchSettings
from storage.files.paths import StorePath, store_path


def _place(value: object) -> StorePath:
    if not isinstance(value, str | StorePath):
        raise ValueError("name a folder, or an address such as s3://bucket/folder")
    return store_path(value)


Place = Annotated[StorePath, PlainValidator(_place), PlainSerializer(str)]
"""A path on this machine, or an address on object storage."""

_SCHEDULER = re.compile(r"((tls|tcp|wss?|ucx)://)?([\w.-]+|\[[\w.:%]+\]):\d{1,5}")

Weights = Literal["pretrained", "random", "auto"]


class StoreSettings(BaseModel, frozen=True, extra="forbid"):
    """Where features, models and scores are kept."""

    path: Place = Field(
        Path("store"), description="Folder of the store, created if missing; or an address such as s3://bucket/store."
    )
    access: Literal["private", "group"] = Field(
        "private",
        description="Who may read and write a store that is created here: private, only its user; group, also the "
        "group of its folder. For an existing store its folder decides: it is shared after `chmod 2770 STORE`.",
    )
    format: Literal["parquet", "hdf5"] = Field(
        "parquet", description="Format of new feature shards: parquet (for other programs) or hdf5 (somewhat faster)."
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Type of the numbers of new static and dynamic features; float16 halves the size, changes numbers "
        "by at most 0.05%, and has separate keys.",
    )


class DaskSettings(BaseModel, frozen=True, extra="forbid"):
    """The Dask cluster of `runner: dask`. Without an address or a class, a cluster is started on this machine."""

    workers: int | None = Field(
        None,
        ge=1,
        description="Worker processes of a cluster that is started (count); on this machine by default one per GPU, "
        "or 2 without GPUs.",
    )
    address: str | None = Field(None, description="Scheduler of a running cluster, as in tls://host:8786.")
    tls_ca_file: Path | None = Field(
        None, description="Certificate (PEM) of the authority that signs those of its scheduler and workers."
    )
    tls_cert: Path | None = Field(None, description="Certificate (PEM) of this client for its scheduler.")
    tls_key: Path | None = Field(None, description="Private key (PEM) of this certificate, if in another file.")
    cluster: str | None = Field(
        None,
        description="Class of a cluster to start instead, as in dask_jobqueue.SLURMCluster, "
        "dask_kubernetes.operator.KubeCluster or dask_cuda.LocalCUDACluster; install its package yourself.",
    )
    cluster_options: dict[str, Any] = Field(
        {}, description="Arguments of this class, as in {queue: gpu, cores: 4, memory: 16GB}."
    )
    resources: dict[str, float] = Field(
        {}, description="Resources of a worker for each item, as in {GPU: 1} for `dask worker --resources GPU=1`."
    )

    @field_validator("address")
    @classmethod
    def _is_plain(cls, address: str | None) -> str | None:
        if address is not None and "@" in address:  # it may hold a secret, which the message must not repeat
            raise UserError("dask.address cannot hold a user or a password; write tls://HOST:PORT")
        if address is not None and not _SCHEDULER.fullmatch(address):
            raise ValueError("write an address as in tls://host:8786")
        return address

    @field_serializer("cluster_options", when_used="json")
    def _without_secrets(self, options: dict[str, Any]) -> Any:
        return without_secrets(options)  # JSON is shown and kept, also in Prefect's database

    @model_validator(mode="after")
    def _one_cluster(self) -> DaskSettings:
        if self.address is not None and self.cluster is not None:
            raise ValueError("address and cluster exclude each other")
        return self


class ExtractSettings(BaseModel, frozen=True, extra="forbid"):
    """How videos are decoded and turned into features."""

    shard_size: int = Field(
        64,
        ge=1,
        description="Videos per shard, which is the unit of commits (count); fewer if they take more than ten minutes.",
    )
    retry_failed: bool = Field(False, description="Retry videos that were rejected before with the same settings.")
    processes: int | None = Field(
        None,
        ge=1,
        description="Child processes that prepare videos for the networks of a worker (count); by default one per core "
        "that the worker may use, and no more than there are videos.",
    )
    stall_s: float = Field(
        120, gt=0, description="Seconds without progress after which preparing a video stops, with the reason timeout."
    )
    max_failed_fraction: float = Field(
        0.5, ge=0, le=1, description="The run fails if more than this share of its videos is rejected."
    )


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class ExportSettings(BaseModel, frozen=True, extra="forbid"):
    """Which scores and columns go into an export."""

    columns: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = Field(
        None, min_length=1, description="Columns, in this order, as a list or with commas between; by default all."
    )
    since: AwareDatetime | None = Field(
        None, description="Only scores from this time on: ISO 8601 with its zone, 2026-01-31T00:00+01:00."
    )
    until: AwareDatetime | None = Field(None, description="Only scores from before this time, in the same form.")

    @model_validator(mode="after")
    def _has_length(self) -> ExportSettings:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"since must come before until, not {self.since.isoformat()}, {self.until.isoformat()}")
        return self

    @property
    def bounded(self) -> bool:
        """Return whether the export is limited to a range of time."""
        return self.since is not None or self.until is not None

    def holds(self, time: datetime) -> bool:
        """Return whether a time is in the range; its end is excluded."""
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)


class ReportSettings(BaseModel, frozen=True, extra="forbid"):
    """What the report shows about single clips."""

    clips: tuple[str, ...] = Field(
        (), description="Videos whose attention is drawn over time, by video_id; by default the extremes of each trait."
    )
    frames: bool = Field(
        False,
        description="Put small frames of these clips into the page, if their videos can be read. They show faces: give "
        "such a page only to people who may see them.",
    )
    base_url: str | None = Field(
        None,
        pattern="^https?://[^@?#]+$",
        description="Address at which a web server of yours serves the folder STORE/reports, as in "
        "https://host/reports. Prefect's pages then link to the report.",
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
        "folder that holds all videos, so that a video has the same id with and without a list.",
    )
    labels: Path | None = Field(
        None, description="Label file: CSV, Parquet or First Impressions pickle; or the folder of those pickles."
    )
    invert_neuroticism: bool | None = Field(
        None,
        description="Use 1 - x for neuroticism. By default (null) only for First Impressions pickles, whose "
        "'neuroticism' rises with the other four traits and therefore is emotional stability.",
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
    weights: Weights = Field(
        "pretrained",
        description="Weights of both feature networks: pretrained; random (seeded, for trials only); auto: pretrained "
        "if available, else random.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of random network weights.")
    assets: Path | None = Field(None, description="Folder with the assets' folders, instead of the usual places.")
    runner: Literal["local", "dask"] = Field(
        "local",
        description="Where the work is done: local, in this process; dask, by the workers of a Dask cluster, see dask.",
    )
    store: StoreSettings = StoreSettings()
    dask: DaskSettings = DaskSettings()
    extract: ExtractSettings = ExtractSettings()
    limits: Limits = Limits()
    video: VideoSettings = VideoSettings()
    faces: FaceSettings = FaceSettings()
    crops: CropSettings = CropSettings()
    optical_flow: OpticalFlowSettings = OpticalFlowSettings()
    static: StaticSettings = StaticSettings()
    dynamic: DynamicSettings = DynamicSettings()
    train: TrainSettings = TrainSettings()
    search: SearchSettings = SearchSettings()
    uncertainty: UncertaintySettings = UncertaintySettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    report: ReportSettings = ReportSettings()
