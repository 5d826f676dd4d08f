"""Find and track the faces in an utterance's frames, and choose the speaking one.

A frame is (height, width, 3) uint8 RGB; a change of size counts as a cut. A box is (4,): x, y,
width and height in pixels. A step is the time between two sampled frames, about 0.2 seconds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from redifu.optional_packages import optional_package

Track: TypeAlias = dict[int, np.ndarray]  # the boxes of one face by frame index

SEARCHED_PIXELS = 180_000  # frames are shrunk to this area before the search
SMALLEST_FACE = 20  # pixels in the shrunk frame; the cascades were trained on windows of 20 and 24 pixels
CONFIRMED_SIZE = 44  # faces are scaled to this many pixels for the second cascade
# A tracked face is scaled to these sizes in pixels. The cascades search in discrete scale steps; the second
# size finds faces that the first, faster one misses between steps.
FOLLOWED_SIZES = (44, 60)
SECONDS_BETWEEN_SEARCHES = 1.0  # between searches of the whole frame while a face is tracked
SECONDS_OUT_OF_SIGHT = 0.65  # after which a face counts as lost
MOST_FACES = 5  # tracked at the same time, largest first
SAME_FACE = 0.3  # minimum intersection over union of two boxes of the same face
# A frame starts a new shot if its squared difference from the previous frame exceeds this share of the sum
# of their variances.
ANOTHER_SHOT = 0.5
NOISE = 25.0  # squared grey levels, variance that even black frames may have

PICTURE_SIZE = 96  # side in pixels of the square face picture used to measure motion
STILL_MOUTH = 0.005  # motion of a silent mouth in face widths per step; among silent faces, size decides
ALSO_SPEAKING = 0.5  # minimum share of the best face's rate for a face at other times to be used


def opencv() -> Any:
    """Import cv2, which is optional.

    Raises:
        ImportError: OpenCV is not installed.
    """
    return optional_package("cv2", extra="media")


class FaceFinder:
    """Finds faces with OpenCV's bundled cascades or a YuNet network.

    The cascades detect faces that look towards the camera. A second cascade, trained differently, must
    confirm each detection, because each alone mistakes some textures for faces.
    """

    def __init__(self, weights: str | None = None):
        """Choose the detector, which is built on first use.

        Args:
            weights: a YuNet ONNX file; None for the cascades.
        """
        self.weights = weights
        self._detectors: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the detectors, which cannot be pickled."""
        return self.__dict__ | {"_detectors": []}

    def find(self, frame: np.ndarray) -> np.ndarray:
        """Find the faces in a frame or part of one; return (faces, 4) float boxes.

        Raises:
            ImportError: OpenCV is not installed.
            ValueError: the weights are not a YuNet file.
        """
        self._detectors = self._detectors or self._build()
        scale = min(1.0, (SEARCHED_PIXELS / (frame.shape[0] * frame.shape[1])) ** 0.5)
        search = self._by_cascades if self.weights is None else self._by_network
        return np.array(search(frame, scale), dtype=np.float64).reshape(-1, 4)

    def _build(self) -> list[Any]:
        cv2 = opencv()
        if self.weights is None:
            names = ("frontalface_default", "frontalface_alt2")
            paths = (f"{cv2.data.haarcascades}haarcascade_{name}.xml" for name in names)
            return [cv2.CascadeClassifier(path) for path in paths]
        try:
            return [cv2.FaceDetectorYN.create(self.weights, "", (320, 320))]
        except cv2.error as error:
            raise ValueError(f"face detector: expected a YuNet ONNX file, got {self.weights}") from error

    def _by_cascades(self, frame: np.ndarray, scale: float) -> list[np.ndarray]:
        finding, confirming = self._detectors
        found = _cascade(finding, frame, scale, smallest=SMALLEST_FACE, neighbours=3)
        confirmed = []
        for box in found:
            part, _ = _around(frame, box)
            zoom = CONFIRMED_SIZE / box[2]
            if _cascade(confirming, part, zoom, smallest=CONFIRMED_SIZE // 2, neighbours=1):
                confirmed.append(box)
        return confirmed

    def _by_network(self, frame: np.ndarray, scale: float) -> list[np.ndarray]:
        cv2, (network,) = opencv(), self._detectors
        shrunk = _scaled(frame, scale)
        network.setInputSize(shrunk.shape[1::-1])
        _, found = network.detect(cv2.cvtColor(shrunk, cv2.COLOR_RGB2BGR))
        return [] if found is None else [row[:4] / scale for row in found]  # drops landmarks and score


def choose_speaking_face(
    finder: FaceFinder, frames: Sequence[np.ndarray], times: Sequence[float]
) -> list[np.ndarray | None]:
    """Track the faces of an utterance and choose the speaking one.

    In each frame, a face scores its height times the motion of its mouth, which favours faces that are large,
    visible for long and speaking. If the best face is not visible (other shot, or lost), another face with a
    similar score per frame replaces it.

    Args:
        finder: finds the faces in a frame.
        frames: about five per second.
        times: time of each frame in seconds, ascending.

    Returns:
        A box (4,) for each frame, or None without a visible face.
    """
    if len(frames) != len(times):
        raise ValueError(f"expected a time for each of {len(frames)} frames, got {len(times)}")
    tracks = _tracks(finder, frames, times)
    rates = [_speaking_rate(frames, track) for track in tracks] if len(tracks) > 1 else [1.0] * len(tracks)
    order = sorted(range(len(tracks)), key=lambda number: -rates[number] * len(tracks[number]))
    chosen: Track = {}
    for number in order:
        if rates[number] >= ALSO_SPEAKING * rates[order[0]] and not chosen.keys() & tracks[number].keys():
            chosen |= tracks[number]
    return [chosen.get(index) for index in range(len(frames))]


def same_shots(frames: Sequence[np.ndarray]) -> list[bool]:
    """Return for each frame after the first whether it is in the previous frame's shot (False at a cut)."""
    cv2 = opencv()
    small = [cv2.resize(frame, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float64) for frame in frames]
    return [
        frames[index].shape == frames[index + 1].shape
        and bool(((one - other) ** 2).mean() <= ANOTHER_SHOT * (one.var() + other.var() + NOISE))
        for index, (one, other) in enumerate(pairwise(small))
    ]


def face_picture(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Crop the face as a square, (size, size, 3); beyond the frame, its edge pixels are repeated."""
    cv2 = opencv()
    side = max(1, round(max(box[2:])))
    part = cv2.getRectSubPix(frame, (side, side), (box[:2] + (box[2:] - 1) / 2).tolist())
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def grey_pictures(frames: Sequence[np.ndarray], track: Track) -> dict[int, np.ndarray]:
    """Crop the face from each frame of a track, (PICTURE_SIZE, PICTURE_SIZE) uint8, in time order."""
    cv2 = opencv()
    return {
        index: cv2.cvtColor(face_picture(frames[index], track[index], PICTURE_SIZE), cv2.COLOR_RGB2GRAY)
        for index in sorted(track)
    }


def facial_flow(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the motion between two pictures of a face into head motion and facial motion.

    Args:
        before: (PICTURE_SIZE, PICTURE_SIZE) uint8 grey.
        after: the same shape, one step later.

    Returns:
        Head motion (4,), to the right, downwards, towards the camera and clockwise, and the remaining
        motion (PICTURE_SIZE / 4, PICTURE_SIZE / 4, 2), both in face widths per step.
    """
    cv2 = opencv()
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    estimator.setFinestScale(1)
    flow = estimator.calc(before, after, None)[2::4, 2::4] / PICTURE_SIZE
    steps = np.linspace(-0.5, 0.5, flow.shape[0])
    x, y = np.meshgrid(steps, steps)
    zero, one = np.zeros_like(x), np.ones_like(x)
    # Least squares fit of shift, scaling and rotation about the centre, which are orthogonal on this grid.
    kinds = np.stack([np.stack(kind, axis=-1) for kind in ((one, zero), (zero, one), (x, y), (-y, x))])
    head = (kinds * flow).sum(axis=(1, 2, 3)) / (kinds**2).sum(axis=(1, 2, 3))
    return head, flow - np.tensordot(head, kinds, axes=1)


def _cascade(
    cascade: Any, picture: np.ndarray, scale: float, *, smallest: int, neighbours: int
) -> list[np.ndarray]:
    grey = opencv().cvtColor(_scaled(picture, scale), opencv().COLOR_RGB2GRAY)
    boxes = cascade.detectMultiScale(grey, 1.2, neighbours, 0, (smallest, smallest))
    return [np.asarray(box, dtype=np.float64) / scale for box in boxes]


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    cv2 = opencv()
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _around(frame: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop a box plus half its size on each side; also return the offset (4,) of the crop."""
    left, top = np.maximum(box[:2] - box[2:] / 2, 0).astype(int)
    right, bottom = (box[:2] + 1.5 * box[2:]).astype(int)
    return frame[top : max(bottom, top + 1), left : max(right, left + 1)], np.array([left, top, 0, 0])


def _tracks(finder: FaceFinder, frames: Sequence[np.ndarray], times: Sequence[float]) -> list[Track]:
    """Search the whole frame once per second or if no face is tracked, and track the faces found."""
    shots = np.cumsum([0, *(not same for same in same_shots(frames))])
    tracks: list[Track] = []
    searched = -np.inf
    for index, time in enumerate(times):
        if any(index in track for track in tracks) and time - searched < SECONDS_BETWEEN_SEARCHES:
            continue
        searched = time
        for box in sorted(finder.find(frames[index]), key=lambda box: -box[3]):
            if sum(index in track for track in tracks) < MOST_FACES and not _known(tracks, index, box):
                track = _follow(finder, frames, times, shots, start=index, box=box)
                tracks.append({at: box for at, box in track.items() if not _known(tracks, at, box)})
    # A detection in only one of several frames is more often a texture than a face.
    return [_smooth(track) for track in tracks if len(track) > 1 or len(frames) < 3]


def _known(tracks: list[Track], index: int, box: np.ndarray) -> bool:
    return any(index in track and _overlap(box, track[index]) >= SAME_FACE for track in tracks)


def _follow(
    finder: FaceFinder,
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    shots: np.ndarray,
    *,
    start: int,
    box: np.ndarray,
) -> Track:
    """Track a face forwards, then backwards, from frame `start` until its shot ends or it is lost."""
    seen: Track = {start: box}
    for step in (1, -1):
        last, index = start, start + step
        while 0 <= index < len(frames) and shots[index] == shots[start]:
            if abs(times[index] - times[last]) > SECONDS_OUT_OF_SIGHT:
                break
            if (near := _find_near(finder, frames[index], seen[last])) is not None:
                seen[index], last = near, index
            index += step
    numbers = np.array(sorted(seen))
    boxes = np.stack([seen[number] for number in numbers])
    # Interpolate the position of a face that was lost briefly.
    whole = np.arange(numbers[0], numbers[-1] + 1)
    between = np.stack([np.interp(whole, numbers, column) for column in boxes.T], axis=1)
    return dict(zip(whole.tolist(), between, strict=True))


def _find_near(finder: FaceFinder, frame: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    part, corner = _around(frame, box)
    for size in FOLLOWED_SIZES:
        scale = size / box[2]
        found = list(finder.find(_scaled(part, scale)) / scale + corner)
        overlaps = [_overlap(box, other) for other in found]
        if max(overlaps, default=0) >= SAME_FACE:
            return found[int(np.argmax(overlaps))]
    return None


def _smooth(track: Track) -> Track:
    """Average each box with its neighbours, because detections jitter by a few pixels."""
    return {
        index: np.mean([track[near] for near in (index - 1, index, index + 1) if near in track], axis=0)
        for index in track
    }


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes."""
    starts, ends = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = np.prod((ends - starts).clip(0))
    return float(shared / (np.prod(one[2:]) + np.prod(other[2:]) - shared))


def _speaking_rate(frames: Sequence[np.ndarray], track: Track) -> float:
    """Return the height of the face relative to the frame, times mouth motion in face widths per step."""
    pictures = grey_pictures(frames, track)
    flows = [
        facial_flow(pictures[before], pictures[after])[1]
        for before, after in pairwise(pictures)
        if after == before + 1
    ]
    motions = [np.linalg.norm(flow[15:23, 6:18], axis=-1).mean() for flow in flows]  # the mouth's region
    height = np.mean([box[3] / frames[index].shape[0] for index, box in track.items()])
    return float(height * (STILL_MOUTH + np.mean(motions or [0.0])))
