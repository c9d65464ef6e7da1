"""Every kind of file that this program parses: good ones to begin with, and what may come of a bad one."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extractors.assets.bundle import unpack_bundle, write_bundle
from extractors.assets.catalog import read_table
from extractors.assets.files import Asset, AssetError, AssetFile
from extractors.assets.own import OwnAsset, find_own
from extractors.dynamic.sequences import OpticalFlowSequenceLoader
from flows.archive.videos import scan_videos
from flows.archive.videos.listed import videos_of_list
from flows.config.load import load_config
from flows.evaluation.evaluate import SCHEMA, latest_evaluation
from flows.session.errors import UserError
from fusion.errors import LabelError, TrainingError
from fusion.labels.groups import read_groups
from fusion.labels.read import read_labels
from fusion.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from fusion.traits import TRAITS
from storage import (
    Failure,
    FailureLog,
    Family,
    FeatureStore,
    ModelSerializer,
    Score,
    ScoreStore,
    StoreError,
    VideoFeatures,
)
from storage.leases.claims import Claim, ClaimLog
from storage.leases.processes import is_gone, this_process
from storage.shards.family import canonical_json
from storage.shards.formats import FORMATS, check_shard
from storage.shards.header import SHARD_VERSION, ShardHeader
from storage.shards.store import manifest_rows, read_family
from storage.tables.in_step import VIDEOS
from storage.tables.seen import SeenVideos

Tree = Any  # what JSON can hold
KEY = "0123456789abcdef"
FAMILY = Family("static", 3, {"fps": 25, "weights": "random"}, ("face_coverage",))


@dataclass(frozen=True)
class Parser:
    """One kind of file.

    Args:
        name: what it is.
        file: where in a folder it lies.
        seeds: bytes of good ones.
        read: reads the file in a folder, as the program does; tells nothing.
        refusals: the errors that are documented; none where nothing may be raised.
        trees: JSON trees of good ones, for formats that hold JSON under a checksum; changed ones are sealed anew.
        seal: makes the file of a tree.
    """

    name: str
    file: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    trees: list[Tree] = field(default_factory=list)
    seal: Callable[[Tree], bytes] | None = None

    def try_on(self, folder: Path, data: bytes) -> str:
        """Read these bytes; returns "" where that went well, or the refusal, which must be one line."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        message = ""
        try:
            self.read(folder)
        except self.refusals as error:
            message = str(error) or repr(error)
        assert "\n" not in message, message
        return message


def file_parsers(folder: Path) -> list[Parser]:
    """All of them; `folder` is for making good files in."""
    return [
        *_labels(folder),
        *_settings(),
        *_shards(folder),
        *_tables(folder),
        *_small_files(folder),
        *_arrays(folder),
        *_assets(folder),
    ]


def _labels(folder: Path) -> list[Parser]:
    header, rows = ["video_id", *TRAITS, "subject", "split"], [
        ["a.mp4", 0.5, 0.25, 1, 0, 0.125, "p1", "training"],
        ["-b.mp4", 0.1, 0.2, 0.3, 0.4, 0.5, "p2", "test"],
    ]  # fmt: skip
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    table = pa.table(dict(zip(header, zip(*rows, strict=True), strict=True)))
    pq.write_table(table, folder / "labels.parquet")
    pq.write_table(table.cast(_with_type(table.schema, "openness", pa.decimal128(9, 3))), folder / "odd.parquet")
    groups = pa.table({"video_id": ["a.mp4", "b.mp4"], "gender": ["f", "m"], "age": [20, 30]})
    pq.write_table(groups, folder / "groups.parquet")
    csv_groups = b"subject,age,gender\r\np1,20,f\r\np2,30,\r\n"

    def labels(file: str) -> Callable[[Path], object]:
        return lambda place: read_labels(place / file)

    def grouped(file: str) -> Callable[[Path], object]:
        return lambda place: read_groups(place / file, ["a.mp4", "x/b.mp4"], ["p1", "p2"])

    return [
        Parser("labels, CSV", "l.csv", [(folder / "labels.csv").read_bytes()], labels("l.csv"), (LabelError,)),
        Parser(
            "labels, Parquet",
            "l.parquet",
            [(folder / name).read_bytes() for name in ("labels.parquet", "odd.parquet")],
            labels("l.parquet"),
            (LabelError,),
        ),
        Parser("labels, pickle", "l.pkl", [label_pickle(), label_pickle(b"<")], labels("l.pkl"), (LabelError,)),
        Parser("groups, CSV", "g.csv", [csv_groups], grouped("g.csv"), (LabelError,)),
        Parser(
            "groups, Parquet",
            "g.parquet",
            [(folder / "groups.parquet").read_bytes()],
            grouped("g.parquet"),
            (LabelError,),
        ),
    ]


def label_pickle(order: bytes = b">") -> bytes:
    """A First Impressions file of one clip by hand, as Python 2 wrote it, with a NumPy number for "interview"."""
    text = b"\x80\x02}q\x00("
    for number, trait in enumerate(TRAITS):
        value = b"G" + np.float64(number / 8).tobytes()[::-1]
        text += b"U" + bytes([len(trait)]) + trait.encode() + b"}U\x05a.mp4" + value + b"s"
    dtype = (
        b"cnumpy\ndtype\nq\x01U\x02f8K\x00K\x01\x87R(K\x03U\x01"
        + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    number = b"cnumpy.core.multiarray\nscalar\n" + dtype + b"U\x08" + np.float64(0.5).tobytes() + b"\x86R"
    return text + b"U\x09interview}U\x05a.mp4" + number + b"su."


def _with_type(schema: pa.Schema, name: str, dtype: pa.DataType) -> pa.Schema:
    return schema.set(schema.get_field_index(name), pa.field(name, dtype))


def _settings() -> list[Parser]:
    text = (
        b"videos: clips\nseed: 3\nstore: {path: s, format: hdf5}\nvideo:\n  fps: 12.5\ntrain:\n  loss: mae\n"
        b"report:\n  clips: [a.mp4, '-b.mp4']\nexport:\n  since: 2026-01-31T00:00+01:00\nlimits: &l {frames: 7}\n"
    )
    odd = b"a: &a [x, x]\nb: &b [*a, *a]\nc: !!int 3\nd: !!bool yes\ne: 2001-01-01\nf: ? [x]\n: 1e3\n"

    def assigned(place: Path) -> object:
        return load_config(assignments=[(place / "s.txt").read_text(encoding="utf-8", errors="replace")])

    return [
        Parser("settings, YAML", "s.yaml", [text, odd], lambda place: load_config(place / "s.yaml"), (UserError,)),
        Parser("settings, --set", "s.txt", [b"video.fps=25", b"report.clips=[a, b]"], assigned, (UserError,)),
    ]


class _Forged:
    """A header that says what it likes."""

    def __init__(self, header: ShardHeader, text: str) -> None:
        self._header, self._text = header, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._header, name)

    def to_text(self) -> str:
        return self._text


def draw(video_id: str, tokens: int) -> VideoFeatures:
    numbers = np.random.default_rng(tokens)
    start_s = np.arange(tokens, dtype=np.float64)
    return VideoFeatures(
        video_id,
        hashlib.sha256(video_id.encode()).hexdigest(),
        numbers.normal(size=(tokens, FAMILY.dim)).astype(np.float32),
        start_s,
        start_s + 1,
        {"face_coverage": numbers.random(tokens).astype(np.float32)},
    )


def _shards(folder: Path) -> list[Parser]:
    videos = [draw("a.mp4", 3), draw("-b/ü.mp4", 2)]
    header = ShardHeader.of(FAMILY, videos)
    tree = json.loads(header.to_text().partition("\n")[0])
    parsers = []
    for name, format in FORMATS.items():
        file = f"shard-000000000007-0123456789ab{format.suffix}"

        def seal(tree: Tree, format=format) -> bytes:
            # Whoever makes up settings makes up their key.
            with contextlib.suppress(StoreError, KeyError, TypeError, ValueError, AttributeError):
                tree["key"] = Family.from_dict(tree["family"]).key
            line = json.dumps(tree, sort_keys=True, separators=(",", ":"))
            text = f"{line}\n{hashlib.sha256(line.encode()).hexdigest()}"
            format.write(folder / "forged", _Forged(header, text), videos)
            return (folder / "forged").read_bytes()

        def read(place: Path, format=format, file=file) -> object:
            made_for = FAMILY
            with contextlib.suppress(Exception):  # whatever it is, the program's own ways are asked next
                made_for = format.read_header(place / file).family
            store = FeatureStore(place / "store")
            target = store.folder(made_for) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((place / file).read_bytes())
            if not store.done(made_for):
                rows = manifest_rows(header, file, "")
                store.manifest.add([row._replace(family=made_for.key) for row in rows])
            try:
                list(store.read(made_for))
                return check_shard(target)
            finally:
                target.unlink()

        parsers.append(Parser(f"shard, {name}", file, [seal(tree)], read, (StoreError,), [tree], seal))
    family = {"key": FAMILY.key, "shard_version": SHARD_VERSION, **FAMILY.to_dict()}

    def seal_family(tree: Tree) -> bytes:
        if isinstance(tree, dict):
            values = {name: value for name, value in tree.items() if name not in ("key", "shard_version")}
            with contextlib.suppress(ValueError):
                tree = {**tree, "key": hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]}
        return json.dumps(tree).encode()

    return [
        *parsers,
        Parser(
            "_family.json",
            "_family.json",
            [json.dumps(family).encode()],
            lambda place: read_family(place / "_family.json"),
            (StoreError,),
            [family],
            seal_family,
        ),
    ]


def _tables(folder: Path) -> list[Parser]:
    digest = "0" * 64
    failure = Failure("-a.mp4", digest, "k", "faces", "no_face", "no face in 3 frames", 1)
    score = Score("a.mp4", digest, (0.5,) * 5, 0.9, 3, 2, "s", "d", "random", "", (0.1,) * 5, (0.9,) * 5)

    some_seen = pa.record_batch([pa.array(["-a.mp4", "b.mp4"]), pa.array([digest, ""])], schema=VIDEOS)

    def failures(place: Path) -> object:
        return [FailureLog(place).current(), FailureLog(place).attempts({"-a.mp4": digest}, "k")]

    def scores(place: Path) -> object:
        return [ScoreStore(place).feature_keys(), list(ScoreStore(place).read("m", "1"))]

    def seen(place: Path) -> object:
        return SeenVideos(place).current()

    tables: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
        "failures": ("failures", lambda root: FailureLog(root).add([failure]), failures),
        "scores": ("scores/m/1", lambda root: ScoreStore(root).write("m", "1", [score]), scores),
        "seen": ("seen", lambda root: SeenVideos(root).note([some_seen]), seen),
    }
    parsers = []
    for name, (table, write, read) in tables.items():
        write(folder / name)
        (data,) = (folder / name / table).glob("*.parquet")
        log = folder / name / table / "_delta_log" / f"{1:020d}.json"
        files = {
            path.relative_to(folder / name): path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()
        }
        parsers += [
            Parser(name, "rows", [data.read_bytes()], partial(_read_data, files, table, read), (StoreError,)),
            Parser(f"{name}, log", "log", [log.read_bytes()], partial(_read_log, files, table, read), (StoreError,)),
        ]

    def digests(place: Path) -> object:
        (place / "videos").mkdir(exist_ok=True)
        (place / "videos" / "a.mp4").write_bytes(b"a")
        (video,) = scan_videos(place / "videos", place / "digests.parquet")
        assert len(video.sha256) == 64
        return video

    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(b"a")
    scan_videos(folder / "videos", folder / "digests.parquet")
    return [
        *parsers,
        Parser("digests", "digests.parquet", [(folder / "digests.parquet").read_bytes()], digests, ()),
        *_video_lists(folder),
    ]


def _read_data(good: dict[Path, bytes], table: str, read: Callable[[Path], object], place: Path) -> object:
    """Read a table with another data file, whose name holds its digest as whoever makes it up would write it."""
    data = (place / "rows").read_bytes()
    (old,) = (path.name for path in good if path.suffix == ".parquet")
    name = f"{old[:22]}{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    files = {path: text.replace(old.encode(), name.encode()) for path, text in good.items() if path.name != old}
    return _read_table({**files, Path(table, name): data}, read, place)


def _read_log(good: dict[Path, bytes], table: str, read: Callable[[Path], object], place: Path) -> object:
    """Read a table with another commit in its log."""
    return _read_table({**good, Path(table, "_delta_log", f"{1:020d}.json"): (place / "log").read_bytes()}, read, place)


def _read_table(files: dict[Path, bytes], read: Callable[[Path], object], place: Path) -> object:
    root = place / f"store {secrets.token_hex(6)}"
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return read(root)


def _video_lists(folder: Path) -> list[Parser]:
    pq.write_table(pa.table({"path": ["a.mp4", "sub/-b.mp4", "gone.mp4"]}), folder / "list.parquet")
    seeds = {
        "text": (".txt", b"a.mp4\r\n./sub/-b.mp4\nsub\\-b.mp4\ngone.mp4\n"),
        "CSV": (".csv", b'openness,video_id\n0.5,a.mp4\n0.5,"sub/-b.mp4"\n'),
        "Parquet": (".parquet", (folder / "list.parquet").read_bytes()),
    }

    def read(place: Path, ending: str) -> object:
        (place / "clips" / "sub").mkdir(parents=True, exist_ok=True)
        for name in ("a.mp4", "sub/-b.mp4"):
            (place / "clips" / name).touch()
        listed = videos_of_list(place / f"list{ending}", place / "clips")
        for name in (name for part in listed.videos for name in part.to_pylist()):
            assert not os.path.relpath(listed.spelled.get(name, name)).startswith(os.pardir)
        return listed

    return [
        Parser(f"video list, {kind}", f"list{ending}", [data], partial(read, ending=ending), (UserError,))
        for kind, (ending, data) in seeds.items()
    ]


def _small_files(folder: Path) -> list[Parser]:
    log = ClaimLog(folder / "leases store", KEY)
    here = this_process()
    log.create(Claim("holder", here, frozenset({"a.mp4", "-b.mp4"}), 1))
    claim = (folder / "leases store/leases" / KEY / "00000001.json").read_bytes()

    def claims(place: Path) -> object:
        return [is_gone(claim.process, here) for claim in ClaimLog(place, KEY).read({1})]

    evaluation = {"schema": SCHEMA, "labels_only": False, "protocols": {}}
    metadata = {"files": {"model.keras": "0" * 64}, "settings": {"form": "token"}, "weights": "random"}

    def seal_metadata(tree: Tree) -> bytes:
        if isinstance(tree, dict):
            rest = {name: value for name, value in tree.items() if name != "digest"}
            tree = {**rest, "digest": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}
        return json.dumps(tree).encode()

    def models(place: Path) -> object:
        serializer = ModelSerializer(place)
        with contextlib.suppress(StoreError):  # it has no other files
            serializer.verify("m", "1")
        return serializer.metadata("m", serializer.resolve("m", "latest"))

    def evaluations(place: Path) -> object:
        return latest_evaluation(place)

    def alias(place: Path) -> object:
        (place / "models/m/1").mkdir(parents=True, exist_ok=True)
        (place / "models/m/1/metadata.json").touch()
        ModelSerializer(place).aliases("m")
        return ModelSerializer(place).resolve("m", "best")

    return [
        Parser("claim", f"leases/{KEY}/00000001.json", [claim], claims, (StoreError,), [json.loads(claim)], _json),
        Parser(
            "evaluation",
            "reports/evaluation-20260131T235959000000.json",
            [_json(evaluation)],
            evaluations,
            (UserError,),
            [evaluation],
            _json,
        ),
        Parser(
            "metadata of a model",
            "models/m/1/metadata.json",
            [seal_metadata(metadata)],
            models,
            (StoreError,),
            [metadata],
            seal_metadata,
        ),
        Parser(
            "alias of a model",
            "models/m/aliases/best.json",
            [b'{"version": "1"}'],
            alias,
            (StoreError, ValueError),
            [{"version": "1"}],
            _json,
        ),
    ]


def _json(tree: Tree) -> bytes:
    return json.dumps(tree).encode()


def _arrays(folder: Path) -> list[Parser]:
    progress = Progress([{"loss": 0.5}], False, [np.zeros((2, 3), np.float32)], [np.ones(2)])
    write_checkpoint(folder / "c.npz", "identity", progress)
    fields = np.zeros((1, 224, 224, 2), np.float16)
    np.save(folder / "o.npy", fields)
    np.savez_compressed(folder / "o.npz", fields)
    loader = OpticalFlowSequenceLoader(fields=9)
    flo = np.float32(202021.25).tobytes() + np.int32([224, 224]).tobytes() + bytes(224 * 224 * 8)

    def load(file: str) -> Callable[[Path], object]:
        return lambda place: loader.load(place / file)

    return [
        Parser(
            "checkpoint",
            "c.npz",
            [(folder / "c.npz").read_bytes()],
            lambda place: read_checkpoint(place / "c.npz", "identity"),
            (TrainingError,),
        ),
        Parser("optical flow, .npy", "o.npy", [(folder / "o.npy").read_bytes()], load("o.npy"), (ValueError,)),
        Parser("optical flow, .npz", "o.npz", [(folder / "o.npz").read_bytes()], load("o.npz"), (ValueError,)),
        Parser("optical flow, .flo", "o.flo", [flo], load("o.flo"), (ValueError,)),
    ]


def _assets(folder: Path) -> list[Parser]:
    content = b"weights"
    file = AssetFile("w.bin", f"md5:{hashlib.md5(content).hexdigest()}", len(content))
    asset = Asset("net", "A net", "1", "tests", "Free", "Do what you like.\n", (file,))
    (folder / "net").mkdir()
    (folder / "net" / "w.bin").write_bytes(content)
    write_bundle({"net": (asset, folder / "net")}, folder / "bundle.tar", lambda file, done: None)
    toml = (
        b'[net]\ntitle = "A net"\nversion = "1"\npurpose = "tests"\nlicence = "Free"\nlicence_file = "free.txt"\n'
        b'[[net.files]]\nname = "w.bin"\nsize = 7\ndigest = "md5:00"\nsources = ["https://example.org/w.bin"]\n'
    )
    own = asdict(OwnAsset("faces-1", "random", 3, "sha256:" + "0" * 64, {"videos": 3}))

    def unpack(place: Path) -> object:
        (place / "goal").mkdir(exist_ok=True)
        return unpack_bundle(place / "b.tar", {"net": asset}, place / "goal", lambda file, done: None)

    def table(place: Path) -> object:
        (place / "licences").mkdir(exist_ok=True)
        (place / "licences" / "free.txt").write_text("Do what you like.\n")
        return read_table(place / "assets.toml")

    return [
        Parser("assets.toml", "assets.toml", [toml], table, (AssetError,)),
        Parser("bundle", "b.tar", [(folder / "bundle.tar").read_bytes()], unpack, (AssetError,)),
        Parser(
            "own asset",
            "faces-1/asset.json",
            [_json(own)],
            lambda place: find_own("faces-1", place),
            (AssetError,),
            [own],
            _json,
        ),
    ]
