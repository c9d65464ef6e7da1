from __future__ import annotations

import json

import pytest

from extractors.assets import catalog
from extractors.assets.files import AssetError
from extractors.assets.own import find_own, own_assets, resolve_own, save_own


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder in the environment."""
    monkeypatch.setattr(catalog, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv(catalog.ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path / "cache"


def save(content: bytes):
    return save_own("faces", "random", {"clips": 3}, lambda path: path.write_bytes(content))


def test_each_result_is_a_new_version_with_a_digest_of_its_own(cache):
    first, second = save(b"one"), save(b"two")
    assert (first.name, second.name) == ("faces-1", "faces-2")
    assert first.digest != second.digest
    assert resolve_own("faces-1").read_bytes() == b"one"
    assert find_own("faces-2") == second
    assert own_assets() == [first, second]
    assert sorted(path.name for path in cache.iterdir()) == ["faces-1", "faces-2"]


def test_a_tampered_file_is_refused_with_both_digests(cache):
    own = save(b"one")
    (cache / "faces-1" / "resnet50.weights.h5").write_bytes(b"oNe")
    with pytest.raises(AssetError, match="has digest sha256:") as caught:
        resolve_own("faces-1")
    assert own.digest in str(caught.value)


def test_a_writer_that_fails_leaves_nothing(cache):
    def fail(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(AssetError, match="No space left on device"):
        save_own("faces", "random", {}, fail)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["faces-3", "../faces-1", "/etc-1", "faces", "faces-01", ""])
def test_a_name_that_there_is_not_is_answered_with_those_that_there_are(name):
    save(b"one")
    with pytest.raises(AssetError, match="there are: faces-1"):
        resolve_own(name)


@pytest.mark.parametrize("change", [{"digest": "md5:0"}, {"base": "other"}, {"name": "faces-2"}, {"more": 1}])
def test_a_description_that_is_none_is_refused(cache, change):
    save(b"one")
    path = cache / "faces-1" / "asset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AssetError, match="does not describe"):
        resolve_own("faces-1")
