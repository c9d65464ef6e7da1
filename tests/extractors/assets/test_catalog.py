from __future__ import annotations

import hashlib
import subprocess

import numpy as np
import pytest

from extractors.assets import catalog
from extractors.assets.files import AssetError, digest_of


@pytest.fixture
def put(asset_server, tmp_path):
    """Put the asset's file, or other bytes under its name, into a folder of assets."""

    def put(parent: str, content: bytes | None = None):
        folder = tmp_path / parent / "net"
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(asset_server.content if content is None else content)
        return folder

    return put


def test_the_folder_in_the_environment_comes_before_the_cache(declare_asset, put, tmp_path, monkeypatch):
    declare_asset()
    put("cache")
    mine = put("mine")
    monkeypatch.setenv(catalog.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    assert catalog.resolve("net") == mine


def test_a_file_that_was_altered_on_this_machine_is_refused_with_both_digests(declare_asset, put, asset_server):
    declare_asset("sound")
    altered = asset_server.content[:-1] + b"!"
    put("cache", altered)
    with pytest.raises(AssetError, match="delete it") as caught:
        catalog.resolve("net")
    for content in (altered, asset_server.content):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert asset_server.asked == []


def test_an_explicit_folder_is_the_only_one_looked_at(declare_asset, asset_server, tmp_path):
    declare_asset("sound")
    with pytest.raises(AssetError, match="does not hold weights"):
        catalog.resolve("net", folder=tmp_path)
    assert asset_server.asked == []


def test_a_missing_asset_is_said_in_one_line_that_names_both_ways_to_get_it(declare_asset, tmp_path):
    declare_asset("http://127.0.0.1:9/nobody-listens")
    for download in (True, False):
        with pytest.raises(AssetError) as caught:
            catalog.resolve("net", download=download)
        for words in (
            "A network",
            "traitline assets fetch",
            "traitline assets unpack",
            str(tmp_path / "cache" / "net"),
        ):
            assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AssetError, match="face_detector, face_detector_full_range, yunet, "):
        catalog.select(["i3d"])


@pytest.mark.parametrize("size", [0, 6, 3 << 20])
def test_git_blob_digest_is_the_one_that_git_gives(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    command = ["git", "hash-object", "--no-filters", str(path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.strip()
    assert digest_of(path, "git-blob-sha1") == f"git-blob-sha1:{found}"


def test_every_asset_comes_with_the_text_of_its_licence():
    for asset in catalog.select([]):
        words = {"Apache-2.0": "Apache License", "MIT": "MIT License"}[asset.licence.split()[0]]
        assert words in asset.licence_text


def test_the_checkpoint_has_the_size_that_its_index_gives_it(corpus):
    """230 variables of float32, one after the other."""
    tf = pytest.importorskip("tensorflow")
    index = corpus.parent / "assets" / "i3d_flow_imagenet.ckpt.index"
    if not index.is_file():
        pytest.skip(f"no index of the published checkpoint at {index}")
    variables = tf.train.list_variables(str(index.with_suffix("")))
    _, data = catalog.known_assets()["i3d_flow_imagenet"].files
    assert len(variables) == 230
    assert data.size == sum(4 * int(np.prod(shape)) for _, shape in variables)


def test_what_finds_faces_comes_out_of_wheels_where_only_a_package_index_is_reached(face_models):
    digests = {"short_range": "bbff11cebd1eb27a", "full_range": "99bf9494d84f50ac", "check": "49f000ec501fef24"}
    for name, digest in digests.items():
        assert hashlib.sha256(getattr(face_models, name).read_bytes()).hexdigest().startswith(digest)


def test_the_published_files_have_the_digests_that_are_written_down(corpus):
    shared = corpus.parent / "assets"
    for name, number, path in (
        ("face_detector", 0, shared / "face_detection_short_range.tflite"),
        ("face_detector_full_range", 0, shared / "face_detection_full_range.tflite"),
        ("i3d_flow_imagenet", 0, shared / "i3d_flow_imagenet.ckpt.index"),
    ):
        if not path.is_file():
            pytest.skip(f"no copy of a published file at {path}")
        file = catalog.known_assets()[name].files[number]
        assert digest_of(path, "sha256") == file.digest
        assert path.stat().st_size == file.size
