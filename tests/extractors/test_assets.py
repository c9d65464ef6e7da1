from __future__ import annotations

import hashlib
import http.server
import threading
from functools import partial

import pytest

from extractors import assets
from extractors.assets import Asset, AssetError, AssetFile

CONTENT = b"weights, as it were"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def address(tmp_path):
    """A web server on this machine that has the file and nothing else."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def asset_of(tmp_path, monkeypatch):
    """Declare one asset with the given sources, an empty user cache and no folder in the environment."""
    monkeypatch.setattr(assets, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv(assets.ENVIRONMENT_VARIABLE, raising=False)

    def declare(*sources: str, digest: str = DIGEST) -> None:
        file = AssetFile("weights.bin", digest, sources)
        monkeypatch.setattr(assets, "known_assets", lambda: {"net": Asset("net", "A network", "MIT", (file,))})

    return declare


def test_a_missing_asset_is_downloaded_once_and_then_found_in_the_cache(asset_of, address, tmp_path):
    asset_of(f"{address}/weights.bin")
    folder = assets.resolve("net")
    assert folder == tmp_path / "cache" / "net"
    assert (folder / "weights.bin").read_bytes() == CONTENT
    asset_of("http://127.0.0.1:9/nobody-listens")
    assert assets.resolve("net") == folder


def test_the_next_source_is_tried_where_one_has_nothing(asset_of, address):
    asset_of(f"{address}/absent.bin", f"{address}/weights.bin")
    assert (assets.resolve("net") / "weights.bin").read_bytes() == CONTENT


def test_bytes_with_another_digest_are_refused_with_both_digests_and_leave_nothing_behind(asset_of, address, tmp_path):
    wrong = "sha256:" + "0" * 64
    asset_of(f"{address}/weights.bin", digest=wrong)
    with pytest.raises(AssetError) as caught:
        assets.resolve("net")
    assert wrong in str(caught.value)
    assert DIGEST in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "net").iterdir()) == []


def test_the_folder_in_the_environment_comes_before_the_cache(asset_of, tmp_path, monkeypatch):
    asset_of()
    for parent in ("cache", "mine"):
        (tmp_path / parent / "net").mkdir(parents=True)
        (tmp_path / parent / "net" / "weights.bin").write_bytes(CONTENT)
    monkeypatch.setenv(assets.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    assert assets.resolve("net") == tmp_path / "mine" / "net"


def test_a_file_that_was_altered_on_this_machine_is_refused(asset_of, tmp_path):
    asset_of()
    (tmp_path / "cache" / "net").mkdir(parents=True)
    (tmp_path / "cache" / "net" / "weights.bin").write_bytes(CONTENT + b"!")
    with pytest.raises(AssetError, match="delete it to fetch it anew"):
        assets.resolve("net")


def test_an_explicit_folder_is_the_only_one_looked_at(asset_of, address, tmp_path):
    asset_of(f"{address}/weights.bin")
    with pytest.raises(AssetError, match="does not hold weights"):
        assets.resolve("net", folder=tmp_path)


def test_what_cannot_be_had_is_said_in_one_line_that_names_the_folder_to_use(asset_of):
    asset_of("http://127.0.0.1:9/nobody-listens")
    with pytest.raises(AssetError, match="TRAITLINE_ASSETS") as caught:
        assets.resolve("net")
    assert "\n" not in str(caught.value)


def test_git_blob_digest_is_the_one_that_git_gives(tmp_path):
    # `printf 'hello\n' | git hash-object --stdin`
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert assets.digest_of(path, "git-blob-sha1") == "git-blob-sha1:ce013625030ba8dba906f756967f9e9ca394464a"


def test_the_face_detector_comes_out_of_a_wheel_where_only_a_package_index_is_reached(face_model):
    assert hashlib.sha256(face_model.read_bytes()).hexdigest().startswith("bbff11cebd1eb27a")
