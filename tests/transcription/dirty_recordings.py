"""Recordings as people bring them: damaged, silent, in odd formats. Made of real speech and of noise."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from media.made_media import sound_packets, tone, write_film, write_sound, write_video
from redifu.media.decoding import sound_chunks

RATE = 16000
WORDS = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)

Make = Callable[[Path, "Sources"], Path]


class Dirty(NamedTuple):
    """A recording to make.

    Attributes:
        make: writes it to a folder and returns its path.
        heard: the least share of `WORDS` that is recognised; None if any words will do; 0 for no speech.
        refused: the line that is given instead of an answer.
    """

    make: Make
    heard: float | None = 0.0
    refused: str | None = None


class Sources:
    """Real sound of the folder that REDIFU_TEST_DATA names."""

    def __init__(self, data: Path):
        self.data = data
        self.known: dict[tuple[str, int], np.ndarray] = {}

    def sound(self, name: str, rate: int = RATE) -> np.ndarray:
        """Return (samples,) of a file."""
        if (name, rate) not in self.known:
            self.known[name, rate] = np.concatenate(list(sound_chunks(self.data / name, sampling_rate=rate)))
        return self.known[name, rate]

    def speech(self, rate: int = RATE) -> np.ndarray:
        """Return 11 s of one speaker, who says `WORDS`."""
        return self.sound("fixtures/speech.flac", rate)

    def voices(self) -> list[np.ndarray]:
        """Return 4 s or so of each of the speakers of the meetings who are heard alone so long."""
        alone = []
        for name in ("dev00", "dev01", "trn01", "trn04", "trn05", "trn06"):
            rows = (self.data / f"data/speech/{name}.rttm").read_text().splitlines()
            turns = [(float(row.split()[3]), float(row.split()[4]), row.split()[7]) for row in rows]
            longest = {who: max(turn[:2][::-1] for turn in turns if turn[2] == who) for *_, who in turns}
            waveform = self.sound(f"data/speech/{name}.flac")
            for seconds, start in longest.values():
                if seconds > 2:
                    alone.append(waveform[round(start * RATE) : round((start + min(seconds, 4)) * RATE)])
        return alone


def noise(seconds: float, level: float = 0.1, *, colour: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return noise whose power falls with frequency to the power of `colour`."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** (-colour / 2)
    waveform = np.fft.irfft(spectrum, count)
    return (level * waveform / waveform.std()).clip(-1, 1).astype(np.float32)


def band(waveform: np.ndarray, low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return np.fft.irfft(np.where((frequencies >= low) & (frequencies <= high), spectrum, 0), len(waveform))


def music(seconds: float, *, drums: bool = False) -> np.ndarray:
    """Return chords that are struck twice a second, with overtones, and perhaps a drum."""
    random = np.random.default_rng(3)
    notes = 220 * 2 ** (np.array([0, 3, 5, 7, 10, 12, 15, 17]) / 12)
    strokes = []
    for number in range(round(2 * seconds)):
        time = np.arange(RATE // 2) / RATE
        chord = sum(
            np.sin(2 * np.pi * note * overtone * time) / overtone**1.5
            for note in random.choice(notes, 3, replace=False)
            for overtone in range(1, 6)
        )
        drum = random.standard_normal(len(time)) * np.exp(-40 * time) if drums and number % 2 else 0
        strokes.append(chord * np.exp(-4 * time) + 2 * drum)
    waveform = np.concatenate(strokes)
    return (0.3 * waveform / np.abs(waveform).max()).astype(np.float32)


def breathing(seconds: float) -> np.ndarray:
    swell = np.sin(2 * np.pi * np.arange(round(seconds * RATE)) / RATE / 3).clip(min=0) ** 2
    return (band(noise(seconds, 0.1), 300, 3000) * swell).astype(np.float32)


def clicks(seconds: float) -> np.ndarray:
    waveform = np.zeros(round(seconds * RATE), np.float32)
    waveform[:: RATE // 3] = 0.9
    return waveform


def sweep(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (100 + 1500 * time / seconds) * time)).astype(np.float32)


def telephone_tone(seconds: float) -> np.ndarray:
    pulse = (np.arange(round(seconds * RATE)) // (RATE // 2)) % 2
    return (tone(seconds, frequency=425.0) * pulse).astype(np.float32)


def whispered(waveform: np.ndarray) -> np.ndarray:
    """Give every moment of speech random phases, which takes its pitch away."""
    size, random = 512, np.random.default_rng(1)
    result, window = np.zeros(len(waveform) + size), np.hanning(size)
    for at in range(0, len(waveform) - size, size // 4):
        spectrum = np.abs(np.fft.rfft(waveform[at : at + size] * window))
        phases = np.exp(2j * np.pi * random.random(len(spectrum)))
        result[at : at + size] += np.fft.irfft(spectrum * phases) * window
    return (0.3 * result / np.abs(result).max()).astype(np.float32)


def in_a_hall(waveform: np.ndarray) -> np.ndarray:
    echo = noise(0.5, 1.0, seed=5) * np.exp(-np.arange(RATE // 2) / RATE / 0.08)
    echo[0] = 8.0
    wet = np.convolve(waveform, echo)
    return (0.5 * wet / np.abs(wet).max()).astype(np.float32)


def sound(make: Callable[["Sources"], np.ndarray], name: str = "sound.wav", **options: Any) -> Make:
    """Return a maker of a file with the sound that `make` returns."""
    return lambda folder, sources: write_sound(folder / name, make(sources), **options)


def spoken(name: str = "sound.wav", *, rate: int = RATE, gain: float = 1.0, **options: Any) -> Make:
    """Return a maker of a file with speech in a format."""
    return sound(lambda sources: gain * sources.speech(rate), name, rate=rate, **options)


def content(name: str, make: Callable[[bytes], bytes], **options: Any) -> Make:
    """Return a maker of a file of speech whose bytes are changed."""

    def write(folder: Path, sources: Sources) -> Path:
        path = spoken(name, **options)(folder, sources)
        path.write_bytes(make(path.read_bytes()))
        return path

    return write


def bytes_of(name: str, given: bytes) -> Make:
    def write(folder: Path, sources: Sources) -> Path:
        (folder / name).write_bytes(given)
        return folder / name

    return write


def sized(data: bytes, size: int) -> bytes:
    """Set the size that a WAV file states for its samples."""
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size & 0xFFFFFFFF) + data[at + 4 :]


def beginning(data: bytes, share: float) -> bytes:
    return data[: round(share * len(data))]


def film(waveform: Callable[["Sources"], np.ndarray], name: str, **options: Any) -> Make:
    def write(folder: Path, sources: Sources) -> Path:
        pictures = [np.full((48, 64, 3), 100, np.uint8)] * 150
        return write_film(folder / name, pictures, waveform(sources), **options)

    return write


def silent_film(folder: Path, sources: Sources) -> Path:
    return write_video(folder / "silent.mp4", [np.full((48, 64, 3), 100, np.uint8)] * 20)


def timestamps(name: str, start: float, gap: float) -> Make:
    """Return a maker of speech whose times start at `start` and jump by `gap` seconds in the middle."""

    def write(folder: Path, sources: Sources) -> Path:
        waveform = sources.speech()
        with av.open(str(folder / name), "w", options={"avoid_negative_ts": "disabled"}) as container:
            stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
            for packet in sound_packets(stream, waveform[None], rate=RATE, layout="mono"):
                seconds = packet.pts * packet.time_base
                moved = seconds + Fraction(start) + (Fraction(gap) if seconds > 5.5 else 0)
                packet.pts = packet.dts = round(moved / packet.time_base)
                container.mux(packet)
        return folder / name

    return write


def two_tracks(folder: Path, sources: Sources) -> Path:
    with av.open(str(folder / "tracks.mkv"), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream, waveform in zip(streams, (sources.speech(), tone(11.0)), strict=True):
            for packet in sound_packets(stream, waveform[None], rate=RATE, layout="mono"):
                container.mux(packet)
    return folder / "tracks.mkv"


def overlapping(sources: Sources) -> np.ndarray:
    first, *others = (sources.sound(f"data/speech/{name}.flac")[: 20 * RATE] for name in ("dev00", "trn05"))
    return 0.5 * (first + others[0])


def stereo(left: Callable[[np.ndarray], np.ndarray], right: Callable[[np.ndarray], np.ndarray]) -> Make:
    return sound(lambda sources: np.stack([left(sources.speech()), right(sources.speech())]))


def same(waveform: np.ndarray) -> np.ndarray:
    return waveform


NO_SPEECH: dict[str, Dirty] = {
    "silence": Dirty(sound(lambda _: np.zeros(10 * RATE, np.float32))),
    "nearly silence": Dirty(sound(lambda _: noise(10, 1e-4))),
    "a fifth of a second of silence": Dirty(sound(lambda _: np.zeros(RATE // 5, np.float32))),
    "one sample": Dirty(sound(lambda _: np.full(1, 0.5, np.float32))),
    "white noise": Dirty(sound(lambda _: noise(10, 0.3))),
    "pink noise": Dirty(sound(lambda _: noise(10, 0.2, colour=1))),
    "brown noise": Dirty(sound(lambda _: noise(10, 0.2, colour=2))),
    "clipped noise": Dirty(sound(lambda _: (20 * noise(10)).clip(-1, 1))),
    "440 Hz": Dirty(sound(lambda _: tone(10, frequency=440.0))),
    "mains hum": Dirty(sound(lambda _: tone(10, frequency=50.0, level=0.5))),
    "a sweep": Dirty(sound(lambda _: sweep(10))),
    "busy signal": Dirty(sound(lambda _: telephone_tone(10))),
    "music": Dirty(sound(lambda _: music(20))),
    "music with drums": Dirty(sound(lambda _: music(20, drums=True))),
    "music as mp3": Dirty(sound(lambda _: music(20), "music.mp3")),
    "breathing": Dirty(sound(lambda _: breathing(12))),
    "clicks": Dirty(sound(lambda _: clicks(10))),
    "only an offset": Dirty(sound(lambda _: np.full(5 * RATE, 0.5, np.float32))),
    "faint music": Dirty(sound(lambda _: 0.01 * music(20))),
    "faint noise": Dirty(sound(lambda _: noise(10, 0.001, colour=2))),
    "faint hum": Dirty(sound(lambda _: tone(10, frequency=100.0, level=0.002))),
    "faint breathing": Dirty(sound(lambda _: 0.02 * breathing(12))),
    "a film without speech": Dirty(lambda _, sources: sources.data / "fixtures/no_face.mp4"),
}

REFUSED: dict[str, Dirty] = {
    "an empty file": Dirty(bytes_of("a.wav", b""), None, "cannot be read as a recording"),
    "a text": Dirty(bytes_of("a.mp3", b"Ana: hello\n" * 50), None, "a.mp3"),
    "a picture": Dirty(bytes_of("a.png", b"\x89PNG\r\n\x1a\n" + bytes(500)), None, "a.png"),
    "a header only": Dirty(content("a.wav", lambda data: sized(data, 0)[:44]), None, "a.wav"),
    "a piece of a header": Dirty(content("a.wav", lambda data: data[:30]), None, "a.wav"),
    "a film without sound": Dirty(silent_film, None, "expected sound to recognise speech in, found none"),
    "numbers that are none": Dirty(
        sound(lambda _: np.full(RATE, np.nan, np.float32), codec="pcm_f32le"), None, "sound.wav"
    ),
}

SPEECH: dict[str, Dirty] = {
    "one speaker": Dirty(spoken(), 0.9),
    "u-law at 8 kHz": Dirty(spoken(rate=8000, codec="pcm_mulaw"), 0.8),
    "A-law at 8 kHz": Dirty(spoken(rate=8000, codec="pcm_alaw"), 0.8),
    "24 bits": Dirty(spoken(codec="pcm_s24le"), 0.9),
    "8 bits": Dirty(spoken(codec="pcm_u8"), 0.9),
    "floating point": Dirty(spoken(codec="pcm_f32le"), 0.9),
    "11 kHz": Dirty(spoken(rate=11025), 0.9),
    "44.1 kHz": Dirty(spoken(rate=44100), 0.9),
    "96 kHz": Dirty(spoken(rate=96000), 0.9),
    "opus": Dirty(spoken("a.ogg", rate=48000), 0.9),
    "six channels": Dirty(
        sound(lambda sources: np.stack([sources.speech()] * 6), "a.flac", layout="5.1"), 0.9
    ),
    "a dead channel": Dirty(stereo(same, np.zeros_like), 0.9),
    "channels that cancel": Dirty(stereo(same, np.negative), 0.9),
    "a channel of noise": Dirty(stereo(same, lambda waveform: noise(len(waveform) / RATE, 0.02)), 0.7),
    "a late sound": Dirty(film(lambda sources: sources.speech(48000), "late.mp4", late=3.0), 0.9),
    "an early cut": Dirty(content("a.wav", lambda data: beginning(data, 0.6)), 0.5),
    "a cut flac": Dirty(content("a.flac", lambda data: beginning(data, 0.6)), 0.4),
    "a cut mp3": Dirty(content("a.mp3", lambda data: beginning(data, 0.6)), 0.5),
    "an mp3 without its beginning": Dirty(content("a.mp3", lambda data: data[len(data) // 2 :]), 0.3),
    "an mp3 with a hole": Dirty(
        content("a.mp3", lambda data: data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :]),
        0.6,
    ),
    "an mp3 that is called wav": Dirty(
        lambda folder, sources: spoken("a.mp3")(folder, sources).rename(folder / "b.wav"), 0.9
    ),
    "a stated size of 0": Dirty(content("a.wav", lambda data: sized(data, 0)), 0.9),
    "an unknown size": Dirty(content("a.wav", lambda data: sized(data, -1)), 0.9),
    "a stated hour": Dirty(content("a.wav", lambda data: sized(data, 2 * 3600 * RATE)), 0.9),
    "rubbish at the end": Dirty(content("a.wav", lambda data: data + b"\xff\x00rubbish" * 99), 0.9),
    "clipping": Dirty(sound(lambda sources: (8 * sources.speech()).clip(-1, 1)), 0.7),
    "an offset": Dirty(sound(lambda sources: 0.5 * sources.speech() + 0.4), 0.9),
    "very quiet": Dirty(spoken(gain=0.003), 0.7),
    "the band of a telephone": Dirty(
        sound(lambda sources: band(sources.speech(), 300, 3400).astype(np.float32)), 0.8
    ),
    "noise at 10 dB": Dirty(
        sound(lambda sources: sources.speech() + noise(len(sources.speech()) / RATE, 0.03)), 0.7
    ),
    "a hall": Dirty(sound(lambda sources: in_a_hall(sources.speech())), None),
    "whispering": Dirty(sound(lambda sources: whispered(sources.speech())), None),
    "a fifth of a second": Dirty(sound(lambda sources: sources.speech()[RATE : RATE + RATE // 5]), None),
    "negative times": Dirty(timestamps("a.mkv", -2.0, 0.0), 0.9),
    "a gap in the times": Dirty(timestamps("a.mkv", 0.0, 30.0), 0.8),
    "two tracks": Dirty(two_tracks, 0.9),
    "speech after a minute": Dirty(
        sound(lambda sources: np.concatenate([noise(60, 1e-3), sources.speech()])), 0.9
    ),
    "eight speakers": Dirty(sound(lambda sources: np.concatenate(sources.voices()[:8])), None),
    "overlap throughout": Dirty(sound(overlapping), None),
    "three languages": Dirty(lambda _, sources: sources.data / "data/speech/multilingual.mp3", None),
    "a film": Dirty(lambda _, sources: sources.data / "fixtures/talking_face.mp4", None),
}

DIRTY = {**NO_SPEECH, **REFUSED, **SPEECH}
