"""Object storage: what is put is whole or not there, and what cannot be reached is said so in one line, in time."""

from __future__ import annotations

import contextlib
import http.server
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from model_version import save_version
from moto.s3.models import S3Backend
from s3_line import Line

from storage import Failure, FailureLog, Family, FeatureStore, ModelSerializer, StoreError, VideoFeatures
from storage.errors import UnreachableError
from storage.files import remote
from storage.files.commit import check_writable, commit_file, commit_folder, create_file, move
from storage.files.paths import everything_below, matching, relative_name, store_path
from storage.layout import open_store
from storage.leases.leases import Leases
from storage.maintenance.garbage import leftovers, remove_leftover
from storage.maintenance.rewriting import plan_merges, rewrite
from storage.maintenance.survey import survey
from storage.maintenance.verification import find_problem, parts, repair
from storage.shards.formats import check_shard

WIDE = Family("static", 2048, {})


def wide(name: str, tokens: int) -> VideoFeatures:
    """Features that no compression makes smaller: 8 KiB a token."""
    bits = np.random.default_rng(len(name)).integers(0, 2**32, (tokens, WIDE.dim), dtype=np.uint32)
    times = np.arange(float(tokens))
    return VideoFeatures(name, "0" * 64, bits.view(np.float32), times, times, {})


@pytest.fixture
def folder(s3_folder):
    return store_path(s3_folder)


@pytest.fixture
def line(s3_server, monkeypatch):
    """A line to the server that everything opened from now on goes through; what fails is not tried again."""
    line = Line(s3_server["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.address)
    monkeypatch.setitem(remote._RETRY, "max_retries", 0)
    yield line
    with contextlib.suppress(OSError):
        line.close()


@pytest.fixture
def requests(s3_server, monkeypatch):
    """The requests that the server has had since the test began, as in its own log, without compaction by chance."""
    monkeypatch.setattr("storage.tables.table.COMPACT_EVERY", math.inf)
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage().split('"')[1])
    logger = logging.getLogger("werkzeug")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield seen
    logger.removeHandler(handler)
    logger.level, logger.propagate = before


@pytest.mark.parametrize("tokens", [4, 1000], ids=["one put", "a put in parts"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999])
def test_put_that_breaks_off_leaves_nothing_and_the_next_one_succeeds(s3_folder, line, tokens, share):
    store = FeatureStore(s3_folder)
    store.write(WIDE, [wide("a.mp4", 1)])
    line.bytes_left = int(share * tokens * 8192)
    with pytest.raises(StoreError) as caught:
        store.write(WIDE, [wide("bb.mp4", tokens)])
    assert "\n" not in str(caught.value)
    line.bytes_left = None
    assert set(FeatureStore(s3_folder).done(WIDE)) == {"a.mp4"}
    assert len(store.shards(WIDE)) == 1
    store.write(WIDE, [wide("bb.mp4", tokens)])
    assert [video.tokens for video in FeatureStore(s3_folder).read(WIDE)] == [1, tokens]


WRITER = """
import sys
import numpy as np
from storage import Family, FeatureStore, VideoFeatures
family, store = Family("static", 2048, {}), FeatureStore(sys.argv[1])
vectors = np.random.default_rng(0).integers(0, 2**32, (800, 2048), dtype=np.uint32).view(np.float32)
for number in range(1000):
    name = f"{sys.argv[2]}-{number}.mp4"
    store.write(family, [VideoFeatures(name, "0" * 64, vectors, np.arange(800.0), np.arange(800.0), {})])
    print(name, flush=True)
"""


def test_kill_in_mid_put_loses_nothing_that_was_committed_and_shows_nothing_torn(s3_folder):
    committed = []
    for attempt, delay_s in enumerate((0.02, 0.07)):
        command = [sys.executable, "-c", WRITER, s3_folder, str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            committed.append(writer.stdout.readline().strip())
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
            committed += writer.stdout.read().split()
    found = [video.video_id for video in FeatureStore(s3_folder).read(WIDE)]  # every checksum is right
    assert len(set(found)) == len(found)
    assert set(committed) <= set(found)
    assert len(found) <= len(committed) + 2


def test_one_of_many_creates_an_object(folder):
    texts = [str(number).encode() * 1000 for number in range(8)]
    with ThreadPoolExecutor(len(texts)) as pool:
        created = list(pool.map(lambda text: create_file(folder / "a", text), texts))
    assert sum(created) == 1
    assert (folder / "a").read_bytes() == texts[created.index(True)]


def test_creator_whose_answer_got_lost_still_knows_that_it_was_it(s3_folder, line):
    target = store_path(s3_folder) / "a"
    line.loses_answer = True
    assert create_file(target, b"mine")
    line.loses_answer = True
    assert not create_file(target, b"another's")
    assert target.read_bytes() == b"mine"


def test_folder_counts_from_its_mark_on_and_belongs_to_one_alone(folder):
    target = folder / "models" / "main" / "1"
    with commit_folder(target, mark="metadata.json") as temporary:
        (temporary / "metadata.json").write_text("{}")
        (temporary / "z").mkdir()
        (temporary / "z" / "more.bin").write_bytes(b"first")
        with pytest.raises(FileExistsError), commit_folder(target, mark="metadata.json") as another:
            (another / "metadata.json").write_text("second")
        assert ModelSerializer(folder).versions("main") == []
    assert ModelSerializer(folder).versions("main") == ["1"]
    assert (target / "z/more.bin").read_bytes() == b"first"
    with pytest.raises(ZeroDivisionError), commit_folder(folder / "models/main/2", mark="metadata.json") as temporary:
        (temporary / "metadata.json").write_text(f"half {1 / 0}")
    assert list(everything_below(folder / "models/main/2")) == []


def test_what_a_killed_trainer_left_is_no_version_keeps_nobody_up_and_goes_when_it_is_old(folder):
    (folder / "models/main/1/.claim").write_bytes(b"killed")
    (folder / "models/main/1/model.keras").write_bytes(b"half")
    models = ModelSerializer(folder)
    assert (models.names(), models.versions("main")) == ([], [])
    with pytest.raises(FileExistsError), commit_folder(folder / "models/main/1", mark="metadata.json"):
        pass
    assert leftovers(folder) == []
    assert leftovers(folder, idle_s=0) == [folder / "models/main/1"]
    remove_leftover(folder / "models/main/1")
    assert list(everything_below(folder)) == []


def test_object_is_replaced_only_when_the_block_ends_well(folder):
    target = folder / "a.txt"
    with commit_file(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), commit_file(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert target.read_text() == "old"
    with commit_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert not temporary.parent.exists()


def test_paths_answer_as_local_ones_do(folder, tmp_path):
    files = ("a/1/family.json", "a/2/x.h5", "a/2/x.parquet", "b/family.json", "b/.hidden/family.json", "c.txt")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for place in (tmp_path, folder):
            (place / name).write_bytes(b"x" * len(name))

    def names(place, paths) -> list[str]:
        return sorted(str(path.relative_to(place)) for path in paths)

    for pattern in ("*", "*/*", "*/*/family.json", "a/*", "a/2/x.*", "b/family.json", "[ab]/1", "d/*", "d"):
        expected = names(tmp_path, tmp_path.glob(pattern))
        assert names(folder, matching(folder, pattern)) == names(tmp_path, matching(tmp_path, pattern)) == expected
    assert names(folder, folder.iterdir()) == names(tmp_path, tmp_path.iterdir())
    assert names(folder, everything_below(folder)) == sorted(files)
    for name in (*files, "a", "a/2", "d", "a/2/x"):
        for question in ("exists", "is_file", "is_dir"):
            assert getattr(folder / name, question)() == getattr(tmp_path / name, question)(), (name, question)
    assert (folder / "a/2/x.h5").stat().st_size == 8
    assert abs((folder / "a").stat().st_mtime - time.time()) < 60
    for attribute in ("name", "stem", "suffix"):
        assert getattr(folder / "a/2/x.h5", attribute) == getattr(tmp_path / "a/2/x.h5", attribute)
    with pytest.raises(FileNotFoundError):
        (folder / "d").read_bytes()


def test_any_part_of_an_object_reads_as_from_a_local_file(folder, tmp_path):
    rng = np.random.default_rng(0)
    data = rng.bytes(300_000)
    for place in (tmp_path, folder):
        (place / "a").write_bytes(data)
        (place / "empty").write_bytes(b"")
    for name in ("a", "empty"):
        with (folder / name).open("rb") as found, (tmp_path / name).open("rb") as truth:
            for offset, whence, count in zip(
                rng.integers(-1000, 1000, 60), rng.integers(0, 3, 60), rng.integers(0, 200_000, 60), strict=True
            ):
                start = {0: abs(int(offset)), 1: abs(int(offset)), 2: int(offset) * (name == "a")}[int(whence)]
                assert found.seek(start, whence) == truth.seek(start, whence)
                assert found.read(count) == truth.read(count)


def test_seeking_and_reading_past_the_ends_is_as_in_a_local_file(folder, tmp_path):
    for data in (b"", b"some bytes"):
        (tmp_path / "file").write_bytes(data)
        (folder / "file").write_bytes(data)
        for buffering in (0, -1):
            answers = []
            for path in (tmp_path / "file", folder / "file"):
                with path.open("rb", buffering=buffering) as file:  # nothing is known of its size yet
                    after = file.seek(10**6), file.read(4), file.read()
                with path.open("rb", buffering=buffering) as file:
                    from_end = file.seek(3, os.SEEK_END), file.read(4), file.seek(-len(data), os.SEEK_CUR), file.read(4)
                    for offset, whence in ((-1, os.SEEK_SET), (-len(data) - 1, os.SEEK_END), (-100, os.SEEK_CUR)):
                        with pytest.raises((ValueError, OSError)):
                            file.seek(offset, whence)
                    with pytest.raises((ValueError, OSError)):
                        file.seek(0, 9)
                answers.append((after, from_end))
            assert answers[0] == answers[1]


def test_file_is_not_moved_between_this_machine_and_object_storage(folder, tmp_path):
    here, there = tmp_path / "file", folder / "file"
    here.touch()
    there.write_bytes(b"")
    for path, target in ((here, folder / "moved"), (there, tmp_path / "moved")):
        with pytest.raises(ValueError, match=re.escape(str(target))):
            move(path, target)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            relative_name(path, target.parent)
    assert here.exists()
    assert there.exists()


def test_few_requests_are_made(s3_folder, requests):
    for format in ("parquet", "hdf5"):
        store = FeatureStore(f"{s3_folder}/{format}", format=format)
        store.write(WIDE, [wide("first.mp4", 64)])
        table = {}
        for name, action in {
            "write": lambda store=store: store.write(WIDE, [wide(f"{number}.mp4", 64) for number in range(8)]),
            "has": lambda store=store: store.has(WIDE, {"3.mp4": "0" * 64}),
            "one video": lambda store=store: list(store.read(WIDE, ["3.mp4"])),
            "all videos": lambda store=store: list(store.read(WIDE)),
            "verify": lambda store=store: check_shard(store.shards(WIDE)[1]),
        }.items():
            requests.clear()
            action()
            table[name] = len(requests)
        print(format, "requests:", table)
        assert table["write"] <= 12
        assert table["has"] <= 4
        assert table["one video"] <= 8
        assert table["all videos"] <= 10
        assert table["verify"] <= 6


def test_requests_for_a_shard_do_not_grow_with_the_store(s3_folder, requests):
    store = FeatureStore(s3_folder)
    counts = []
    for number in range(24):
        requests.clear()
        videos = [wide(f"{number:03d}-{row}.mp4", 1) for row in range(4)]
        assert store.has(WIDE, {video.video_id: video.video_sha256 for video in videos}) == set()
        store.write(WIDE, videos)
        counts.append(len(requests))
    print("requests for a look and a commit:", counts)
    assert max(counts[12:]) <= max(counts[2:12])


def test_readers_find_every_video_once_while_shards_are_merged_and_converted(folder, draw, static):
    store = FeatureStore(folder)
    names = {f"{number}.mp4" for number in range(8)}
    for name in sorted(names):
        store.write(static, [draw(name)])
    stop, faults = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = [video.video_id for video in FeatureStore(folder).read(static)]
            if sorted(found) != sorted(names):
                faults.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for step in range(2, 5):
            for sources in plan_merges(store, static, target_bytes=3 * 8 * 4 * step):
                rewrite(store, static, sources)
            for shard in store.shards(static)[: step % 3]:
                rewrite(store, static, [shard.name], "hdf5" if shard.suffix == ".parquet" else "parquet")
    finally:
        stop.set()
        reader.join()
    assert faults == []
    assert len(store.shards(static)) < 8


@pytest.fixture
def lists_late(s3_server, monkeypatch):
    """Let the server's listings show for a while neither what is new nor that something is gone; returns how long."""
    lag_s, deleted = 0.4, []
    listed, delete = S3Backend.list_objects, S3Backend.delete_object

    def remember(backend, bucket_name, key_name, *values, **options):
        if (key := backend.head_bucket(bucket_name).keys.get(key_name)) is not None:
            deleted.append((time.monotonic(), key))
        return delete(backend, bucket_name, key_name, *values, **options)

    def late(backend, bucket, prefix, delimiter, marker, max_keys):
        def is_below(name: str) -> bool:
            rest = name.removeprefix(prefix or "")
            return name.startswith(prefix or "") and not (delimiter and delimiter in rest)

        keys, folders, *more = listed(backend, bucket, prefix, delimiter, marker, max_keys)
        since = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=lag_s)
        old = [name for name, key in [*bucket.keys.items()] if key.last_modified.replace(tzinfo=None) < since]
        gone = [key for at, key in deleted if time.monotonic() - at < lag_s and key.name not in bucket.keys]
        shown = [key for key in keys if key.name in {*old}] + [key for key in gone if is_below(key.name)]
        folders = [folder for folder in folders if any(name.startswith(folder) for name in old)]
        return sorted({key.name: key for key in shown}.values(), key=lambda key: key.name), folders, *more

    monkeypatch.setattr(S3Backend, "list_objects", late)
    monkeypatch.setattr(S3Backend, "delete_object", remember)
    return lag_s


@pytest.mark.slow
def test_two_writers_and_compaction_lose_and_double_nothing_on_a_server_that_lists_late(
    s3_folder, request, draw, static
):
    FeatureStore(s3_folder).write(static, [draw("first.mp4")])
    lag_s = request.getfixturevalue("lists_late")
    time.sleep(lag_s)
    written: list[str] = []

    def write(writer: int) -> None:
        store = FeatureStore(s3_folder)
        with Leases(s3_folder, static.key, beat_s=0.2) as lease:
            for number in range(4):
                name = f"{writer}/{number}.mp4"
                lease.claim(lambda claimed, name=name: {name: 1})
                store.write(static, [draw(name), draw(f"{writer}.mp4", content=str(number))])
                lease.release()
                written.append(name)

    def merge() -> None:
        store = FeatureStore(s3_folder)
        for sources in plan_merges(store, static):
            rewrite(store, static, sources)

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(write, writer) for writer in range(2)]
        while not all(each.done() for each in done):
            merge()
            assert leftovers(s3_folder) == []
        for each in done:
            each.result()
    time.sleep(lag_s)
    merge()
    time.sleep(lag_s)
    assert len(written) == 8
    store = FeatureStore(s3_folder)
    names = [video.video_id for video in store.read(static)]
    assert sorted(names) == sorted([*written, "0.mp4", "1.mp4", "first.mp4"])
    for writer in range(2):
        assert store.done(static)[f"{writer}.mp4"] == draw(f"{writer}.mp4", content="3").video_sha256
    assert [find_problem(part) for part in parts(s3_folder)] == [None] * len(parts(s3_folder))


def test_shard_that_cannot_be_reached_is_not_damaged(s3_folder, line, draw, static):
    store = FeatureStore(s3_folder)
    store.write(static, [draw("a.mp4"), draw("b.mp4")])
    FailureLog(s3_folder).add([Failure("c.mp4", "0" * 64, "k", "faces", "no_face", "no face", 1)])
    save_version(store_path(s3_folder) / "models" / "main" / "1")
    found = parts(s3_folder)
    assert len(found) == 6  # three tables, a description, a shard and a model
    assert [find_problem(part) for part in found] == [None] * 6
    reading = store.read(static)
    next(reading)
    line.close()
    for part in found:
        problem = find_problem(part)
        assert problem.trouble == "unreachable"
        assert "left in place" in repair(problem)
    for action in (
        lambda: FeatureStore(s3_folder),
        lambda: store.done(static),
        lambda: survey(store, static),
        lambda: list(store.read(static)),
        store.families,
        lambda: ModelSerializer(s3_folder),
    ):
        with pytest.raises(UnreachableError, match="AWS_ENDPOINT_URL") as caught:
            action()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["parquet", "hdf5"])
def test_line_that_is_cut_between_two_parts_of_a_shard_is_no_damage(s3_folder, line, format):
    store = FeatureStore(s3_folder, format)
    store.write(WIDE, [wide(f"{number}.mp4", 150) for number in range(8)])
    reading = store.read(WIDE, ["1.mp4", "6.mp4"])
    assert next(reading).video_id == "1.mp4"
    line.close()
    with pytest.raises(UnreachableError):
        next(reading)


class _Forbids(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
        text = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_wrong_with_a_store_is_one_line_that_names_the_cure(s3_server, monkeypatch):
    with pytest.raises(UnreachableError, match="s3://nobody/a: NoSuchBucket: "):
        open_store("s3://nobody/a")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Forbids) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for action in (lambda: open_store("s3://traitline/a"), lambda: check_writable(store_path("s3://traitline/a"))):
            with pytest.raises(UnreachableError, match="AWS_ACCESS_KEY_ID") as caught:
                action()
            assert "\n" not in str(caught.value)
        server.shutdown()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(StoreError, match=r"AWS_ENDPOINT_URL.*http://.*https://"):
        open_store("s3://traitline/a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(StoreError, match="AccessKeyId"):
        open_store("s3://traitline/a")


def test_server_that_is_down_or_silent_is_not_waited_for_long(s3_server, monkeypatch):
    limits = remote._CLIENT["connect_timeout"] + remote._CLIENT["read_timeout"] + remote._RETRY["retry_timeout"]
    assert limits.total_seconds() < 60
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setitem(remote._CLIENT, "read_timeout", remote._CLIENT["read_timeout"] / 100)
        monkeypatch.setitem(remote._RETRY, "max_retries", 1)
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="AWS_ENDPOINT_URL"):
            open_store("s3://traitline/a")
        assert time.monotonic() - started < 50
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="AWS_ENDPOINT_URL"):
        open_store("s3://traitline/a")
    assert time.monotonic() - started < 50
