"""Open media files safely, choose their streams and decode them."""

import io
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from redifu.media.timestamps import continuous
from redifu.optional_packages import optional_package

logger = logging.getLogger(__name__)

# Limits on the work that an untrusted file can cause.
LARGEST_PICTURE = 8192  # pixels per side
MOST_CHANNELS = 64  # which FFmpeg can resample
DECODING_LIMIT = 1800.0  # seconds of work per file
USUAL_RATE = 25  # pictures per second, if a raw stream does not tell
# Formats whose duration FFmpeg guesses from the size of the file.
GUESSED = (
    *("aac", "ac3", "adx", "amr", "amrnb", "amrwb", "dts", "dtshd", "eac3", "g722", "g726", "g729", "gsm"),
    *("h264", "hevc", "loas", "m4v", "mlp", "mp3", "mpegvideo", "sbc", "truehd"),
)
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


class Recording(NamedTuple):
    """The streams of a media file.

    Attributes:
        has_audio: whether the file has audio.
        has_video: whether the file has video; cover images do not count.
        duration: seconds, or None if there are no timestamps.
    """

    has_audio: bool
    has_video: bool
    duration: float | None


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
        if isinstance(error, av.ArgumentError):  # which FFmpeg says of formats that are not in FORMATS
            raise UnreadableMediumError("expected an audio or video stream, found neither") from None
        raise UnreadableMediumError(f"cannot be opened: {reason}") from None


def recording_in(source: str | Path, *, measured: bool = False) -> Recording:
    """Find the streams and the duration of a media file without decoding it.

    Args:
        source: a path.
        measured: whether to read all packets to find the duration, instead of believing the file's header.
            This is always done for formats without one.

    Raises:
        ImportError: PyAV is not installed.
        MediaError: the file cannot be opened, or has neither audio nor video.
    """
    av = pyav()
    with opened(source) as container:
        has_audio, has_video = (bool(streams_of(container, kind)) for kind in ("audio", "video"))
        if not has_audio and not has_video:
            raise MediaError("expected an audio or video stream, found neither")
        if measured or container.duration is None or container.format.name in GUESSED:
            return Recording(has_audio, has_video, _measured_duration(container))
        return Recording(has_audio, has_video, float(container.duration / av.time_base))


def _measured_duration(container: Any) -> float | None:
    """Return the end of the last packet of an open container in seconds, or None without timestamps."""
    av = pyav()
    beginning = (container.start_time or 0) / av.time_base
    streams = [*streams_of(container, "audio"), *streams_of(container, "video")]
    end = None
    with suppress(av.FFmpegError):
        for packet in continuous(container.demux(streams), container.format.name):
            if packet.pts is not None:
                stops = float((packet.pts + (packet.duration or 0)) * packet.time_base) - beginning
                end = stops if end is None else max(end, stops)
    return end


def decoded(source: str | Path | bytes, kind: str) -> Iterator[tuple[float | None, Any]]:
    """Decode one kind of stream.

    Damaged packets are left out. If nothing could be decoded after them, the error is raised at the end.

    Yields:
        The time of each frame in seconds since the start of the medium (None for sound without timestamps),
        and the frame.

    Raises:
        ImportError: PyAV is not installed.
        MediaError: the medium cannot be opened or decoded, or has no such stream.
    """
    av = pyav()
    with opened(source) as container:
        stream = chosen_stream(container, kind)
        _note_tracks(source, container, stream)
        beginning = None if container.start_time is None else container.start_time / av.time_base
        # The timestamps of other streams tell how far a part of the file reaches.
        streams = [*streams_of(container, "audio"), *streams_of(container, "video")]
        packets = continuous(container.demux(streams), container.format.name)
        following = 0.0
        try:
            for frame in _limited(_frames(packets, stream, in_order=container.format.name == "avi")):
                seconds = frame.time
                if seconds is not None:
                    beginning = seconds if beginning is None else beginning
                    seconds -= beginning
                if kind == "video":
                    check_size(frame)
                    seconds = following if seconds is None else seconds  # raw streams have no timestamps
                    following = seconds + float(1 / (stream.guessed_rate or USUAL_RATE))
                # To microseconds, which hides floating-point error.
                seconds = None if seconds is None else round(seconds, 6)
                yield seconds, frame
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise UnreadableMediumError(f"cannot be decoded: {reason}") from None


def _frames(packets: Iterable[Any], stream: Any, *, in_order: bool) -> Iterator[Any]:
    """Decode the packets of one stream.

    Args:
        packets: packets of all streams.
        stream: the stream to decode.
        in_order: whether the pictures of the stream are shown in the order of its packets' times; AVI stores
            no others, and FFmpeg's guess is some pictures off.
    """
    failure = None
    waiting: deque[int | None] = deque()
    for packet in packets:
        if packet.stream_index != stream.index:
            continue
        try:
            frames = packet.decode()
        except (pyav().FFmpegError, ValueError) as error:
            failure = error
            continue
        if in_order and packet.size:
            waiting.append(packet.dts)
        for frame in frames:
            failure = None
            if in_order and waiting and stream.type == "video":
                frame.pts = waiting.popleft()
            yield frame
    if failure is not None:
        raise failure


def _limited(frames: Iterator[Any]) -> Iterator[Any]:
    """Yield frames as long as decoding them takes no longer than DECODING_LIMIT."""
    worked, started = 0.0, time.monotonic()
    for frame in frames:
        worked += time.monotonic() - started
        if worked > DECODING_LIMIT:
            raise UnreadableMediumError(f"decoding took longer than {DECODING_LIMIT:g} s")
        yield frame
        started = time.monotonic()


def streams_of(container: Any, kind: str) -> list[Any]:
    """Return the "audio" or "video" streams of an open container, without cover images."""
    cover = pyav().stream.Disposition.attached_pic
    return [one for one in getattr(container.streams, kind) if not one.disposition & cover]


def chosen_stream(container: Any, kind: str) -> Any:
    """Return the stream to decode: the one that the container marks as default, or else the first.

    Raises:
        MediaError: there is none, it has too large pictures or too many channels, or FFmpeg has no decoder.
    """
    streams = streams_of(container, kind)
    if not streams:
        raise MediaError(f"there is no {kind} stream")
    default = pyav().stream.Disposition.default
    stream = next((one for one in streams if one.disposition & default), streams[0])
    if stream.codec_context is None:
        raise MediaError(f"FFmpeg has no decoder for the {kind} stream")
    if kind == "video":
        check_size(stream.codec_context)
    elif (channels := _counted_channels(stream.codec_context)) > MOST_CHANNELS:
        raise MediaError(f"sound has {channels} channels: the limit is {MOST_CHANNELS}")
    return stream


def _note_tracks(source: str | Path | bytes, container: Any, stream: Any) -> None:
    """Warn about streams of the same kind that are not used."""
    tracks = streams_of(container, stream.type)
    if len(tracks) > 1:
        names = [track.metadata.get("title", f"{number}") for number, track in enumerate(tracks, start=1)]
        used = names.pop([track.index for track in tracks].index(stream.index))
        place = "" if isinstance(source, bytes) else f"{source}: "
        logger.warning(
            f"{place}{stream.type} track {used!r} is used, and left out: {', '.join(map(repr, names))}"
        )


def _counted_channels(context: Any) -> int:
    """Return the number of channels, and forget which loudspeaker each of them is for.

    PyAV would free unusual layouts twice. Call it once, before anything else reads the layout.
    """
    layout = context.layout
    if count := int(layout.nb_channels):
        # While `layout` lives, so that the context never holds what has been freed.
        context.layout = f"{count} channels"
    return count


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
