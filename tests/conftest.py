"""What all tests share: the folder of real recordings, which stays outside the project, servers and disks, the demo
corpus, and the command as a person runs it."""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import gc
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from asset_server import AssetServer
from command_starter import CommandStarter
from prefect_machine import PrefectServer, postgresql
from s3_server import open_s3_server
from slow_cases import SLOW_CASES
from small_disk import SmallDisk

from extractors.assets import catalog
from extractors.faces.settings import FaceModels
from flows.session import console as output

if TYPE_CHECKING:
    from report_store import ReportStore

    from flows.demo.corpus import DemoCorpus

# What takes the most time of importing the command, and of importing Prefect, which reads the environment itself.
PRELOADED = ("flows.cli.app", "fsspec", "griffe", "httpx", "jsonschema", "pendulum", "starlette", "websockets")
# Libraries that start threads when they are imported, of which a fork has none.
WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

# Of `mallopt`, and what glibc comes to by itself where programs free large blocks.
MALLOC_THRESHOLDS = {-1: 64 * 2**20, -3: 32 * 2**20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: bytes

# Objects that are allocated between two searches for garbage, as in commands: tests import libraries, too.
GARBAGE_THRESHOLD = 50_000

SHARED_MEMORY = Path("/dev/shm")
MEMORY_FOR_FILES = 8 * 2**30  # bytes

CORPUS = Path(os.environ.get("TRAITLINE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


# In this order, so that no process is left with a long one at the end. Tests of whole commands follow.
LONGEST = (
    *("docs/test_code_blocks.py", "flows/scheduling/test_scheduled_runs.py", "flows/demo/test_corpus.py"),
    *("flows/pipeline/test_run.py", "flows/report/test_page.py", "flows/engine/test_steps.py"),
    *("system/test_hostile_files.py", "flows/pipeline/test_backbones.py", "storage/maintenance/test_maintenance.py"),
    *("flows/session/test_server.py", "flows/extraction/test_workers.py", "extractors/preparation/test_pool.py"),
    *("extractors/static/test_extractor.py", "system/test_many_runs.py", "fusion/training/test_train.py"),
    *("storage/maintenance/test_faults.py", "storage/models/test_serializer.py", "docker/test_slurm.py"),
    *("system/test_interrupt.py", "storage/maintenance/test_erasing.py", "flows/session/test_strangers.py"),
    *("fusion/model/test_export.py", "fusion/evaluation/test_baselines.py", "flows/doctor/test_doctor.py"),
    *("extractors/faces/test_edits.py", "storage/shards/test_store.py", "extractors/preparation/test_limits.py"),
    *("fusion/training/test_resume.py", "storage/files/test_remote.py", "extractors/video/test_shots.py"),
    *("storage/models/test_hostile_models.py",),
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary files in memory if it has room for them: on a disk, every commit of a store waits for it.

    The garbage collector runs as seldom as in commands.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    if SHARED_MEMORY.is_dir() and not config.option.basetemp:
        runs_programs = not os.statvfs(SHARED_MEMORY).f_flag & os.ST_NOEXEC
        free = min(shutil.disk_usage(SHARED_MEMORY).free, psutil.virtual_memory().available)
        if runs_programs and free >= MEMORY_FOR_FILES:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow cases, and order the files: those that take longest come first.

    Raises:
        pytest.UsageError: a collected file has no test with the name of one of its slow cases, which would be quick
            from now on.
    """
    reasons = {f"tests/{case}": reason for reason, cases in SLOW_CASES.items() for case in cases}
    for item in items:
        if item.nodeid in reasons:
            item.add_marker(pytest.mark.slow(reason=reasons[item.nodeid]))
    if not any("::" in argument for argument in config.args):  # files are collected as a whole
        names, files = {item.nodeid for item in items}, {item.location[0] for item in items}
        gone = sorted(case for case in reasons if case not in names and case.partition("::")[0] in files)
        if gone:
            raise pytest.UsageError(f"slow_cases.py names tests that do not exist: {', '.join(gone)}")
    folders = Path(__file__).parent
    order = {name: place for place, name in enumerate((*LONGEST, "system", "flows"))}

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(folders)
        return order.get(path.as_posix(), order.get(path.parts[0], len(order)))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is imported from the garbage collector, which takes half a second to go through all of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """Let the interpreter take the modules apart at its end as usual."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Undo what a command or a flow does to its process, which ends with it elsewhere and serves many tests here."""
    umask = os.umask(0o022)
    os.umask(umask)
    factory, level = logging.getLogRecordFactory(), logging.getLogger().level
    yield
    os.umask(umask)
    logging.setLogRecordFactory(factory)
    logging.getLogger().setLevel(level)
    output.console._file, output._Output.is_of_run = None, False
    # When Keras reads its first generator, tf.data lowers these for good; large arrays then cost four times as much.
    if hasattr(ctypes.CDLL(None), "mallopt"):
        for name, size in MALLOC_THRESHOLDS.items():
            ctypes.CDLL(None).mallopt(name, size)


@pytest.fixture(scope="module")
def dask_address() -> Iterator[str]:
    """A cluster that somebody else started: two workers with a GPU each, as far as Dask is told."""
    from distributed import LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "support" / "machines"))  # of what the workers do
        options = {
            "threads_per_worker": 1,
            "memory_limit": 0,
            "dashboard_address": "127.0.0.1:0",
            "resources": {"GPU": 1},
        }
        with LocalCluster(n_workers=2, **options) as cluster:
            yield cluster.scheduler_address


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of real clips, labels and references; tests that need it are skipped where it is absent."""
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus of real recordings at {CORPUS} (set TRAITLINE_CORPUS)")
    return CORPUS


@pytest.fixture(scope="session")
def face_model() -> Path:
    """MediaPipe's face detection model, fetched once into the user's cache where it is not there yet."""
    return catalog.resolve("face_detector") / "face_detection_short_range.tflite"


@pytest.fixture(scope="session")
def face_models(face_model, face_recognizer) -> FaceModels:
    """The files of all networks that find, check and recognise faces, fetched like `face_model`."""
    return FaceModels(
        face_model,
        catalog.resolve("face_detector_full_range") / "face_detection_full_range.tflite",
        catalog.resolve("yunet") / "face_detection_yunet_2023mar_int8bq.onnx",
        face_recognizer,
    )


@pytest.fixture(scope="session")
def face_recognizer() -> Path:
    """SFace, fetched once into the user's cache where it is not there yet."""
    return catalog.resolve("face_recognizer") / "face_recognition_sface_2021dec_int8bq.onnx"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[..., SmallDisk]]:
    """Mounts small disks, as `small_disk(size)`; tests that ask for this are skipped where that is not permitted."""
    disks: list[SmallDisk] = []

    def mount(size: int, files: int = 10_000) -> SmallDisk:
        folder = tmp_path / f"disk {len(disks)}"
        folder.mkdir()
        try:
            disks.append(SmallDisk(folder, size, files))
        except PermissionError as error:
            pytest.skip(f"a small disk cannot be mounted here: {error}")
        return disks[-1]

    yield mount
    for disk in disks:
        disk.close()


@pytest.fixture
def asset_server():
    """Three megabytes of noise on a web server of this machine."""
    content = np.random.default_rng(0).bytes(3_000_000)
    with AssetServer(content) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


@pytest.fixture
def declare_asset(tmp_path, monkeypatch, asset_server):
    """Let the only asset be `net`, the server's file from the given sources; the user's cache is empty."""
    monkeypatch.setattr(catalog, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv(catalog.ENVIRONMENT_VARIABLE, raising=False)
    folder = tmp_path / "table"
    (folder / "licences").mkdir(parents=True)
    (folder / "licences" / "free.txt").write_text("Do what you like.\n")

    def declare(*sources: str, digest: str | None = None) -> None:
        digest = digest if digest is not None else f"sha256:{hashlib.sha256(asset_server.content).hexdigest()}"
        urls = [source if ":" in source else asset_server.url(source) for source in sources]
        (folder / "assets.toml").write_text(
            '[net]\ntitle = "A network"\nversion = "1"\npurpose = "tests"\nlicence = "Free"\n'
            'licence_file = "free.txt"\n'
            f'[[net.files]]\nname = "weights.bin"\nsize = {len(asset_server.content)}\n'
            f'digest = "{digest}"\nsources = {urls}\n'
        )
        table = catalog.read_table(folder / "assets.toml")
        monkeypatch.setattr(catalog, "known_assets", lambda: table)

    return declare


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """Moto's S3 server on this machine; the environment variables by which it is found, set for the session as well."""
    with open_s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture
def s3_folder(s3_server) -> str:
    """Address of a folder on object storage that nobody has used before, with letters of more than one byte."""
    return f"s3://traitline/Ünï {secrets.token_hex(6)}/store"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str], AbstractContextManager[Path]]:
    """A folder that all processes of a session share, as `made_once(name)`; the first fills it, and the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @contextmanager
    def enter(name: str) -> Iterator[Path]:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield shared / name

    return enter


@pytest.fixture(scope="session")
def rendered(made_once) -> DemoCorpus:
    """The eight demo clips and their labels; tests must not change them."""
    from flows.demo.corpus import render_demo_corpus

    with made_once("demo") as folder:
        return render_demo_corpus(folder)  # finds what another process has rendered


@pytest.fixture(scope="session")
def short_clips(made_once) -> DemoCorpus:
    """The demo clips and their labels, a second of each; tests must not change them."""
    from flows.demo import corpus

    with made_once("short clips") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "CLIPS", [dataclasses.replace(clip, frames=32) for clip in corpus.CLIPS])
        return corpus.render_demo_corpus(folder)


@pytest.fixture(scope="session")
def small_networks(tmp_path_factory) -> tuple[str, ...]:
    """Settings that name drawn networks, for tests of all that happens around networks: the usual ones take seconds."""
    from drawn_networks import motion_network, patch_network

    folder = tmp_path_factory.mktemp("networks")
    patch_network(folder / "static.onnx")
    motion_network(folder / "motion.onnx")
    return (
        *(f"static.base_model={folder / 'static.onnx'}", "static.preprocessing=0-1"),
        *(f"dynamic.base_model={folder / 'motion.onnx'}", "optical_flow.preset=fast", "extract.processes=1"),
    )


@pytest.fixture(scope="session")
def prepared_prefect_home(made_once) -> Path:
    """Prefect's home with the tables of its database, whose making takes seconds; tests copy it."""
    with made_once("prefect home") as home:
        if not home.exists():
            command = [str(Path(sys.executable).with_name("prefect")), "server", "database", "upgrade", "--yes"]
            environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        return home


@pytest.fixture(scope="session")
def report_store(made_once, tmp_path_factory) -> ReportStore:
    """A drawn store of which a report can be made; tests may add reports to it and must change nothing else."""
    # Not above: pytest reads this file while it captures nothing. Prefect, when imported, has absl's log handler close
    # the stream that it writes to, which is pytest's where another test file has imported TensorFlow before.
    from report_store import make_report_store, open_report_store

    folder = tmp_path_factory.mktemp("report") / "copy"
    with made_once("report store") as made:
        if not made.exists():
            make_report_store(made)
    return open_report_store(shutil.copytree(made, folder, copy_function=os.link))


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory) -> Iterator[PrefectServer]:
    """Prefect's server on PostgreSQL, which tests may stop and start again; they are skipped where that is missing.

    It ends with the file that needs it, because it takes a second of CPU time a minute when it has nothing to do.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL server (Debian: apt install postgresql)")
    with postgresql(programs[-1]) as database:
        server = PrefectServer(tmp_path_factory.mktemp("server"), database)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def traitline(
    tmp_path_factory, face_models, prepared_prefect_home
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run `traitline ARGUMENTS` from an empty folder or the given one, with a Prefect home of the test session's.

    The command is forked from a process that has imported all libraries, unless it is to import them itself (`afresh`)
    or is given variables that are read when Python or Prefect begins.
    """
    folder = tmp_path_factory.mktemp("work")
    environment = {
        **os.environ,
        "PREFECT_HOME": str(shutil.copytree(prepared_prefect_home, tmp_path_factory.mktemp("prefect") / "home")),
        "COLUMNS": "200",
        # Nothing but this machine is to be reached, and that without these proxies: downloads fail at once.
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
        "no_proxy": "example.org",
    }
    starters: dict[bool, CommandStarter] = {}

    def run(
        *arguments: str | Path, folder: Path = folder, afresh: bool = False, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        afresh = afresh or any(name.startswith(("PYTHON", "PREFECT_")) for name in variables)
        if afresh not in starters:
            preload, more = (PRELOADED, {}) if afresh else (["imported_commands"], WITHOUT_THREADS)
            script = Path(sys.executable).with_name("traitline")
            starters[afresh] = CommandStarter(script, preload, {**environment, **more})
        return starters[afresh].run(
            [str(argument) for argument in arguments],
            folder=folder,
            environment={**environment, **variables},
            timeout_s=600,
        )

    yield run
    for starter in starters.values():
        starter.close()
