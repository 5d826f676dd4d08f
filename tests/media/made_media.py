"""Small media files for tests, written with PyAV."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def tone(seconds: float, *, rate: int = 16000, frequency: float = 220.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def write_sound(
    path: Path,
    waveform: np.ndarray,
    *,
    rate: int = 16000,
    codec: str | None = None,
    layout: str | None = None,
    late: float = 0.0,
) -> Path:
    """Write (samples,) or (channels, samples) float as sound; the ending of the name chooses the format.

    The sound begins `late` seconds after time 0, where the format can tell.
    """
    codecs = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "mp3", ".ogg": "libopus"}
    planes = np.atleast_2d(waveform)
    with av.open(str(path), "w") as container:
        layout = layout or ("mono" if len(planes) == 1 else "stereo")
        codec = codec or codecs[path.suffix]
        coded = 48000 if codec == "libopus" else rate  # which Opus knows
        stream = container.add_stream(codec, rate=coded, layout=layout)
        for packet in sound_packets(stream, planes, rate=rate, layout=layout, late=late):
            container.mux(packet)
    return path


def sound_packets(
    stream: av.AudioStream, planes: np.ndarray, *, rate: int, layout: str, late: float = 0.0
) -> Iterator[av.Packet]:
    """Encode (channels, samples) float."""
    # Packed, because PyAV reads beyond the end of 8 or more planes.
    packed = np.ascontiguousarray(planes.T, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate)
    fifo = av.AudioFifo()
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        if part is not None:
            fifo.write(part)
    size = stream.codec_context.frame_size or 1024
    place = round(late * stream.rate)
    while (part := fifo.read(size)) or (part := fifo.read(size, partial=True)):
        part.pts, part.time_base = place, Fraction(1, stream.rate)
        place += part.samples
        yield from stream.encode(part)
    yield from stream.encode(None)


def write_video(
    path: Path,
    pictures: list[np.ndarray],
    *,
    times: list[float] | None = None,
    rate: int = 10,
    codec: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write pictures (height, width, 3) uint8, shown from `times` (seconds) on, else `rate` a second."""
    codecs = {".mp4": "mpeg4", ".mov": "mpeg4", ".mkv": "ffv1", ".avi": "mpeg4", ".webm": "libvpx"}
    times = times or [index / rate for index in range(len(pictures))]
    with av.open(str(path), "w") as container:
        coded = 1000 if path.suffix == ".mkv" else rate
        stream = container.add_stream(codec or codecs[path.suffix], rate=coded, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if path.suffix == ".mkv" else Fraction(1, rate)
        for picture, seconds in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(seconds / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_film(
    path: Path,
    pictures: list[np.ndarray],
    waveform: np.ndarray,
    *,
    rate: int = 10,
    times: list[float] | None = None,
    late: float = 0.0,
    video_codec: str = "mpeg4",
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
) -> Path:
    """Write pictures and a mono sound at 48 kHz that begins `late` seconds after time 0."""
    times = times or [index / rate for index in range(len(pictures))]
    with av.open(str(path), "w", options=options or {}) as container:
        seen = container.add_stream(video_codec, rate=rate)
        seen.height, seen.width = pictures[0].shape[:2]
        seen.pix_fmt = "yuv420p"
        base = Fraction(1, rate if video_codec == "mpeg2video" else 1000)
        seen.codec_context.time_base = base
        heard = container.add_stream(sound_codec, rate=48000, layout="mono")
        packets = []
        for picture, seconds in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(seconds / base), base
            packets += seen.encode(frame)
        packets += seen.encode(None)
        planes = np.atleast_2d(waveform)
        packets += sound_packets(heard, planes, rate=48000, layout="mono", late=late)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    return path


def turn_mp4(path: Path) -> Path:
    """Set the matrix of the first track of an mp4 file to a quarter turn clockwise."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert content[place : place + 36] == upright
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
