"""Downloads from a real server on this machine, one that serves well and ones that serve badly."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from extractors.assets import catalog, download
from extractors.assets.files import AssetError, digest_of


@pytest.fixture
def folder(tmp_path):
    """The path of the asset's file."""
    return tmp_path / "cache" / "net"


def content_of(folder):
    """The folder's only file, and nothing that a download leaves behind."""
    assert [path.name for path in folder.iterdir()] == ["weights.bin"]
    return (folder / "weights.bin").read_bytes()


def test_a_missing_asset_is_downloaded_once_and_then_found_in_the_cache(declare_asset, asset_server, folder):
    declare_asset("sound")
    assert catalog.resolve("net") == folder
    assert content_of(folder) == asset_server.content
    assert catalog.resolve("net") == folder
    assert len(asset_server.asked) == 1


def test_a_download_says_how_far_it_is(declare_asset, asset_server):
    declare_asset("sound")
    told = []
    catalog.fetch(catalog.known_assets()["net"], lambda file, done: told.append(done))
    assert told[0] == 0
    assert told == sorted(told)
    assert told[-1] == len(asset_server.content)
    assert len(told) > 3


def test_a_redirect_is_followed(declare_asset, asset_server, folder):
    declare_asset("moved")
    catalog.resolve("net")
    assert content_of(folder) == asset_server.content


def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(declare_asset, asset_server, folder):
    asset_server.break_after = 1_200_000
    declare_asset("breaking")
    catalog.resolve("net")
    assert content_of(folder) == asset_server.content
    assert asset_server.asked == [
        ("breaking", None),
        ("breaking", "bytes=1200000-"),
        ("breaking", "bytes=2400000-"),
    ]


def test_what_came_before_a_stop_is_not_asked_for_again_by_the_next_command(declare_asset, asset_server, folder):
    declare_asset("sound")

    def stop(file, done):
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalog.fetch(catalog.known_assets()["net"], stop)
    assert not (folder / "weights.bin").exists()
    kept = (folder / ".partial-weights.bin").stat().st_size
    assert 0 < kept < len(asset_server.content)
    catalog.resolve("net")
    assert asset_server.asked[1:] == [("sound", f"bytes={kept}-")]
    assert content_of(folder) == asset_server.content


def test_a_file_that_changed_on_the_server_is_fetched_from_its_beginning(declare_asset, asset_server, folder):
    declare_asset("sound")
    folder.mkdir(parents=True)
    (folder / ".partial-weights.bin").write_bytes(b"of the older version")
    note = f'{{"source": "{asset_server.url("sound")}", "validator": "\\"older\\""}}'
    (folder / ".partial-weights.bin.json").write_text(note)
    catalog.resolve("net")
    assert asset_server.asked == [("sound", "bytes=20-")]
    assert content_of(folder) == asset_server.content


def test_a_server_that_cannot_go_on_is_asked_for_everything(declare_asset, asset_server, folder):
    declare_asset("plain-breaking")
    with pytest.raises(AssetError, match="broke off at 1,000,000 of 3,000,000 bytes"):
        catalog.resolve("net")
    declare_asset("plain-breaking", "plain")
    catalog.resolve("net")
    assert asset_server.asked == [("plain-breaking", None), ("plain-breaking", None), ("plain", None)]
    assert content_of(folder) == asset_server.content


def test_the_wrong_part_of_a_file_is_not_appended(declare_asset, asset_server, folder):
    declare_asset("other-part", "sound")
    folder.mkdir(parents=True)
    (folder / ".partial-weights.bin").write_bytes(asset_server.content[:1000])
    note = f'{{"source": "{asset_server.url("other-part")}", "validator": "x"}}'
    (folder / ".partial-weights.bin.json").write_text(note)
    catalog.resolve("net")
    assert asset_server.asked == [("other-part", "bytes=1000-"), ("sound", None)]
    assert content_of(folder) == asset_server.content


def test_sources_are_tried_in_order_and_the_fault_of_each_is_named(declare_asset, asset_server, folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 3.0)
    declare_asset("absent", "wrong", "short", "endless", "silent", "http://127.0.0.1:9/closed")
    with pytest.raises(AssetError) as caught:
        catalog.resolve("net")
    wrong = hashlib.sha256(bytes(byte ^ 1 for byte in asset_server.content)).hexdigest()
    faults = str(caught.value)
    places = [
        faults.index(asset_server.url(f"{source}: {fault}"))
        for source, fault in (
            ("absent", "HTTP Error 404"),
            ("wrong", f"the file there has digest sha256:{wrong}, not the published"),
            ("short", "offers 2,999,999 bytes, not the published 3,000,000"),
            ("endless", "sends more than the published 3,000,000 bytes"),
            ("silent", "timed out"),
        )
    ]
    assert places == sorted(places)
    assert "127.0.0.1:9/closed: <urlopen error [Errno 111]" in faults
    assert "\n" not in faults
    assert [way for way, _ in asset_server.asked] == ["absent", "wrong", "short", "endless", "silent"]


@pytest.mark.parametrize("source", ["wrong", "endless"])
def test_wrong_bytes_are_refused_with_both_digests_or_sizes_and_not_kept(declare_asset, folder, source):
    declare_asset(source)
    with pytest.raises(AssetError, match="published"):
        catalog.resolve("net")
    assert list(folder.iterdir()) == []


def test_a_git_blob_digest_checks_a_download_too(declare_asset, asset_server, folder, tmp_path):
    (tmp_path / "truth").write_bytes(asset_server.content)
    declare_asset("wrong", "sound", digest=digest_of(tmp_path / "truth", "git-blob-sha1"))
    catalog.resolve("net")
    assert content_of(folder) == asset_server.content


def test_two_processes_that_want_the_same_asset_download_it_once(declare_asset, asset_server, folder):
    declare_asset("sound")
    found = []
    threads = [threading.Thread(target=lambda: found.append(catalog.resolve("net"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [folder] * 4
    assert len(asset_server.asked) == 1
    assert content_of(folder) == asset_server.content


def test_a_folder_that_cannot_be_written_to_is_said_in_one_line(declare_asset, tmp_path):
    declare_asset("sound")
    (tmp_path / "cache").write_text("a file in the folder's place")
    with pytest.raises(AssetError, match="cannot write into "):
        catalog.resolve("net")


def test_a_silent_server_holds_nobody_up_for_longer_than_the_limit(declare_asset, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    declare_asset("silent", "sound")
    started = time.monotonic()
    catalog.resolve("net")
    assert time.monotonic() - started < 20  # the server is silent for 30 s
