"""Compute features, crops and quality measures from an utterance's frames and its speaking face."""

import csv
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from redifu.media.face_tracking import face_picture, facial_flow, grey_pictures, opencv, same_shots
from redifu.media.quality import QUALITY

# OpenFace's names: intensities from 0 to 5, then presences of 0 or 1, which include one more unit.
_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
ACTION_UNITS = (
    *(f"AU{unit:02}_r" for unit in _UNITS),
    *(f"AU{unit:02}_c" for unit in sorted((*_UNITS, 28))),
)

# What tells the faces of a frame apart, where OpenFace writes it.
_OF_FACES = ("frame", "face_id")

GRID = 6  # face regions per side
ORIENTATIONS = 8  # gradient orientations over 180 degrees
QUALITY_SIZE = 128  # side in pixels of the square used to measure sharpness

_APPEARANCE_SIZE = GRID**2 * (ORIENTATIONS + 1)
_MOTION_SIZE = GRID**2 + 4
FACE_DESCRIPTOR_SIZE = 2 * (_APPEARANCE_SIZE + _MOTION_SIZE)


def face_descriptor(frames: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None]) -> np.ndarray:
    """Describe the appearance and motion of a face without learned weights.

    Appearance is the gradient orientation histogram and the brightness of each region in a GRID x GRID face,
    after normalising mean and contrast. Motion is the motion of each region relative to the head and the
    motion of the head, in face widths per step, between neighbouring frames of a shot.

    Args:
        frames: frames, (height, width, 3) uint8 RGB.
        boxes: the face in each frame, (4,), or None.

    Returns:
        (FACE_DESCRIPTOR_SIZE,) float32: the means over time of appearance and motion, then the standard
        deviations of both. Motion is 0 if no two neighbouring frames show the face.

    Raises:
        ValueError: no frame has a face.
    """
    faces = _faces(boxes)
    pictures = grey_pictures(frames, faces)
    appearance = np.stack([_appearance(picture) for picture in pictures.values()])
    shots = same_shots(frames)
    motion = [
        _motion(pictures[before], pictures[after], faces[before], faces[after])
        for before, after in pairwise(faces)
        if after == before + 1 and shots[before]
    ] or [np.zeros(_MOTION_SIZE)]
    series = (appearance, np.stack(motion))
    return np.concatenate(
        [*(each.mean(axis=0) for each in series), *(each.std(axis=0) for each in series)], dtype=np.float32
    )


def face_crops(
    frames: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None], *, count: int, size: int
) -> np.ndarray:
    """Crop faces for an image backbone, evenly spaced over the frames with a face.

    Args:
        frames: frames, (height, width, 3) uint8 RGB.
        boxes: the face in each frame, (4,), or None.
        count: number of crops; faces are repeated if there are fewer.
        size: side of a crop in pixels.

    Returns:
        (count, size, size, 3) uint8 RGB.

    Raises:
        ValueError: no frame has a face.
    """
    faces = _faces(boxes)
    places = ((np.arange(count) + 0.5) * len(faces) / count).astype(int)
    indices = np.array(list(faces))[places].tolist()
    return np.stack([face_picture(frames[index], faces[index], size) for index in indices])


def visual_quality(frames: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None]) -> dict[str, float]:
    """Measure how well the face is visible.

    Sharpness and brightness are measured on the face, or on whole frames if no frame has a face.

    Args:
        frames: at least one frame, (height, width, 3) uint8 RGB.
        boxes: the face in each frame, (4,), or None.

    Returns:
        The measures in `QUALITY["visual"]`: the share of frames with a face, 0 to 1; the median ratio of
        face height to frame height, 0 without a face; the median over time of log10(1 + variance of the
        Laplacian of grey levels 0 to 255) at size QUALITY_SIZE; the mean luma, 0 to 1.
    """
    cv2 = opencv()
    faces = {index: box for index, box in enumerate(boxes) if box is not None}
    pictures = [face_picture(frames[index], box, QUALITY_SIZE) for index, box in faces.items()] or [
        cv2.resize(frame, (QUALITY_SIZE, QUALITY_SIZE), interpolation=cv2.INTER_AREA) for frame in frames
    ]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    heights = [box[3] / frames[index].shape[0] for index, box in faces.items()] or [0.0]
    sharpness = [np.log10(1 + cv2.Laplacian(grey, cv2.CV_64F).var()) for grey in greys]
    values = (len(faces) / len(frames), np.median(heights), np.median(sharpness), np.mean(greys) / 255)
    return dict(zip(QUALITY["visual"], map(float, values), strict=True))


def read_action_units(
    path: str | Path, *, start: float = 0.0, end: float | None = None
) -> tuple[np.ndarray, float]:
    """Average the per-frame action units that OpenFace wrote for a recording.

    Of several faces, one is read, the same for the whole recording: the one that OpenFace found in most
    frames, and of several such faces the one with the lowest face_id.

    Args:
        path: OpenFace's CSV; its column names may have leading spaces.
        start: seconds from the start of the recording; earlier frames are ignored.
        end: seconds; frames from here on are ignored; None for no limit.

    Returns:
        (35,) float32 in the order of ACTION_UNITS, averaged over the frames where OpenFace succeeded (0 if
        there are none), and the share of those frames, 0 to 1.

    Raises:
        OSError: the file cannot be read.
        ValueError: the span has no frames, a column is missing, or a value is not a finite number.
    """
    # OpenFace writes no times for single images, so there is no span to choose.
    whole = start == 0 and end is None
    required = ("success", *ACTION_UNITS) if whole else ("success", *ACTION_UNITS, "timestamp")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: not a regular file")  # reading a pipe or device may never end
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in required if name not in header]:
            raise ValueError(f"{path}: missing OpenFace columns: {', '.join(missing)}")
        names = [*required, *(name for name in _OF_FACES if name in header)]
        places = [header.index(name) for name in names]
        rows = [_numbers(row, places, f"{path}: line {reader.line_num}") for row in reader if row]
    table = np.array(rows).reshape(len(rows), len(names))
    columns = {name: table[:, place] for place, name in enumerate(names)}
    inside = np.ones(len(rows), dtype=bool)
    if not whole:
        inside = (start <= columns["timestamp"]) & (columns["timestamp"] < (np.inf if end is None else end))
    if not inside.any():
        raise ValueError(f"{path}: expected at least one frame from {start:g} s onward, got none")
    found = columns["success"] == 1
    of_face = columns.get("face_id", np.zeros(len(rows)))
    faces = np.unique(of_face)
    succeeded = inside & found & (of_face == max(faces, key=lambda face: (found & (of_face == face)).sum()))
    averages = table[succeeded, 1 : 1 + len(ACTION_UNITS)].sum(axis=0) / max(succeeded.sum(), 1)
    frames = columns.get("frame", np.arange(len(rows)))[inside]
    count = len(np.unique(frames)) if len(faces) > 1 else len(frames)
    return averages.astype(np.float32), float(succeeded.sum() / count)


def _faces(boxes: Sequence[np.ndarray | None]) -> dict[int, np.ndarray]:
    faces = {index: box for index, box in enumerate(boxes) if box is not None}
    if not faces:
        raise ValueError(f"expected a face in at least one of {len(boxes)} frames, got none")
    return faces


def _appearance(picture: np.ndarray) -> np.ndarray:
    """Histograms of orientation and brightness by region, (GRID * GRID * (ORIENTATIONS + 1),).

    cv2.HOGDescriptor gives other numbers: it takes 8-bit pictures only, splits each gradient between
    neighbouring orientations, and clips the histograms.
    """
    cv2 = opencv()
    levels = picture.astype(np.float32)
    levels = (levels - levels.mean()) / max(levels.std(), 1.0)  # a black picture stays 0
    strength, angle = cv2.cartToPolar(
        cv2.Sobel(levels, cv2.CV_32F, 1, 0), cv2.Sobel(levels, cv2.CV_32F, 0, 1)
    )
    orientation = (angle * (ORIENTATIONS / np.pi)).astype(int) % ORIENTATIONS
    kinds = strength[..., None] * (orientation[..., None] == np.arange(ORIENTATIONS))
    histograms = _by_region(kinds)
    # Unit length makes a region independent of its contrast; regions with almost no gradient stay near 0.
    histograms /= np.linalg.norm(histograms, axis=-1, keepdims=True) + 0.1
    return np.concatenate([histograms.ravel(), _by_region(levels).ravel()])


def _motion(before: np.ndarray, after: np.ndarray, box: np.ndarray, next_box: np.ndarray) -> np.ndarray:
    """Return the motion of each region and of the head between two frames, (GRID * GRID + 4,)."""
    head, own = facial_flow(before, after)
    middles = box[:2] + box[2:] / 2, next_box[:2] + next_box[2:] / 2
    # The picture moves with its box, so head motion is the box's motion plus the motion within it.
    moved = (middles[1] - middles[0]) / max(box[2:])
    grown = np.log(max(next_box[2:]) / max(box[2:]))
    regions = _by_region(np.linalg.norm(own, axis=-1))
    return np.concatenate([regions.ravel(), np.abs(head + np.array([*moved, grown, 0.0]))])


def _by_region(values: np.ndarray) -> np.ndarray:
    """Average over the regions of a square picture: (side, side, ...) -> (GRID, GRID, ...)."""
    side = values.shape[0] // GRID
    return values.reshape(GRID, side, GRID, side, *values.shape[2:]).mean(axis=(1, 3))


def _numbers(row: list[str], columns: Sequence[int], where: str) -> list[float]:
    try:
        numbers = [float(row[column]) for column in columns]
    except (ValueError, IndexError):
        raise ValueError(f"{where}: expected a number in each column, got {row!r:.80}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: expected finite numbers, got {row!r:.80}")
    return numbers
