"""Makes sound files and films whose content is known, and reports where they are read otherwise.

What is heard is compared with the tones that were written, with FFmpeg's own decoding as PyAV gives it, and
spans with the whole. The same kind and number give the same file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import av
import numpy as np

from media.made_media import write_film, write_sound
from redifu.media.containers import chosen_stream
from redifu.media.decoding import Frames, Span, read_frames, read_sound, sound_chunks
from redifu.media.sound import LARGEST_DRIFT

HEARD_AT = 16000
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
UNKNOWN_TO = {"alac": ("quad", "6.1", "7.1"), "aac": ("quad", "6.1"), "ac3": ("6.1", "7.1")}
PCM = ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
EXACT = {
    **{"a.flac": "flac", "b.mka": "flac", "a.m4a": "alac", "a.caf": "pcm_s16be", "a.aiff": "pcm_s16be"},
    **{"a.w64": "pcm_s24le", "a.au": "pcm_s16be", "a.mov": "pcm_s16le", "a.wv": "wavpack"},
}
# Without the rates and layouts that the codecs do not know.
LOSSY: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "a.mp3": ("libmp3lame", 2, RATES),
    "a.ogg": ("libopus", 8, RATES),
    "a.opus": ("libopus", 2, RATES),
    "a.m4a": ("aac", 8, RATES),
    "a.mp4": ("aac", 2, RATES),
    # Which does not tell that its first 1024 samples come before the sound.
    "a.aac": ("aac", 2, RATES[3:]),
    "a.mkv": ("aac", 6, RATES),
    "a.webm": ("libopus", 2, RATES),
    "a.mp2": ("mp2", 2, (16000, 22050, 24000, 32000, 44100, 48000)),
    "a.ac3": ("ac3", 6, (32000, 44100, 48000)),
}
LEVELS = (30, 90, 150, 220)  # of gray pictures


@dataclass
class Made:
    """A file with tones.

    Attributes:
        path: of the file.
        tones: (start, end, frequency, level) of each, in seconds and of the mean of the channels.
        seconds: length of the sound, with the time before it begins.
        tolerance: of a sample at `HEARD_AT` where it is written without loss, or None.
        pictures: (time, gray level) of each picture.
        form: how it is stored, in words.
    """

    path: Path
    tones: list[tuple[float, float, float, float]]
    seconds: float
    tolerance: float | None = None
    pictures: list[tuple[float, int]] = field(default_factory=list)
    form: str = ""


def tones(random: Random, *, late: float = 0.0) -> tuple[list[tuple[float, float, float, float]], float]:
    """Tones one after the other, with silence between; and the end of the last."""
    made, now = [], late
    for _ in range(random.randint(1, 3)):
        end = round(now + random.uniform(0.4, 0.8), 3)
        made.append((now, end, float(random.randint(200, 2800)), random.uniform(0.1, 0.6)))
        now = end if random.random() < 0.5 else round(end + random.uniform(0.2, 0.4), 3)
    return made, made[-1][1]


def wave(made: list[tuple[float, float, float, float]], seconds: float, *, rate: int) -> np.ndarray:
    """The tones as samples; each begins with phase 0."""
    time = np.arange(round(seconds * rate)) / rate
    samples = np.zeros(len(time))
    for start, end, frequency, level in made:
        inside = (time >= start) & (time < end)
        samples[inside] = level * np.sin(2 * np.pi * frequency * (time[inside] - start))
    return samples


def sound(random: Random, path: Path, codec: str, *, most: int, rate: int, exact: float | None) -> Made:
    """Write tones on some channels, each with a gain of its own; the gains average to 1."""
    layout = random.choice([one for one in LAYOUTS[:most] if one not in UNKNOWN_TO.get(codec, ())])
    gains = np.array([random.uniform(0.2, 1) for _ in range(av.AudioLayout(layout).nb_channels)])
    if exact is None and len(gains) > 5:
        gains[3] = 0  # codecs keep only the lowest tones of the channel for a subwoofer
    gains /= gains.mean()
    made, seconds = tones(random)
    made = [(start, end, frequency, level / gains.max()) for start, end, frequency, level in made]
    samples = wave(made, seconds, rate=rate)
    write_sound(path, gains[:, None] * samples, rate=rate, codec=codec, layout=layout)
    return Made(path, made, seconds, exact, form=f"{codec}, {layout}, {rate} Hz")


def wav(random: Random, folder: Path) -> Made:
    """WAV with integers of 8 to 32 bits, or floats."""
    codec = random.choice(PCM)
    tolerance = 0.02 if codec == "pcm_u8" else 0.01
    path = folder / "a.wav"
    return sound(random, path, codec, most=8, rate=random.choice(RATES), exact=tolerance)


def lossless(random: Random, folder: Path) -> Made:
    """Other formats that keep each sample."""
    name, codec = random.choice(sorted(EXACT.items()))
    return sound(random, folder / name, codec, most=8, rate=random.choice(RATES), exact=0.01)


def lossy(random: Random, folder: Path) -> Made:
    """Formats that keep what is heard."""
    name, (codec, most, rates) = random.choice(sorted(LOSSY.items()))
    return sound(random, folder / name, codec, most=most, rate=random.choice(rates), exact=None)


def film(random: Random, folder: Path) -> Made:
    """Gray pictures from time 0 on, and sound that begins late."""
    ending, codec = random.choice([(".mp4", "aac"), (".mov", "aac"), (".mkv", "flac"), (".mkv", "aac")])
    late = random.choice([0.0, 0.25, 0.5, round(random.uniform(0.06, 1.5), 2)])
    made, seconds = tones(random, late=late)
    samples = wave(made, seconds, rate=48000)[round(late * 48000) :]
    times, now = [0.0], 0.0
    while now < seconds - 0.3:
        now = round(now + (random.randint(1, 5) / 10 if random.random() < 0.5 else 0.2), 3)
        times.append(now)
    shown = [random.choice(LEVELS) for _ in times]
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in shown]
    path = write_film(folder / f"a{ending}", pictures, samples, times=times, late=late, sound_codec=codec)
    exact = 0.01 if codec == "flac" else None
    return Made(path, made, seconds, exact, list(zip(times, shown, strict=True)), f"{codec}, {late:g} s late")


KINDS: dict[str, Callable[[Random, Path], Made]] = {
    "WAV": wav,
    "lossless": lossless,
    "lossy": lossy,
    "film": film,
}


def heard(path: Path, *, rate: int = HEARD_AT) -> np.ndarray:
    return np.concatenate(list(sound_chunks(path, sampling_rate=rate)))


def faults(made: Made, random: Random) -> list[str]:
    """Return what is read wrongly from a file."""
    whole = heard(made.path)
    return [
        *_wrong_tones(made, whole),
        *_unlike_ffmpeg(made.path),
        *_unlike_the_whole(made, whole, random),
        *_wrong_pictures(made),
    ]


def _wrong_tones(made: Made, whole: np.ndarray) -> list[str]:
    found = []
    longer = len(whole) / HEARD_AT - made.seconds
    # Encoders fill their last frame, and may not tell what they put before the first.
    least, most = (-0.001, 0.001) if made.tolerance else (-0.03, 0.15)
    if not least <= longer <= most:
        found.append(f"{longer:+.4f} s longer")
    margin = 0.01 if made.tolerance else 0.06
    expected = wave(made.tones, made.seconds, rate=HEARD_AT)
    for start, end, frequency, level in made.tones:
        inside = slice(round((start + margin) * HEARD_AT), round((end - margin) * HEARD_AT))
        part = whole[inside]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 4 * HEARD_AT))
        if abs(spectrum.argmax() / 4 - frequency) > 1.5:
            found.append(f"{spectrum.argmax() / 4} Hz at {start:g} s, expected {frequency:g}")
        loudness = np.sqrt(2 * np.square(part, dtype=float).mean())
        if abs(loudness / level - 1) > (0.05 if made.tolerance else 0.15):
            found.append(f"level {loudness:.4f} at {start:g} s, expected {level:.4f}")
        if made.tolerance and (error := np.abs(part - expected[inside]).max()) > made.tolerance:
            found.append(f"samples at {start:g} s differ by {error:.4f}")
    ends = [0.0, *(end for _, end, _, _ in made.tones)]
    for before, (start, *_) in zip(ends, made.tones, strict=False):
        stop = max(start - margin, 0.0)
        silence = whole[round((before + margin) * HEARD_AT) : round(stop * HEARD_AT)]
        if silence.size and np.abs(silence).max() > 0.02:
            found.append(f"{np.abs(silence).max():.3f} in the silence before {start:g} s")
    return found


def _unlike_ffmpeg(path: Path) -> list[str]:
    """Compare with the frames of PyAV, whose channels are averaged, at the rate of the file."""
    with av.open(str(path)) as container:
        # The choice keeps PyAV from freeing unusual layouts twice.
        frames = list(container.decode(chosen_stream(container, "audio")))
        if frames[0].format.is_planar and frames[0].layout.nb_channels > 7:
            return []  # PyAV would read beyond the end of its planes
        beginning = (container.start_time or 0) / 1e6
    rate = frames[0].rate
    expected = np.concatenate([samples_of(frame) for frame in frames], axis=1).mean(axis=0)
    late = 0.0 if frames[0].time is None else frames[0].time - beginning
    own = heard(path, rate=rate)[round(late * rate) if late > LARGEST_DRIFT else 0 :]
    shared = min(len(own), len(expected))
    if abs(len(own) - len(expected)) > 1:
        return [f"{len(own)} samples, FFmpeg's are {len(expected)}"]
    error = np.abs(own[:shared] - expected[:shared]).max()
    return [f"samples differ from FFmpeg's by {error:.6f}"] if error > 1e-5 else []


def samples_of(frame: av.AudioFrame) -> np.ndarray:
    """Return (channels, samples) of a frame, full scale 1."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        return (values.astype(np.float64) - 128) / 128
    return values if values.dtype.kind == "f" else values / 2.0 ** (8 * values.itemsize - 1)


def _unlike_the_whole(made: Made, whole: np.ndarray, random: Random) -> list[str]:
    """Compare spans with the same part of the whole; before a late start, there is no sound at all."""
    seconds = len(whole) / HEARD_AT
    starts = [random.uniform(made.tones[0][0], 0.9 * seconds) for _ in range(3)]
    spans = [Span(start=start, end=random.uniform(start + 0.05, seconds)) for start in starts]
    found = []
    for number, read in read_sound(made.path, spans, sampling_rate=HEARD_AT):
        span = spans[number]
        part = whole[round(span.start * HEARD_AT) : round(span.stop * HEARD_AT)]
        if isinstance(read, Exception) or len(read) != len(part) or np.abs(read - part).max() > 1e-6:
            found.append(f"the span {span.start:.3f} to {span.stop:.3f} s is not as in the whole: {read}")
    return found


def _wrong_pictures(made: Made) -> list[str]:
    """Compare pictures at sampling times with those that a player would show."""
    if not made.pictures:
        return []
    ((_, read),) = read_frames(made.path, [Span()], frames_per_second=7)
    if not isinstance(read, Frames):
        return [f"no pictures: {read}"]
    found = []
    for time, picture in zip(read.times, read.pictures, strict=True):
        right = [level for shown, level in made.pictures if shown <= time + 1e-3][-1]
        before = [level for shown, level in made.pictures if shown <= time - 1e-3] or [right]
        level = float(picture.mean())
        if min(abs(level - right), abs(level - before[-1])) > 15:
            found.append(f"gray {level:.0f} at {time:g} s, expected {right}")
    last = made.pictures[-1][0]
    return found if read.times[-1] > last - 1 / 7 else [*found, f"no picture after {read.times[-1]} s"]


def difference(kind: str, number: int, folder: Path) -> str | None:
    """Make a file and read it; return what is read wrongly, or None."""
    random = Random(f"{kind} {number}")
    made = KINDS[kind](random, folder)
    try:
        found = faults(made, random)
    except Exception as error:
        found = [f"refused: {type(error).__name__}: {error}"]
    made.path.unlink()
    return f"{kind} {number} ({made.path.name}, {made.form}): {'; '.join(found)}" if found else None
