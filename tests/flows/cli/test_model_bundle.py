"""A model travels from one store to another in one file, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from flows.archive.families import Families
from flows.archive.model_bundle import export_bundle, import_bundle, read_bundle
from flows.archive.models import ModelReference, check_features
from flows.session.errors import UserError
from fusion import ClipTokens, predict
from fusion.settings import TrainSettings, UncertaintySettings
from fusion.training.train import train
from fusion.uncertainty.intervals import Uncertainty
from storage import Family, FeatureStore, ModelSerializer, StoreError, VideoFeatures
from storage.maintenance.garbage import unused_families
from storage.models.serializer import FILES, METADATA_FILE, _digest
from storage.shards.family import key_before_manifest

FACES = {"faces": {"faces": {"revision": 1}}}
FAMILIES = {"static": Family("static", 6, FACES), "dynamic": Family("dynamic", 5, {"fps": 25})}


def clips_of(seed: int) -> list[ClipTokens]:
    rng = np.random.default_rng(seed)
    times = np.arange(4, dtype=np.float32)
    static, dynamic = (rng.normal(size=(6, 4, dim)).astype(np.float32) for dim in (6, 5))
    return [ClipTokens(f"{row}.mp4", static[row], times, dynamic[row], times) for row in range(6)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A store with one model, traits/1; tests must not change it."""
    store = tmp_path_factory.mktemp("there") / "store"
    labels = np.random.default_rng(1).random((6, 5)).astype(np.float32)
    trained = train(clips_of(0), labels, list("aabbcc"), TrainSettings(kind="specified", epochs=1))
    facts = {
        "static_key": FAMILIES["static"].key,
        "dynamic_key": FAMILIES["dynamic"].key,
        "weights": "random",
        "labels": "people.csv",
        "labels_sha256": "1" * 64,
        "neuroticism_inverted": False,
        "uncertainty": Uncertainty(settings=UncertaintySettings(), calibration=None).model_dump(mode="json"),
        "clip_marks": "0123456789abcdef",
    }
    ModelSerializer(store).save(trained.model, "traits", {**trained.metadata, **facts}, trained.history)
    return store


@pytest.fixture(scope="module")
def bundle(root, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "traits-1.tar"
    export_bundle(root, ModelReference("traits", "1"), file)
    return file


def members_of(bundle: Path) -> dict[str, bytes]:
    with tarfile.open(bundle) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.name != "SHA256SUMS"}


def packed(path: Path, contents: dict[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A bundle made by hand, with right sums."""
    members = [plain(name, data) for name, data in contents.items()] + list(more)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {member.name}\n" for member, data in members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in (plain("SHA256SUMS", sums.encode()), *members):
            tar.addfile(member, io.BytesIO(data))
    return path


def plain(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, link
    return member, data


def assert_refused(bundle: Path, folder: Path, message: str) -> None:
    """Refused in one line, with nothing written anywhere."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        import_bundle(read_bundle(bundle), folder / "area" / "store", "traits")
    assert "nothing of it was imported" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def test_an_imported_model_has_the_same_bytes_but_for_single_clips_and_scores_alike(root, traitline, tmp_path):
    file, here = tmp_path / "traits-1.tar", tmp_path / "here"
    done = traitline("models", "export", "traits/1", "--format", "bundle", "--out", file, "--store", root)
    assert done.returncode == 0, done.stderr
    done = traitline("models", "import", file, "--store", here)
    assert done.returncode == 0, done.stderr
    assert "Imported traits/1 from" in done.stderr
    there, back = ModelSerializer(root), ModelSerializer(here)
    sent, received = there.files("traits", "1"), back.files("traits", "1")
    facts = json.loads(sent.pop(METADATA_FILE))
    own = json.loads(received.pop(METADATA_FILE))
    assert received == sent
    assert facts.pop("clip_marks")  # people may have consented to the other lab only
    assert {**facts, "digest": ""} == {**own, "digest": ""}
    back.verify("traits", "1")
    scores = [predict(serializer.load("traits", "1")[0], clips_of(2)) for serializer in (there, back)]
    np.testing.assert_array_equal(*scores)
    shown = traitline("models", "show", "traits/1", "--store", here)
    assert FAMILIES["static"].key in shown.stdout


def test_an_import_takes_the_next_free_version_or_another_name(bundle, tmp_path):
    store, contents = tmp_path / "store", read_bundle(bundle)
    assert contents.model == ModelReference("traits", "1")
    for version in ("1", "2"):
        assert import_bundle(contents, store, "traits") == ModelReference("traits", version)
    assert import_bundle(contents, store, "other-lab") == ModelReference("other-lab", "1")
    assert ModelSerializer(store).names() == ["other-lab", "traits"]


@pytest.mark.parametrize("age", ["of today", "of before the manifest"])
def test_one_line_says_whether_the_features_of_the_store_fit(root, bundle, traitline, tmp_path, age):
    keys = [family.key for family in FAMILIES.values()]
    if age == "of before the manifest":
        keys = [key_before_manifest(family) for family in FAMILIES.values()]
        files = ModelSerializer(root).files("traits", "1")
        facts = {**json.loads(files[METADATA_FILE]), **dict(zip(("static_key", "dynamic_key"), keys, strict=True))}
        old = {**files, METADATA_FILE: json.dumps({**facts, "digest": _digest(facts)}).encode()}
        bundle = packed(
            tmp_path / "old.tar", {f"traits/1/{name}": data for name, data in (("README.md", b""), *old.items())}
        )
    store = FeatureStore(tmp_path / "store")
    rng = np.random.default_rng(0)
    for features, fits in (({**FACES, "weights": "other"}, False), (FACES, True)):
        for family in (Family("static", 6, features), FAMILIES["dynamic"]):
            vectors = rng.normal(size=(2, family.dim)).astype(np.float32)
            store.write(family, [VideoFeatures("a.mp4", "0" * 64, vectors, np.arange(2.0), np.arange(2.0) + 1, {})])
        done = traitline("models", "import", bundle, "--store", tmp_path / "store")
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if "the model needs features of" in line]
        assert len(lines) == (not fits)
        assert all(keys[0] in line and "traitline extract" in line for line in lines)
    assert unused_families(tmp_path / "store", idle_s=0) == [Family("static", 6, {**FACES, "weights": "other"})]
    networks = {kind: {"name": kind} for kind in FAMILIES}
    families = Families(Family("faces", 5, {}), FAMILIES["static"], FAMILIES["dynamic"])
    check_features(
        ModelReference("traits", "1"), ModelSerializer(tmp_path / "store").metadata("traits", "1"), families, networks
    )


def test_the_same_model_gives_the_same_bytes_that_common_tools_can_check(root, bundle, tmp_path):
    export_bundle(root, ModelReference("traits", "1"), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == bundle.read_bytes()
    subprocess.run(["tar", "xf", bundle], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert {path.name for path in (tmp_path / "traits" / "1").iterdir()} == {*FILES, "README.md"}
    assert FAMILIES["static"].key in (tmp_path / "traits" / "1" / "README.md").read_text()


def test_a_damaged_model_is_not_exported(root, tmp_path):
    store = tmp_path / "store"
    ModelSerializer(store).add("traits", ModelSerializer(root).files("traits", "1"))
    file = store / "models" / "traits" / "1" / "history.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(StoreError, match=r"history\.json is damaged"):
        export_bundle(store, ModelReference("traits", "1"), tmp_path / "bundle.tar")
    assert not (tmp_path / "bundle.tar").exists()


def test_the_bundle_made_by_hand_is_accepted_so_that_its_changes_are_what_is_refused(bundle, tmp_path):
    import_bundle(read_bundle(packed(tmp_path / "same.tar", members_of(bundle))), tmp_path / "store", "traits")


@pytest.mark.parametrize(
    "name",
    [
        "../../evil",
        "/tmp/evil",
        "traits/1/../../../evil",
        "../traits/1/model.keras",
        ".hidden/1/model.keras",
        "traits//model.keras",
        "traits/-1/model.keras",
        "traits/1/evil.py",
        "traits/1/model.keras/evil",
        "traits/²/model.keras",
        "traits/0/model.keras",
        "traits/01/model.keras",
    ],
)
def test_names_that_lead_elsewhere_are_refused(bundle, tmp_path, name):
    assert_refused(packed(tmp_path / "bad.tar", members_of(bundle), plain(name, b"evil")), tmp_path, "does not belong")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(bundle, tmp_path, kind):
    contents = members_of(bundle)
    del contents["traits/1/model.keras"]
    bad = packed(tmp_path / "bad.tar", contents, plain("traits/1/model.keras", b"", kind, "/etc/passwd"))
    assert_refused(bad, tmp_path, "is not a regular file")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_repacked_bundle_with_extended_headers_is_refused_by_what_happened_to_it(bundle, tmp_path, form):
    with tarfile.open(tmp_path / "bad.tar", "w", format=form) as tar:
        for name, data in members_of(bundle).items():
            member, _ = plain(name.replace("traits", "ä" + "t" * 120), data)
            tar.addfile(member, io.BytesIO(data))
    assert_refused(tmp_path / "bad.tar", tmp_path, "it has extended tar headers: .* do not repack it")


def test_two_models_or_a_part_of_one_are_refused(bundle, tmp_path):
    contents = members_of(bundle)
    other = {name.replace("traits/1", "traits/2"): data for name, data in contents.items()}
    part = {name: data for name, data in contents.items() if not name.endswith("history.json")}
    for members in ({**contents, **other}, part, {}):
        assert_refused(packed(tmp_path / "bad.tar", members), tmp_path, "one model")


@pytest.mark.parametrize("file", ["model.keras", "metadata.json", "README.md", "SHA256SUMS"])
def test_a_member_that_claims_too_much_is_refused_unread(tmp_path, file):
    header = tarfile.TarInfo(file if file == "SHA256SUMS" else f"traits/1/{file}")
    header.size = 1 << 40
    first = b"" if file == "SHA256SUMS" else tarfile.TarInfo("SHA256SUMS").tobuf(tarfile.USTAR_FORMAT)
    with (tmp_path / "bad.tar").open("wb") as stream:
        stream.write(first + header.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(1 << 41)  # a hole
    assert_refused(tmp_path / "bad.tar", tmp_path, "bytes, more than")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b" + bytes(2000), b"PK\3\4" + bytes(2000)])
def test_what_is_no_bundle_is_refused(tmp_path, content):
    (tmp_path / "bad.tar").write_bytes(content)
    assert_refused(tmp_path / "bad.tar", tmp_path, "is not a bundle|not hold one model|occur once")


@pytest.mark.parametrize("file", [*FILES, "README.md"])
def test_a_flipped_bit_or_a_cut_is_noticed(bundle, tmp_path, file):
    whole = bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        member = tar.getmember(f"traits/1/{file}")
    flipped = bytearray(whole)
    flipped[member.offset_data + member.size // 2] ^= 1
    (tmp_path / "bad.tar").write_bytes(flipped)
    assert_refused(tmp_path / "bad.tar", tmp_path, "is damaged: its SHA-256")
    (tmp_path / "bad.tar").write_bytes(whole[: member.offset_data + member.size // 2])
    assert_refused(tmp_path / "bad.tar", tmp_path, "it ends within|incomplete|is not a bundle|one model")


def sealed(facts: dict) -> bytes:
    """metadata.json with a right digest: whoever can change a bundle can change its digests."""
    rest = {name: value for name, value in facts.items() if name != "digest"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**rest, "digest": digest}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("static_key"), "lacks static_key"),
        (lambda facts: facts.update(weights=["random"]), "lacks weights"),
        (lambda facts: facts.update(files={"model.keras": "0" * 64}), "not the file that was saved"),
        (lambda facts: facts.update(files=[]), "damaged"),
        (lambda facts: facts.update(uncertainty={"settings": 1}), "calibration"),
        (lambda facts: facts.update(unseen={"people": "many"}), "does not describe a model"),
        (lambda facts: facts.update(unseen=[1]), "does not describe a model"),
        (lambda facts: facts.update(train_clips="many"), "does not describe a model"),
        (lambda facts: facts.update(validation_loss="low"), "does not describe a model"),
        (lambda facts: facts.update(warnings=7), "does not describe a model"),
        (lambda facts: facts.update(networks={"static": {}}), "does not describe a model"),
    ],
)
def test_metadata_that_commands_could_not_use_are_refused_even_with_right_digests(bundle, tmp_path, change, message):
    contents = members_of(bundle)
    facts = json.loads(contents["traits/1/metadata.json"])
    change(facts)
    bad = packed(tmp_path / "bad.tar", {**contents, "traits/1/metadata.json": sealed(facts)})
    assert_refused(bad, tmp_path, message)


@pytest.mark.parametrize("data", [b"[1, 2]", b"{", b"\xff", b"[" * 100_000], ids=["list", "cut", "no text", "deep"])
@pytest.mark.parametrize("file", ["metadata.json", "history.json"])
def test_files_that_are_no_json_object_are_refused(bundle, tmp_path, file, data):
    contents = members_of(bundle)
    contents[f"traits/1/{file}"] = data
    if file == "history.json":
        facts = json.loads(contents["traits/1/metadata.json"])
        facts["files"][file] = hashlib.sha256(data).hexdigest()
        contents["traits/1/metadata.json"] = sealed(facts)
    assert_refused(packed(tmp_path / "bad.tar", contents), tmp_path, file)


def test_a_model_that_only_keras_would_load_is_refused(bundle, tmp_path):
    """The loader's own 58 attacks: storage/models/test_hostile_models.py; here, that imports go through it."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda value: value * 2)])
    model.save(tmp_path / "lambda.keras")
    contents = members_of(bundle)
    contents["traits/1/model.keras"] = (tmp_path / "lambda.keras").read_bytes()
    facts = json.loads(contents["traits/1/metadata.json"])
    facts["files"]["model.keras"] = hashlib.sha256(contents["traits/1/model.keras"]).hexdigest()
    contents["traits/1/metadata.json"] = sealed(facts)
    assert_refused(packed(tmp_path / "bad.tar", contents), tmp_path, "cannot load model.keras")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "missing.tar"), ("missing.tar",)),
        (("import", "."), ("cannot read the bundle",)),
        (("import", "FILE", "--name", "../evil"), ("--name", "../evil")),
        (("export", "traits/1", "--format", "bundle", "--out", "."), ("--out",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistakes_are_one_line(bundle, root, traitline, tmp_path, arguments, words):
    given = [bundle if word == "FILE" else word for word in arguments]
    done = traitline("models", *given, "--store", root if "export" in given else tmp_path / "store", folder=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "store").exists()
