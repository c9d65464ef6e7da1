"""The second detector takes real faces for faces, and what the first one falls for it does not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import pytest
from clips import cut_clip

from extractors.errors import VideoError
from extractors.faces.detector import FaceDetector
from extractors.faces.second_opinion import BOX_PX, SAMPLES, FaceSamples, YuNet, sample_of
from extractors.faces.settings import FaceModels, FaceSettings
from extractors.faces.track import track_faces
from extractors.video.grid import KeptFrames, grid_frames
from extractors.video.settings import VideoSettings

# With these the short-range network takes the digits in the ellipse for a face on all frames, and the globe on most.
GULLIBLE = FaceSettings(model="short", candidate_score=0.2, sure_score=0.2, min_score=0.2)


@pytest.fixture(scope="module")
def gullible(face_models: FaceModels) -> Iterator[FaceDetector]:
    with FaceDetector(face_models, GULLIBLE) as detector:
        yield detector


@pytest.fixture(scope="module")
def check(face_models: FaceModels) -> YuNet:
    return YuNet(face_models.check)


@pytest.fixture(scope="module")
def portrait(detector: FaceDetector) -> tuple[np.ndarray, np.ndarray]:
    """A face in the middle of a picture, and what is detected of it."""
    data = pytest.importorskip("skimage.data")
    picture = data.astronaut()[:400, 20:420]
    return picture, detector.detect(picture)[0]


def turned(picture: np.ndarray, box: np.ndarray, angle: float) -> np.ndarray:
    middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
    return cv2.warpAffine(picture, cv2.getRotationMatrix2D(middle, angle, 1), picture.shape[1::-1])


@pytest.mark.parametrize("folder", ["fi_v2", "plain"])
def test_every_real_clip_is_confirmed_on_nearly_all_its_pictures(corpus, detector, check, folder):
    for path in sorted((corpus / folder).iterdir()):
        verdicts = []
        for picture in islice(grid_frames(path, 2.0, thresholds=None), 6):
            faces = detector.detect(picture)
            assert len(faces) >= 1, path.name
            verdicts.append(check.confirms(sample_of(picture, faces[0])))
        assert np.mean(verdicts) >= 0.8, path.name


def test_photographs_of_people_are_confirmed(corpus, detector, check):
    verdicts = []
    for path in sorted((corpus / "stills").rglob("*.jpg")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        verdicts.append(check.confirms(sample_of(picture, detector.detect(picture)[0])))
    assert len(verdicts) == 33
    assert all(verdicts)


@pytest.mark.parametrize("name", ["two_faces_720p", "twofaces_grid", "grey_single_face", "lowres64_single_face"])
def test_people_on_difficult_recordings_are_kept_by_a_margin(corpus, detector, name):
    quality = track_faces(corpus / "hard" / f"{name}.mp4", detector, VideoSettings(), FaceSettings()).quality
    assert quality.confirmed_share > 2 * FaceSettings().min_confirmed_share
    assert quality.people == (2 if "two" in name else 1)
    assert (quality.others_share > 0.95) == ("two" in name)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("digit_in_ellipse_false_face.mp4", GULLIBLE),
        ("no_face_earth.mp4", GULLIBLE.model_copy(update={"min_coverage": 0.05})),
        ("no_face_cartoon.mp4", GULLIBLE.model_copy(update={"min_coverage": 0.05})),
        ("no_face_rotated180_vfr.mp4", GULLIBLE.model_copy(update={"min_coverage": 0.05})),
    ],
)
def test_what_the_first_detector_falls_for_is_refused_by_the_second(corpus, gullible, tmp_path, name, settings):
    path = corpus / "hard" / name
    if name == "no_face_earth.mp4":
        path = cut_clip(path, tmp_path / name, 240)  # of 901 frames
    with pytest.raises(VideoError, match=r"\d% of") as caught:
        track_faces(path, gullible, VideoSettings(), settings)
    assert caught.value.reason == "false_face"
    if "digit" in name:
        trusting = settings.model_copy(update={"min_confirmed_share": 0.0})
        assert track_faces(path, gullible, VideoSettings(), trusting).coverage > 0.9


@pytest.mark.parametrize("name", ["no_face_earth", "no_face_cartoon", "no_face_rotated180_vfr"])
def test_what_the_first_detector_falls_for_is_not_confirmed(corpus, gullible, check, name):
    verdicts = [
        check.confirms(sample_of(picture, face))
        for picture in islice(grid_frames(corpus / "hard" / f"{name}.mp4", 5.0, thresholds=None), 40)
        for face in gullible.detect(picture)
    ]
    assert len(verdicts) >= 10
    assert np.mean(verdicts) < 0.1


@pytest.mark.parametrize("angle", [-25, -15, 0, 15, 25])
@pytest.mark.parametrize("light", [(1.0, 0), (0.2, 0), (0.3, 150)], ids=["plain", "dark", "pale"])
def test_tilted_dark_and_pale_faces_are_faces(portrait, detector, check, angle, light):
    picture, face = portrait
    shown = turned(picture, face, angle)
    (found,) = detector.detect(shown)
    assert check.confirms(sample_of((shown * light[0] + light[1]).astype(np.uint8), found))


@pytest.mark.parametrize("kind", ["flat", "noise", "disc", "plate"])
def test_what_is_no_face_is_not_confirmed(portrait, check, kind):
    picture, face = portrait
    x, y, width, height = face[:4].astype(int)
    middle, radius = (int(x + width // 2), int(y + height // 2)), int(width // 2)
    rng = np.random.default_rng(0)
    disc = cv2.circle(np.full_like(picture, 40), middle, radius, (220,) * 3, -1)
    plate = disc.copy()  # of a barbell: rings around a hole
    for share, shade in ((0.8, 60), (0.75, 200), (0.3, 90), (0.12, 20)):
        cv2.circle(plate, middle, int(share * radius), (shade,) * 3, -1)
    pictures = {
        "flat": np.full_like(picture, 120),
        "noise": cv2.GaussianBlur(rng.integers(0, 256, picture.shape, dtype=np.uint8), (0, 0), 3),
        "disc": disc,
        "plate": plate,
    }
    assert not check.confirms(sample_of(pictures[kind], face))


@pytest.mark.parametrize("frames", [1, 5, 16, 31, 32, 33, 1000, 100_000])
def test_samples_are_few_and_spread_over_the_frames_with_a_face(frames):
    """Each picture is as bright as its frame is late."""
    samples = FaceSamples(KeptFrames(0))
    face = np.array([[10, 10, 20, 20, 0.9, 15, 15, 25, 15]], np.float32)
    seen = np.arange(0, 3 * frames, 3)
    for frame in range(3 * frames):
        shade = np.full((40, 40, 3), 255 * frame // (3 * frames), np.uint8)
        samples.offer(frame, shade, face if frame % 3 == 0 else face[:0])
    scores = np.zeros(3 * frames, np.float32)
    scores[seen] = 0.9
    found = [int(sample[BOX_PX, BOX_PX, 0]) for sample in samples.of(np.tile(face[:, :4], (3 * frames, 1)), scores)]
    assert len(found) == min(frames, SAMPLES)
    assert len(samples._kept) < 2 * SAMPLES
    even = 255 * (np.arange(len(found)) + 0.5) / len(found)
    assert np.abs(np.array(found) - even).max() <= 255 / len(found) + 1


def test_samples_are_of_the_person_asked_for():
    samples = FaceSamples(KeptFrames(0))
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, :100], picture[:, 200:] = 50, 200
    faces = np.array([[x, 30, 40, 40, 0.9, x + 10, 40, x + 30, 40] for x in (230, 30)], np.float32)
    samples.offer(0, picture, faces)
    for face, shade in zip(faces, (200, 50), strict=True):
        (sample,) = samples.of(face[None, :4], np.array([0.9], np.float32))
        assert (sample[BOX_PX, BOX_PX] == shade).all()
    assert samples.of(faces[:1, :4], np.zeros(1, np.float32)) == []
    assert samples.of(np.array([[130, 30, 40, 40]], np.float32), np.ones(1, np.float32)) == []
