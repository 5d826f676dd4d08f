"""Builds this example: writes recording.webm, drawn faces that speak with espeak-ng (a Debian package).

    python examples/moving-day/make_recording.py

It plays ../conversation.json at the times given there. Each frame shows the speaker; brows, eyes and mouth
show the emotion, and the mouth opens with the voice. The conversation with its emotions and this recording is
written to conversation.json. The action units of the faces are written to recording.csv, in OpenFace's
format; they follow from how a face is drawn and were not measured in the frames.
"""

import csv
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from redifu.media.decoding import Span, read_sound
from redifu.media.face_features import ACTION_UNITS

FOLDER = Path(__file__).resolve().parent
RECORDING, UNITS = "recording.webm", "recording.csv"
FRAMES_PER_SECOND = 10
SAMPLING_RATE = 16000
SIDE = 240  # width and height of a frame in pixels; it is drawn twice as large
EMOTIONS = (
    *("neutral", "neutral", "surprise", "sadness", "joy", "joy"),
    *("surprise", "disgust", "sadness", "sadness", "fear", "neutral"),
)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Colours (red, green, blue), and a voice of espeak-ng with its pitch, 0 to 99."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    shirt: tuple[int, int, int]
    wall: tuple[int, int, int]
    voice: str
    pitch: int
    long_hair: bool


@dataclass(frozen=True, kw_only=True)
class Mood:
    """How an emotion changes face and voice.

    In hundredths of the face's width: how far the brows rise, and how much further their inner ends; how open
    the eyes are; how far the corners of the mouth rise, its half width and its gape. Then the changes in
    words per minute and in pitch. Last, the action units of such a face: intensity by number, on OpenFace's
    scale of 0 to 5.
    """

    brows: int = 0
    inner: int = 0
    eyes: int = 7
    corners: int = 1
    width: int = 19
    gape: int = 0
    speed: int = 0
    pitch: int = 0
    units: dict[int, float] = field(default_factory=dict)


class Moment(NamedTuple):
    """A frame: its time in seconds, the utterance it shows, and how open the mouth is, from 0 to 1."""

    time: float
    said: dict[str, Any]
    opening: float
    blink: bool


PEOPLE = {
    "Ana": Person(
        skin=(236, 192, 160),
        hair=(70, 42, 28),
        shirt=(60, 120, 110),
        wall=(188, 200, 210),
        voice="en-us+f3",
        pitch=55,
        long_hair=True,
    ),
    "Jonas": Person(
        skin=(224, 178, 144),
        hair=(48, 40, 36),
        shirt=(70, 80, 130),
        wall=(206, 198, 180),
        voice="en-gb+m1",
        pitch=35,
        long_hair=False,
    ),
    "Mira": Person(
        skin=(202, 150, 112),
        hair=(30, 24, 26),
        shirt=(170, 80, 60),
        wall=(190, 206, 188),
        voice="en-gb+f2",
        pitch=60,
        long_hair=True,
    ),
}
# A blink, and a mouth that is wide open in speech.
BLINK = {45: 1.5}
SPEECH = {25: 2.0, 26: 1.5}
PRESENT = 0.3
MOODS = {
    "neutral": Mood(),
    "joy": Mood(
        brows=2,
        eyes=5,
        corners=8,
        width=24,
        gape=2,
        speed=20,
        pitch=15,
        units={6: 1.5, 7: 1.5, 12: 2.2, 25: 0.5},
    ),
    "surprise": Mood(
        brows=6,
        eyes=10,
        corners=0,
        width=14,
        gape=5,
        speed=15,
        pitch=20,
        units={1: 1.0, 2: 0.5, 5: 0.3, 25: 0.8, 26: 0.8},
    ),
    "sadness": Mood(
        brows=1,
        inner=6,
        eyes=5,
        corners=-6,
        width=18,
        speed=-25,
        pitch=-12,
        units={1: 0.8, 4: 1.0, 15: 0.4, 17: 0.8},
    ),
    "disgust": Mood(
        brows=-2,
        inner=-3,
        eyes=4,
        corners=-5,
        width=22,
        gape=1,
        speed=-5,
        pitch=-5,
        units={4: 1.8, 7: 2.0, 9: 0.4, 10: 1.6, 15: 0.2},
    ),
    "fear": Mood(
        brows=5,
        inner=4,
        eyes=10,
        corners=-3,
        width=23,
        gape=3,
        speed=30,
        pitch=25,
        units={1: 1.2, 2: 0.4, 4: 0.8, 5: 0.3, 20: 0.5, 25: 0.5},
    ),
}


class Canvas:
    """A canvas of twice SIDE pixels, in units of a hundredth of a face's width from its centre."""

    def __init__(self, wall: tuple[int, int, int], *, middle: tuple[float, float]):
        line = np.arange(-SIDE, SIDE) / (SIDE / 110)
        # A row and a column, which broadcast to a grid.
        self.x, self.y = (line - middle[0])[None], (line - middle[1])[:, None]
        self.pixels = np.full((2 * SIDE, 2 * SIDE, 3), wall, np.float32)

    def inside(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """Return the mask of an ellipse with these half axes."""
        return ((self.x - x) / width) ** 2 + ((self.y - y) / height) ** 2 < 1

    def ellipse(self, x: float, y: float, width: float, height: float, colour: Any) -> None:
        self.pixels[self.inside(x, y, width, height)] = colour

    def shade(self, x: float, y: float, width: float, height: float, amount: float) -> None:
        """Make a soft spot brighter or, below 0, darker."""
        spot = np.exp(-(((self.x - x) / width) ** 2)) * np.exp(-(((self.y - y) / height) ** 2))
        self.pixels += (amount * spot[..., None]).astype(np.float32)

    def between(self, upper: np.ndarray, lower: np.ndarray, x: np.ndarray, colour: Any) -> None:
        """Fill the area below one curve and above another."""
        across = (self.x >= x[0]) & (self.x <= x[-1])
        along = (self.y >= np.interp(self.x, x, upper)) & (self.y <= np.interp(self.x, x, lower))
        self.pixels[across & along] = colour


def draw(
    person: Person, mood: Mood, *, opening: float, blink: bool, middle: tuple[float, float]
) -> np.ndarray:
    """Draw a face whose mouth is open by 0 to 1: (SIDE, SIDE, 3) uint8 RGB."""
    canvas = Canvas(person.wall, middle=middle)
    skin, hair = np.array(person.skin), np.array(person.hair)
    if person.long_hair:
        canvas.ellipse(0, 8, 66, 84, hair)
    canvas.ellipse(0, 140, 92, 62, person.shirt)
    canvas.between(np.full(2, 40.0), np.full(2, 92.0), np.array([-19.0, 19.0]), skin * 0.72)
    canvas.ellipse(0, -12, 56, 64, hair)
    for side in (-1, 1):
        canvas.ellipse(side * 51, 0, 7, 13, skin * 0.85)
    canvas.ellipse(0, 3, 50, 64, skin * 0.8)
    canvas.ellipse(0, 2, 48, 61, skin)
    canvas.pixels[canvas.inside(0, -12, 56, 64) & (canvas.y < -40 - 8 * np.cos(canvas.x / 30))] = hair
    shadows(canvas)
    for side in (-1, 1):
        eye(canvas, side, openness=0 if blink else mood.eyes)
        brow(canvas, side, mood, hair * 0.8)
    mouth(canvas, mood, opening)
    picture = cv2.resize(canvas.pixels.clip(0, 255), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return picture.astype(np.uint8)


def shadows(canvas: Canvas) -> None:
    """Add light from above, by which OpenCV's cascades recognise a face."""
    for side in (-1, 1):
        canvas.shade(side * 21, -9, 15, 9, -75)
        canvas.shade(side * 24, 16, 14, 10, 22)
        canvas.shade(side * 7, 16, 3, 3, -60)
        canvas.shade(side * 50, 10, 10, 50, -45)
    canvas.shade(0, -25, 30, 10, 22)
    canvas.shade(0, 2, 5, 16, 40)
    canvas.shade(0, 20, 9, 3, -35)
    canvas.shade(0, 47, 14, 4, -30)
    canvas.shade(0, 66, 34, 7, -40)


def eye(canvas: Canvas, side: int, *, openness: float) -> None:
    x = side * 21 + np.linspace(-11, 11, 23)
    arc = 1 - np.linspace(-1, 1, 23) ** 2
    upper, lower = -7 - 0.7 * openness * arc, -7 + 0.4 * openness * arc
    canvas.between(upper - 2.5, lower + 1, x, (40, 26, 24))
    canvas.between(upper, lower, x, (236, 232, 228))
    seen = (canvas.y > np.interp(canvas.x, x, upper)) & (canvas.y < np.interp(canvas.x, x, lower))
    canvas.pixels[seen & canvas.inside(side * 21, -8, 5.2, 5.2)] = (36, 26, 22)


def brow(canvas: Canvas, side: int, mood: Mood, colour: np.ndarray) -> None:
    run = np.linspace(0, 1, 21)  # from its inner end to the outer one
    height = -21 - mood.brows - mood.inner * (1 - run) - 3 * np.sin(np.pi * run)
    x = side * (8 + 27 * run)
    order = np.argsort(x)
    canvas.between((height - 2.4)[order], (height + 2.4)[order], x[order], colour)


def mouth(canvas: Canvas, mood: Mood, opening: float) -> None:
    run = np.linspace(-1, 1, 41)
    x, arc = run * mood.width, 1 - run**2
    line = 36 - mood.corners * (run**2 - 0.4)
    gape = (mood.gape + 9 * opening) * arc
    upper, lower = line - 0.35 * gape, line + 0.65 * gape
    canvas.between(upper - 3.4 * arc**0.5, lower + 4.2 * arc**0.5, x, (168, 74, 72))
    canvas.between(upper - 0.8, lower + 0.8, x, (64, 18, 22))
    canvas.between(upper, np.minimum(upper + 2.5, lower), x, (226, 220, 214))


def spoken(text: str, person: Person, mood: Mood, *, seconds: float) -> np.ndarray:
    """Speak a text in at most this many seconds; return (samples,) float32."""
    speed = 165 + mood.speed
    while True:
        command = ["espeak-ng", "-v", person.voice, "-s", str(speed), "-p", str(person.pitch + mood.pitch)]
        wave = subprocess.run([*command, "--stdout", text], check=True, capture_output=True).stdout
        ((_, sound),) = read_sound(wave, [Span()], sampling_rate=SAMPLING_RATE)
        if len(sound) <= seconds * SAMPLING_RATE:
            return sound
        speed += 10


def speech(utterances: list[dict[str, Any]]) -> np.ndarray:
    """Return the audio of all utterances, each at its start time, and half a second of silence."""
    track = np.zeros(round((utterances[-1]["end"] + 0.5) * SAMPLING_RATE), np.float32)
    for said in utterances:
        sound = spoken(
            said["text"],
            PEOPLE[said["speaker"]],
            MOODS[said["label"]],
            seconds=said["end"] - said["start"],
        )
        first = round(said["start"] * SAMPLING_RATE)
        track[first : first + len(sound)] = sound
    return track


def moments(utterances: list[dict[str, Any]], track: np.ndarray) -> Iterator[Moment]:
    """Find who speaks, or spoke last, in every frame of the recording."""
    step = SAMPLING_RATE // FRAMES_PER_SECOND
    loudness = np.sqrt((track[: len(track) // step * step].reshape(-1, step) ** 2).mean(axis=1))
    for number, opening in enumerate(loudness / loudness.max()):
        time = number / FRAMES_PER_SECOND
        said = [one for one in utterances if one["start"] <= time or one is utterances[0]][-1]
        yield Moment(time, said, float(opening), number % 37 == 30)


def pictures(utterances: list[dict[str, Any]], track: np.ndarray) -> Iterator[np.ndarray]:
    """Draw every frame."""
    for time, said, opening, blink in moments(utterances, track):
        yield draw(
            PEOPLE[said["speaker"]],
            MOODS[said["label"]],
            opening=opening,
            blink=blink,
            middle=(2.5 * np.sin(1.3 * time), 6 + 1.5 * np.sin(2.1 * time)),
        )


def write_action_units(path: Path, utterances: list[dict[str, Any]], track: np.ndarray) -> None:
    """Write the action units of every frame; those with intensity PRESENT or more are present."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "timestamp", "confidence", "success", *ACTION_UNITS])
        for number, moment in enumerate(moments(utterances, track), start=1):
            units = action_units(moment)
            values = [
                round(units[name[:4]], 2) if name.endswith("_r") else int(units[name[:4]] >= PRESENT)
                for name in ACTION_UNITS
            ]
            table.writerow([number, moment.time, 1, 1, *(f"{value:g}" for value in values)])


def action_units(moment: Moment) -> dict[str, float]:
    """Add up the action units of mood, speech and blink: intensities by name, such as AU01."""
    units = {name[:4]: 0.0 for name in ACTION_UNITS}
    parts = [(MOODS[moment.said["label"]].units, 1.0), (SPEECH, moment.opening), (BLINK, moment.blink)]
    for part, share in parts:
        for unit, intensity in part.items():
            units[f"AU{unit:02}"] += share * intensity
    return units


def write(path: Path, track: np.ndarray, frames: Iterator[np.ndarray]) -> None:
    """Write audio and frames interleaved, so that a player finds both where it reads."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx-vp9", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        video.options = {"crf": "40", "b": "0", "threads": "1"}
        audio = container.add_stream("libopus", rate=48000, layout="mono", bit_rate=20000)
        step = SAMPLING_RATE // FRAMES_PER_SECOND
        for number, picture in enumerate(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            part = track[number * step : (number + 1) * step]
            sound = av.AudioFrame.from_ndarray(part[None], "flt", "mono")
            sound.sample_rate, sound.pts, sound.time_base = (
                SAMPLING_RATE,
                number * step,
                Fraction(1, SAMPLING_RATE),
            )
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def main() -> None:
    conversation = json.loads((FOLDER.parent / "conversation.json").read_text(encoding="utf-8"))
    media = {"audio": RECORDING, "video": RECORDING}
    utterances = [
        {**said, "label": emotion, **media}
        for said, emotion in zip(conversation["utterances"], EMOTIONS, strict=True)
    ]
    lines = ",\n    ".join(json.dumps(said) for said in utterances)
    (FOLDER / "conversation.json").write_text(
        f'{{\n  "id": {json.dumps(conversation["id"])},\n  "utterances": [\n    {lines}\n  ]\n}}\n',
        encoding="utf-8",
    )
    track = speech(utterances)
    write(FOLDER / RECORDING, track, pictures(utterances, track))
    write_action_units(FOLDER / UNITS, utterances, track)


if __name__ == "__main__":
    main()
