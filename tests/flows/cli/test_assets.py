"""`traitline assets ...` as a person calls it, with a server on this machine in the place of the publishers'."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from flows.cli.app import app


@pytest.fixture
def call(monkeypatch):
    """Call `traitline assets ARGUMENTS`; both outputs come in one, as wide as they like."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments):
        return CliRunner().invoke(app, ["assets", *map(str, arguments)])

    return run


def test_an_asset_goes_from_a_server_to_a_machine_without_a_network(call, declare_asset, tmp_path, monkeypatch):
    declare_asset("sound")
    shown = call("list")
    assert "missing" in shown.output
    assert "traitline assets fetch" in shown.output

    shown = call("fetch")
    assert shown.exit_code == 0
    assert "weights.bin" in shown.output
    assert "3.0/3.0 MB" in shown.output
    shown = call("list")
    assert f"cache: {tmp_path / 'cache' / 'net'}" in shown.output
    for words in ("net", "tests", "3.0 MB", "Free", "A network"):
        assert words in shown.output
    assert call("bundle", tmp_path / "assets.tar").exit_code == 0

    # The other machine: nothing in its cache, and nobody answers.
    declare_asset("http://127.0.0.1:9/nobody-listens")
    (tmp_path / "cache" / "net" / "weights.bin").unlink()
    monkeypatch.setenv("TRAITLINE_ASSETS", str(tmp_path / "carried"))
    assert call("fetch").exit_code == 1
    shown = call("unpack", tmp_path / "assets.tar")
    assert shown.exit_code == 0, shown.output
    assert f"asset folder: {tmp_path / 'carried' / 'net'}" in call("list").output
    assert "1 file read, 0 damaged" in call("verify").output
    assert (tmp_path / "carried" / "net" / "LICENCE.txt").read_text() == "Do what you like.\n"


def test_verify_reads_every_byte_and_names_the_damaged_file(call, declare_asset, tmp_path):
    declare_asset("sound")
    call("fetch")
    path = tmp_path / "cache" / "net" / "weights.bin"
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    shown = call("verify")
    assert shown.exit_code == 1
    assert f"net: {path} has digest sha256:" in shown.output
    assert "1 file read, 1 damaged" in shown.output
    assert call("bundle", tmp_path / "assets.tar").exit_code == 1
    assert not (tmp_path / "assets.tar").exists()


def test_verify_fails_where_an_asset_is_missing_and_says_which(call, declare_asset):
    declare_asset("sound")
    shown = call("verify")
    assert shown.exit_code == 1
    assert "0 files read, 0 damaged\nmissing or incomplete: net. `traitline assets fetch`" in shown.output
    call("fetch")
    assert call("verify").exit_code == 0


def test_what_is_there_already_is_fetched_without_an_empty_line(call, declare_asset, tmp_path):
    declare_asset("sound")
    call("fetch")
    assert call("fetch").output == f"net: {tmp_path / 'cache' / 'net'}\n"


def test_a_given_folder_is_looked_at_alone(call, declare_asset, asset_server, tmp_path):
    declare_asset("sound")
    (tmp_path / "mine" / "net").mkdir(parents=True)
    (tmp_path / "mine" / "net" / "weights.bin").write_bytes(asset_server.content)
    assert "path: " in call("list", "--folder", tmp_path / "mine").output
    assert "1 file read" in call("verify", "--folder", tmp_path / "mine").output
    assert call("bundle", tmp_path / "assets.tar", "--folder", tmp_path / "mine").exit_code == 0
    assert call("unpack", tmp_path / "assets.tar", "--folder", tmp_path / "other").exit_code == 0
    assert (tmp_path / "other" / "net" / "weights.bin").read_bytes() == asset_server.content
    assert not (tmp_path / "cache").exists()


def test_mistakes_are_one_line(call, declare_asset, tmp_path):
    declare_asset("absent")
    for arguments, words in (
        (["fetch"], "HTTP Error 404"),
        (["fetch", "nat"], "asset nat"),
        (["bundle", tmp_path / "assets.tar"], "traitline assets fetch"),
        (["bundle", tmp_path], str(tmp_path)),
        (["unpack", tmp_path / "absent.tar"], f"{tmp_path / 'absent.tar'}: No such file"),
    ):
        shown = call(*arguments)
        assert shown.exit_code == 1
        lines = shown.output.strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("traitline: ")
        assert words in lines[0]


def test_a_run_that_misses_an_asset_says_how_to_get_it(traitline, short_clips, face_model, tmp_path):
    places = ["--videos", short_clips.videos, "--store", tmp_path / "store"]
    shown = traitline("extract", *places, "--weights", "random", "--set", f"assets={tmp_path}")
    assert shown.returncode == 1
    (line,) = shown.stderr.strip().splitlines()
    assert "face_detection_short_range.tflite" in line
    assert "`traitline assets unpack BUNDLE --folder" in line
    for name in ("face_detector", "face_detector_full_range", "yunet", "face_recognizer"):
        shutil.copytree(face_model.parents[1] / name, tmp_path / "mine" / name)
    folders = {"TRAITLINE_ASSETS": str(tmp_path / "mine"), "XDG_CACHE_HOME": str(tmp_path / "empty")}
    shown = traitline("extract", *places, "--weights", "pretrained", **folders)
    assert shown.returncode == 1
    (line,) = shown.stderr.strip().splitlines()
    for words in ("ResNet-50", "`traitline assets fetch`", "`traitline assets unpack BUNDLE`"):
        assert words in line


def test_a_bundle_of_the_real_face_detector_is_what_sha256sum_says(face_model, traitline, tmp_path):
    shown = traitline("assets", "bundle", tmp_path / "assets.tar", "face_detector")
    assert shown.returncode == 0, shown.stderr
    subprocess.run(["tar", "xf", "assets.tar"], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert (tmp_path / "face_detector" / face_model.name).read_bytes() == face_model.read_bytes()
