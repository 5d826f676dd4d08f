"""The speaking face: found, followed and chosen; its features, crops and quality."""

import csv
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from redifu.media import face_features, face_tracking
from redifu.media.decoding import Span
from redifu.media.face_features import (
    ACTION_UNITS,
    FACE_DESCRIPTOR_SIZE,
    face_crops,
    face_descriptor,
    read_action_units,
    visual_quality,
)
from redifu.media.face_tracking import FaceFinder, choose_speaking_face, same_shots
from redifu.media.quality import QUALITY
from redifu.media.reading import read_face_descriptors

cv2 = pytest.importorskip("cv2", reason="reading faces needs the extra `media`")

SIZE = (240, 320)


class DiscFinder(FaceFinder):
    """Takes each red disc for a face, in whole frames and in parts of them."""

    def find(self, frame: np.ndarray) -> np.ndarray:
        red = (frame[..., 0].astype(int) - frame[..., 1] > 60).astype(np.uint8)
        _, _, statistics, _ = cv2.connectedComponentsWithStats(red)
        return np.array([row[:4] for row in statistics[1:] if row[4] > 80], dtype=float).reshape(-1, 4)


def frame_with(*discs: tuple[float, float, float, float], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A textured frame with discs of centre x, centre y, radius and opening of the mouth, 0 to 1."""
    shade = np.random.default_rng(0).integers(60, 120, (size[0] // 8 + 1, size[1] // 8 + 1), dtype=np.uint8)
    frame = cv2.resize(np.repeat(shade[..., None], 3, axis=-1), size[::-1])
    for x, y, radius, opening in discs:
        at = (round(x), round(y))
        cv2.circle(frame, at, round(radius), (220, 90, 90), -1)
        for side in (-1, 1):
            cv2.circle(
                frame, (round(x + side * 0.4 * radius), round(y - 0.3 * radius)), round(radius / 8), 0, -1
            )
        mouth = (round(0.4 * radius), max(1, round(0.3 * radius * opening)))
        cv2.ellipse(frame, (at[0], round(y + 0.55 * radius)), mouth, 0, 0, 360, (150, 60, 60), -1)
    return frame


def chosen(frames: Sequence[np.ndarray], finder: FaceFinder | None = None) -> list[np.ndarray | None]:
    return choose_speaking_face(finder or DiscFinder(), frames, np.arange(len(frames)) / 5)


def middles(boxes: Sequence[np.ndarray | None]) -> np.ndarray:
    """Centres (frames, 2), all of which have to be there."""
    return np.stack([box[:2] + box[2:] / 2 for box in boxes if box is not None]).reshape(len(boxes), 2)


def talking(frames: int = 12, *, moves: float = 0.0) -> list[np.ndarray]:
    return [frame_with((160 + moves * n, 120, 50, 0.1 + 0.8 * (n % 2))) for n in range(frames)]


@pytest.mark.parametrize("speaker", [0, 1])
def test_of_two_faces_the_one_with_the_moving_mouth_speaks(speaker: int) -> None:
    frames = [
        frame_with(
            *((x, 120, 45, 0.1 + 0.8 * (n % 2) * (number == speaker)) for number, x in enumerate((80, 240)))
        )
        for n in range(12)
    ]
    assert np.abs(middles(chosen(frames)) - ((80, 240)[speaker], 120)).max() < 8


def test_of_two_silent_faces_the_larger_is_chosen() -> None:
    frames = [frame_with((70, 120, 25, 0.3), (220, 120, 60, 0.3)) for _ in range(8)]
    assert np.abs(middles(chosen(frames)) - (220, 120)).max() < 8


def test_a_moving_face_is_followed() -> None:
    assert np.abs(middles(chosen(talking(moves=8)))[:, 0] - (160 + 8 * np.arange(12))).max() < 8


def test_a_face_that_leaves_and_comes_back() -> None:
    frames = talking(16)
    frames[5:11] = [frame_with()] * 6
    assert [box is not None for box in chosen(frames)] == [True] * 5 + [False] * 6 + [True] * 5


def test_a_face_that_is_lost_for_a_moment_stays() -> None:
    frames = [frame_with((160 + 4 * n, 120, 25, 0.3)) for n in range(8)]
    frames[4][frames[4][..., 0] > 200] = (140, 110, 110)  # paler than the finder sees
    assert np.abs(middles(chosen(frames))[:, 0] - (160 + 4 * np.arange(8))).max() < 4


def test_nobody_is_followed_across_a_cut() -> None:
    away = 255 - frame_with()
    frames = [*talking(4), away, *talking(4)]
    assert [box is not None for box in chosen(frames)] == [True] * 4 + [False] + [True] * 4


def test_a_face_that_appears_between_two_searches_is_followed_back() -> None:
    late = [frame_with((80, 120, 25, 0.3), *[(230, 120, 60, 0.8 * (n % 2))] * (n >= 2)) for n in range(12)]
    boxes = chosen(late)
    assert np.abs(middles(boxes[2:]) - (230, 120)).max() < 8
    assert boxes[0] is None


def test_a_glimpse_among_many_frames_is_no_face() -> None:
    frames = [frame_with()] * 9
    assert chosen(frames) == [None] * 9
    frames[4] = talking(1)[0]
    assert chosen(frames) == [None] * 9


def test_one_frame_is_enough() -> None:
    assert np.abs(middles(chosen(talking(1))) - (160, 120)).max() < 4
    assert chosen([frame_with()]) == [None]
    assert chosen([]) == []


def test_a_time_for_each_frame_is_asked_for() -> None:
    with pytest.raises(ValueError, match="3 frames, got 2"):
        choose_speaking_face(DiscFinder(), talking(3), [0.0, 0.2])


def parts(descriptor: np.ndarray) -> dict[str, np.ndarray]:
    """Appearance, motion of the 36 regions, motion of the head, and how these vary over time."""
    names = ("appearance", "motion", "head", "appearance_varies", "motion_varies", "head_varies")
    return dict(zip(names, np.split(descriptor, np.cumsum([324, 36, 4, 324, 36])), strict=True))


def test_the_descriptor_sees_the_mouth_move() -> None:
    frames = talking(10)
    boxes = chosen(frames)
    speaking = parts(face_descriptor(frames, boxes))
    frozen = parts(face_descriptor(frames[:1] * 10, boxes[:1] * 10))
    motion = speaking["motion"].reshape(6, 6)
    assert motion[4:, 1:5].mean() > 3 * motion[:2].mean()
    assert speaking["appearance_varies"].max() > 0
    for name in ("motion", "head", "motion_varies", "head_varies"):
        assert np.abs(frozen[name]).max() < 1e-6 < speaking[name].max()
    assert np.abs(frozen["appearance_varies"]).max() < 1e-5


def test_the_descriptor_tells_the_head_from_the_face() -> None:
    frames = [frame_with((100 + 5 * n, 120, 50, 0.3)) for n in range(10)]
    described = parts(face_descriptor(frames, chosen(frames)))
    right, *others = described["head"]
    assert right == pytest.approx(5 / 101, rel=0.2)
    assert max(others) < right / 4
    assert described["motion"].reshape(6, 6)[1:5, 1:5].mean() < right / 4


def test_the_descriptor_of_one_face_has_no_motion() -> None:
    frames = talking(3)
    described = face_descriptor(frames, [None, *chosen(frames)[1:2], None])
    assert described.shape == (FACE_DESCRIPTOR_SIZE,) and described.dtype == np.float32
    assert not any(
        parts(described)[name].any() for name in ("motion", "head", "motion_varies", "head_varies")
    )


def test_brightness_and_contrast_leave_the_appearance_as_it_is() -> None:
    frames = talking(2)
    boxes = chosen(frames)
    dim = [(frame * 0.6 + 20).astype(np.uint8) for frame in frames]
    bright, dark = (face_descriptor(each, boxes)[:324] for each in (frames, dim))
    assert np.abs(bright - dark).max() < 0.15 < np.abs(bright).max()


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (33, 17, 3), (241, 319, 3)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (-10, -10, 30, 40), (2, 1, 500, 400), (900, 900, 20, 20)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_frames_of_any_size_and_boxes_beyond_them(
    shape: tuple[int, ...], box: tuple[int, ...], value: int
) -> None:
    frames = [np.full(shape, value, dtype=np.uint8)] * 2
    boxes = [np.array(box, dtype=float)] * 2
    assert np.isfinite(face_descriptor(frames, boxes)).all()
    crops = face_crops(frames, boxes, count=3, size=16)
    assert crops.shape == (3, 16, 16, 3) and crops.dtype == np.uint8 and (crops == value).all()
    quality = visual_quality(frames, boxes)
    assert quality["sharpness"] == 0 and quality["brightness"] == pytest.approx(value / 255)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 300, 3), (120, 160, 3)])
def test_the_cascades_find_nothing_where_nothing_is(shape: tuple[int, ...]) -> None:
    frames = [np.zeros(shape, dtype=np.uint8)] * 3
    assert chosen(frames, FaceFinder()) == [None] * 3
    assert FaceFinder().find(frames[0]).shape == (0, 4)


def test_crops_are_spread_over_the_frames_with_a_face() -> None:
    frames = [np.full((40, 40, 3), 10 * n, dtype=np.uint8) for n in range(10)]
    boxes = [None if n in (0, 9) else np.array([10.0, 10.0, 20.0, 20.0]) for n in range(10)]
    assert (face_crops(frames, boxes, count=4, size=8)[:, 0, 0, 0] / 10).tolist() == [2, 4, 6, 8]
    assert (face_crops(frames, boxes, count=8, size=8)[:, 0, 0, 0] / 10).tolist() == list(range(1, 9))
    assert len(np.unique(face_crops(frames, boxes, count=20, size=8))) == 8


def test_a_crop_is_a_square_about_the_face() -> None:
    frame = np.zeros((100, 200, 3), dtype=np.uint8)
    frame[40:60, 90:110] = (255, 128, 0)
    (crop,) = face_crops([frame], [np.array([90.0, 40.0, 20.0, 20.0])], count=1, size=20)
    assert (crop == (255, 128, 0)).all()
    (tall,) = face_crops([frame], [np.array([95.0, 40.0, 10.0, 20.0])], count=1, size=20)
    assert (tall == crop).all()


def test_features_of_no_face_are_refused() -> None:
    frames = [frame_with()] * 2
    for call in (face_descriptor, lambda *given: face_crops(*given, count=1, size=8)):
        with pytest.raises(ValueError, match="at least one of 2 frames"):
            call(frames, [None, None])


def test_quality_is_that_of_the_face() -> None:
    frames = talking(4)
    boxes = [*chosen(frames)[:3], None]
    quality = visual_quality(frames, boxes)
    assert tuple(quality) == QUALITY["visual"]
    assert quality["face_share"] == 0.75
    assert quality["face_size"] == pytest.approx(101 / 240, rel=0.05)
    blurred = visual_quality([cv2.GaussianBlur(frame, (0, 0), 4) for frame in frames], boxes)
    assert blurred["sharpness"] < quality["sharpness"] - 0.5
    darker = visual_quality([frame // 2 for frame in frames], boxes)
    assert darker["brightness"] == pytest.approx(quality["brightness"] / 2, rel=0.05)


def test_quality_without_a_face_is_that_of_the_frame() -> None:
    quality = visual_quality([frame_with()] * 2, [None, None])
    assert quality["face_share"] == quality["face_size"] == 0
    assert quality["brightness"] == pytest.approx(frame_with().mean() / 255, abs=0.01)
    assert quality["sharpness"] > 1


def test_a_finder_is_pickled_without_its_detectors() -> None:
    finder = FaceFinder()
    finder.find(np.zeros((50, 50, 3), dtype=np.uint8))
    again = pickle.loads(pickle.dumps(finder))
    assert again.find(np.zeros((50, 50, 3), dtype=np.uint8)).shape == (0, 4)
    assert pickle.loads(pickle.dumps(FaceFinder("yunet.onnx"))).weights == "yunet.onnx"


def test_weights_that_are_no_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "not.onnx").write_text("not a network")
    for path in (tmp_path / "not.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(ValueError, match=f"YuNet.*{path.name}"):
            FaceFinder(str(path)).find(np.zeros((50, 50, 3), dtype=np.uint8))


def test_a_network_searches_the_shrunk_frame_in_its_own_order_of_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Network:
        def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
            self.size = size

        def detect(self, picture: np.ndarray) -> tuple[int, np.ndarray | None]:
            assert picture.shape[1::-1] == self.size
            if picture[0, 0].tolist() == [0, 0, 255]:  # red, in OpenCV's order
                width, height = self.size
                return 1, np.array([[0, 0, width / 2, height / 4] + [0.0] * 11], dtype=np.float32)
            return 1, None

    network = Network()
    monkeypatch.setattr(cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *arguments: network))
    finder = FaceFinder("yunet.onnx")
    red = np.zeros((1080, 1920, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert finder.find(red) == pytest.approx(np.array([[0, 0, 960, 270]]), rel=0.01)
    assert network.size[0] < 1920
    assert finder.find(np.zeros_like(red)).shape == (0, 4)


def test_opencv_is_imported_at_use_and_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hasattr(face_tracking, "cv2") and not hasattr(face_features, "cv2")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"redifu\[media\]"):
        FaceFinder().find(np.zeros((50, 50, 3), dtype=np.uint8))
    with pytest.raises(ImportError, match=r"redifu\[media\]"):
        visual_quality([np.zeros((50, 50, 3), dtype=np.uint8)], [None])


def openface_file(path: Path, rows: Sequence[Sequence[object]], *, left_out: str = "") -> Path:
    """Write OpenFace's CSV: rows of success and one value for all action units, or text in their place."""
    names = [name for name in ("frame", "confidence", "success", *reversed(ACTION_UNITS)) if name != left_out]
    lines = [", ".join(names)]
    for success, value in rows:
        values = {"frame": 1, "confidence": 0.9, "success": success}
        lines.append(", ".join(str(values.get(name, value)) for name in names))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_action_units_are_averaged_over_successful_frames(tmp_path: Path) -> None:
    path = openface_file(tmp_path / "clip.csv", [(1, 1.0), (0, 5.0), (1, 2.0), (0, 5.0)])
    averages, share = read_action_units(path)
    assert averages.tolist() == [1.5] * 35 and averages.dtype == np.float32
    assert share == 0.5
    lost, share = read_action_units(openface_file(tmp_path / "lost.csv", [(0, 5.0)]))
    assert lost.tolist() == [0.0] * 35 and share == 0


def test_action_units_are_read_by_name(tmp_path: Path) -> None:
    path = openface_file(tmp_path / "clip.csv", [])
    with path.open("a") as file:
        file.write("1, 0.9, 1, " + ", ".join(str(n) for n in reversed(range(35))) + "\n")
    assert read_action_units(path)[0].tolist() == list(range(35))


@pytest.mark.parametrize(
    ("faces", "value", "share"),
    [
        # (frame, face_id, success, value): the face of most frames, whoever else there is.
        ([(1, 0, 1, 1.0), (1, 1, 1, 5.0), (2, 0, 1, 3.0), (2, 1, 0, 5.0), (3, 0, 1, 2.0)], 2.0, 1.0),
        ([(1, 0, 1, 1.0), (1, 1, 1, 5.0), (2, 1, 1, 3.0), (3, 0, 0, 9.0)], 4.0, 2 / 3),
        # Of faces in equally many frames, the lowest number.
        ([(1, 3, 1, 1.0), (1, 2, 1, 5.0)], 5.0, 1.0),
    ],
)
def test_of_several_faces_one_is_read(
    tmp_path: Path, faces: list[tuple[object, ...]], value: float, share: float
) -> None:
    path = tmp_path / "clip.csv"
    lines = [",".join(("frame", "face_id", "timestamp", "success", *ACTION_UNITS))]
    lines += [
        ",".join(map(str, (frame, face, frame - 1, done, *[units] * 35)))
        for frame, face, done, units in faces
    ]
    path.write_text("\n".join(lines) + "\n")
    averages, found = read_action_units(path)
    assert averages.tolist() == [value] * 35
    assert found == pytest.approx(share)


def test_the_face_is_that_of_the_whole_recording(tmp_path: Path) -> None:
    path = tmp_path / "clip.csv"
    lines = [",".join(("frame", "face_id", "timestamp", "success", *ACTION_UNITS))]
    lines += [",".join(map(str, (n, int(n == 2), n - 1, 1, *[float(n)] * 35))) for n in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    assert read_action_units(path, start=0.0, end=1.0)[0].tolist() == [1.0] * 35
    averages, share = read_action_units(path, start=1.0, end=2.0)
    assert averages.tolist() == [0.0] * 35 and share == 0, "somebody else is in the picture"


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.6), (2.9, 5.1), (0.0, None)])
def test_two_faces_of_a_case_are_read_as_the_one(test_data: Path, start: float, end: float | None) -> None:
    faces = test_data / "cases" / "faces"
    talk, one = (read_action_units(faces / name, start=start, end=end) for name in ("talk.csv", "one.csv"))
    assert talk[0].tolist() == one[0].tolist() and talk[1] == one[1]
    if end == 2.6:
        units = dict(zip(ACTION_UNITS, talk[0].tolist(), strict=True))
        assert units["AU12_r"] == 0 and units["AU25_r"] == pytest.approx(0.80, abs=0.01)


def test_what_is_no_output_of_openface_is_refused(tmp_path: Path) -> None:
    wrong = {
        "missing OpenFace columns: AU28_c": openface_file(tmp_path / "a.csv", [(1, 1.0)], left_out="AU28_c"),
        "expected at least one frame from 0 s onward": openface_file(tmp_path / "b.csv", []),
        "line 3.*a number": openface_file(tmp_path / "c.csv", [(1, 1.0), (1, "high")]),
        "line 2.*finite": openface_file(tmp_path / "d.csv", [(1, "nan")]),
        "success": tmp_path / "e.csv",
    }
    (tmp_path / "e.csv").write_bytes(b"\xff\x00\xd8")
    for message, path in wrong.items():
        with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
            read_action_units(path)


def test_the_order_of_action_units_is_that_of_the_shared_averages(test_data: Path) -> None:
    with (test_data / "data" / "ravdess" / "action_units.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))[1:]) == ACTION_UNITS


def sampled(path: Path, *, rate: float = 5.0) -> tuple[list[np.ndarray], list[float]]:
    """Frames of a video and their seconds, `rate` a second."""
    av = pytest.importorskip("av", reason="decoding video needs the extra `media`")
    frames, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= len(times) / rate - 1e-6:
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
    return frames, times


def test_a_talking_face_is_found_in_nearly_every_frame(test_data: Path) -> None:
    frames, times = sampled(test_data / "fixtures" / "talking_face.mp4")
    boxes = choose_speaking_face(FaceFinder(), frames[:40], times[:40])
    assert sum(box is not None for box in boxes) >= 38
    assert np.abs(middles([box for box in boxes if box is not None]) - (280, 260)).max() < 80
    described = parts(face_descriptor(frames[:40], boxes))
    assert described["motion"].max() > 0.01
    assert visual_quality(frames[:40], boxes)["face_size"] > 0.4


def test_a_face_that_comes_and_goes(test_data: Path) -> None:
    frames, times = sampled(test_data / "fixtures" / "face_comes_and_goes.mov")
    seen = [box is not None for box in choose_speaking_face(FaceFinder(), frames, times)]
    assert seen == [True] * 12 + [False] * (len(frames) - 12)


def test_a_video_without_faces(test_data: Path) -> None:
    frames, times = sampled(test_data / "fixtures" / "no_face.mp4")
    assert choose_speaking_face(FaceFinder(), frames, times) == [None] * len(frames)


def test_a_face_is_measured_relative_to_its_own_frame() -> None:
    small = np.zeros((120, 120, 3), np.uint8)
    large = np.zeros((240, 240, 3), np.uint8)
    boxes = [np.array([30, 30, 60, 60.0]), None, np.array([60, 60, 120, 120.0])]
    assert visual_quality([small, small, large], boxes)["face_size"] == pytest.approx(0.5)
    assert same_shots([small, small, large, large]) == [True, False, True]


def test_a_video_that_changes_its_size_has_no_jump(test_data: Path) -> None:
    path = str(test_data / "cases" / "resolution" / "up.webm")  # which changes at 6.6 s
    spans = [Span(start=2.9, end=5.1), Span(start=5.3, end=8.0), Span(start=8.4, end=11.9)]
    found = dict(read_face_descriptors(path, spans))
    for number in range(3):
        assert found[number].quality["face_share"] == 1.0
        assert found[number].quality["face_size"] == pytest.approx(0.63, abs=0.03)
