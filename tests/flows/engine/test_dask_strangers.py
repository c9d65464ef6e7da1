"""Dask runs the code of whoever connects: strangers do not get in, and certificates of other clusters are settings."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import worker_farm
from certificates import write_certificates
from distributed import LocalCluster
from store_truth import assert_store_is_right
from stranger import as_stranger, needs_root, public_folder
from worker_farm import FAMILIES, Order, drawn_videos, open_drawing

from flows.config.settings import DaskSettings
from flows.engine import dask
from flows.pipeline import extract as extract_flow
from flows.session.errors import UserError

ATTACK = """
for address in sys.argv[1:]:
    for security in (None, Security.temporary()):
        try:
            with Client(address, timeout=5, security=security) as client:
                print("code ran as", client.submit(os.getuid).result())
        except Exception as error:
            print(type(error).__name__)
"""
SHAKE_HANDS = """
context = ssl._create_unverified_context()
for port in sys.argv[1:]:
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", int(port)), timeout=20)) as line:
            line.recv(1)
    except OSError as error:
        print(type(error).__name__)
"""

SET_TRAP = """
os.umask(0)
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
(folder / "global.lock").symlink_to(sys.argv[2])
(folder / "set_as_a_trap.py").touch()
"""


@needs_root
def test_another_account_runs_no_code_in_the_cluster_that_a_run_starts():
    addresses: list[str] = []
    real = LocalCluster.__init__
    with pytest.MonkeyPatch.context() as patch:

        def watched(self: LocalCluster, **options: object) -> None:
            real(self, **options)
            addresses.extend([self.scheduler_address, *(worker.worker_address for worker in self.workers.values())])

        patch.setattr(LocalCluster, "__init__", watched)
        with dask.open_dask(DaskSettings(workers=1)):
            assert len(addresses) == 2
            assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
            said = as_stranger(ATTACK, addresses[0], imports="from distributed import Client, Security")
            ports = [address.rpartition(":")[2] for address in addresses]
            refused = as_stranger(SHAKE_HANDS, *ports, imports="import socket, ssl")
    assert said.split() == ["TypeError", "FatalCommClosedError"]  # without a certificate, and with another
    assert refused.split() == ["SSLError"] * 2


@needs_root
def test_another_account_that_makes_dasks_folder_first_gets_no_code_run_and_no_file_overwritten(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    with public_folder() as folder:
        folder.chmod(0o1777)
        as_stranger(SET_TRAP, folder / "dask-scratch-space", precious)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.setenv("TMPDIR", str(folder))
        with dask.open_dask(DaskSettings(workers=1)) as engine:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("set_as_a_trap")
            found = engine._client.run(importlib.util.find_spec, "set_as_a_trap")
        assert list(found.values()) == [None]
        assert [path.name for path in folder.iterdir()] == ["dask-scratch-space"]  # and ours is gone
    assert precious.read_text() == "kept"


def test_the_cluster_that_a_run_starts_does_its_work(tmp_path, monkeypatch):
    """Its workers have the cluster's certificate."""
    order = Order(str(tmp_path / "store"), str(tmp_path), videos=8, shard_size=4, video_s=0.0)
    monkeypatch.setattr(extract_flow, "families_of", lambda _: FAMILIES)
    monkeypatch.setattr(extract_flow, "open_stretches", partial(open_drawing, order))
    monkeypatch.setenv("PYTHONPATH", str(Path(worker_farm.__file__).parent))
    config = order.config()
    config = config.model_copy(update={"runner": "dask", "dask": DaskSettings(workers=1)})
    report = extract_flow.extract(config, drawn_videos(order.videos))
    assert report.extracted + report.failed == order.videos
    assert_store_is_right(order)


@needs_root
def test_the_same_attack_runs_code_in_a_cluster_without_certificates():
    """What the test above would say if clusters were open."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        imports = "from distributed import Client, Security"
        assert "code ran as 0" in as_stranger(ATTACK, cluster.scheduler_address, imports=imports)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a cluster that somebody else started with certificates, and their folder."""
    folder = tmp_path_factory.mktemp("certificates")
    security = write_certificates(folder, "ours")
    write_certificates(folder, "theirs")
    options = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=security, **options) as cluster:
        yield cluster.scheduler_address, folder


def settings_for(guarded: tuple[str, Path], name: str | None, **more: object) -> DaskSettings:
    address, folder = guarded
    files = {}
    if name is not None:
        files = {"tls_ca_file": folder / f"{name}.pem", "tls_cert": folder / f"{name}.pem"}
        files["tls_key"] = folder / f"{name}.key"
    return DaskSettings(**{"address": address, **files, **more})


def test_a_cluster_with_certificates_is_used_by_those_who_have_them(guarded):
    with dask.open_dask(settings_for(guarded, "ours")) as engine:
        assert engine.workers == 1


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (None, {}, "asks for certificates: name them in dask.tls_ca_file"),
        ("theirs", {}, "no Dask scheduler answers"),
        ("ours", {"tls_cert": None, "tls_key": None}, "give both"),
        ("ours", {"tls_key": Path("nowhere.key")}, "there is no certificate nowhere.key"),
    ],
)
def test_certificates_that_do_not_fit_are_one_line(guarded, name, changes, words, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_S", 3)
    with (
        pytest.raises(UserError, match=words) as raised,
        dask.open_dask(settings_for(guarded, name, **changes)),
    ):
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "warns"),
    [
        ("tcp://192.0.2.7:8786", True),
        ("192.0.2.7:8786", True),
        ("tcp://scheduler.example:8786", True),
        ("tls://192.0.2.7:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("localhost:8786", False),
    ],
)
def test_an_open_scheduler_on_another_machine_is_warned_of(address, warns, capsys):
    dask._warn_without_tls(address)
    assert ("has no TLS" in capsys.readouterr().err) == warns
