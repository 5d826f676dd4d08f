"""Open media files safely, choose their streams and decode them."""

import io
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redifu.optional_packages import optional_package

logger = logging.getLogger(__name__)

# Limits on the work that an untrusted file can cause.
LARGEST_PICTURE = 8192  # pixels per side
MOST_CHANNELS = 64  # which FFmpeg can resample
DECODING_LIMIT = 1800.0  # seconds of work per file
# The names of FFmpeg's readers that are used. None of them opens a second file or the network, as readers of
# playlists (hls, dash, concat), of numbered pictures (image2) and of devices do.
FORMATS = (
    "3gp aac aax ac3 ac4 acm act adx aea aiff alaw amr amrnb amrwb apac ape apm aptx aptx_hd asf asf_o "
    "ast au av1 avi avr bonk caf cavsvideo codec2 daud dfpwm dirac dnxhd dsf dss dts dtshd dv eac3 epaf "
    "evc flac flv g722 g723_1 g726 g726le g729 gif gsm gxf h261 h263 h264 hevc iamf iff ilbc ircam ivf "
    "kux lc3 live_flv loas m4v matroska mjpeg mlp mmf mov mp3 mp4 mpc mpc8 mpeg mpegts mpegvideo mpjpeg "
    "mulaw mxf nistsphere nsv nut nuv obu ogg oma paf pva pvf qcp qoa rm rso sbc shn sln smjpeg sol sox "
    "svs swf tak truehd tta ty vc1 vc1test vivo voc vqf vvc w64 wav wavarc webm wsd wtv wv xa "
    "yuv4mpegpipe"
)


class MediaError(ValueError):
    """A medium lacks a stream or a span of it; the message says why."""


class UnreadableMediumError(MediaError):
    """A file cannot be opened or decoded."""


def opened(source: str | Path | bytes) -> Any:
    """Open a medium as a container of PyAV.

    A path is the name of a file, never a URL. Nothing but this file is opened, whatever it holds.

    Raises:
        ImportError: PyAV is not installed.
        UnreadableMediumError: the medium is not a regular file of a known format.
    """
    av = pyav()
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS.replace(" ", ",")}
    try:
        if isinstance(source, bytes):
            file: Any = io.BytesIO(source)
        elif not stat.S_ISREG(os.stat(source).st_mode):
            # Opening a pipe would wait for its writer, and a device may never end.
            raise IsADirectoryError("Is a directory" if os.path.isdir(source) else "Not a regular file")
        else:
            file = f"file:{source}"
        # Tags in an old encoding do not affect the streams.
        return av.open(file, timeout=DECODING_LIMIT, metadata_errors="ignore", container_options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableMediumError(f"cannot be opened: {reason}") from None


def decoded(source: str | Path | bytes, kind: str) -> Iterator[tuple[float | None, Any]]:
    """Decode one kind of stream; yield the time of each frame in seconds (None if unknown) and the frame."""
    av = pyav()
    with opened(source) as container:
        stream = chosen_stream(container, kind)
        beginning = (container.start_time or 0) / av.time_base
        frames = container.decode(stream)
        worked = 0.0
        while True:
            started = time.monotonic()
            try:
                frame = next(frames, None)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UnreadableMediumError(f"cannot be decoded: {reason}") from None
            worked += time.monotonic() - started
            if frame is None:
                return
            if worked > DECODING_LIMIT:
                raise UnreadableMediumError(f"decoding took longer than {DECODING_LIMIT:g} s")
            yield None if frame.time is None else frame.time - beginning, frame


def streams_of(container: Any, kind: str) -> list[Any]:
    """Return the "audio" or "video" streams of an open container, without cover images."""
    cover = pyav().stream.Disposition.attached_pic
    return [one for one in getattr(container.streams, kind) if not one.disposition & cover]


def chosen_stream(container: Any, kind: str) -> Any:
    """Return the stream to decode.

    Raises:
        MediaError: there is none, or it has too large pictures or too many channels.
    """
    streams = streams_of(container, kind)
    if not streams:
        raise MediaError(f"there is no {kind} stream")
    if kind == "video":
        check_size(streams[0].codec_context)
    elif (channels := streams[0].codec_context.channels) > MOST_CHANNELS:
        raise MediaError(f"sound has {channels} channels: the limit is {MOST_CHANNELS}")
    return streams[0]


def check_size(picture: Any) -> None:
    """Raise a MediaError if a frame or codec context is larger than LARGEST_PICTURE."""
    if max(picture.width, picture.height) > LARGEST_PICTURE:
        size = f"{picture.width} x {picture.height}"
        raise MediaError(f"video is {size} pixels: the limit is {LARGEST_PICTURE} per side")


def pyav() -> Any:
    """Import av, which is optional.

    Raises:
        ImportError: PyAV is not installed.
    """
    return optional_package("av", extra="media")
