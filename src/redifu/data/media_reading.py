"""Turn the media of a conversation into features, or into input arrays for backbones."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from redifu.conversation import MEDIA, Conversation, Utterance
from redifu.data.recordings import Report
from redifu.media.decoding import Span
from redifu.media.reading import (
    Reading,
    read_face_crops,
    read_face_descriptors,
    read_spans_of_action_units,
    read_waveforms,
)
from redifu.model import ReDiFuFeatureExtractor
from redifu.model.audio_features import SAMPLING_RATE
from redifu.model.feature_extraction_redifu import BACKBONE

logger = logging.getLogger(__name__)


def read_media(
    conversation: Conversation,
    extractor: ReDiFuFeatureExtractor,
    *,
    streams: Collection[str] = tuple(MEDIA),
    report: Report | None = None,
) -> Conversation:
    """Read the media of a conversation; each medium is read once.

    Args:
        conversation: existing features of a stream are kept.
        extractor: selects the backends.
        streams: the streams to read.
        report: called with the number of utterances read, for each medium.

    Returns:
        The conversation with audio_features and visual_features (for a backbone: audio_values and
        pixel_values, not normalised), `quality`, and in `missing` the reason why a stream with a medium
        has no features.

    Raises:
        ImportError: a package that a backend requires is not installed.
        ValueError: a medium has an unsupported type; names the dialogue and utterance.
    """
    utterances = list(conversation.utterances)
    for stream in [name for name in extractor.backends if name in streams]:
        for medium, turns in turns_by_medium(conversation, stream):
            spans = [utterances[turn].span for turn in turns]
            step = None if report is None else partial(report, f"reading {MEDIA[stream]}")
            try:
                readings = read_spans(extractor, stream, medium, spans, report=step)
            except ValueError as error:
                raise ValueError(f"{conversation.where(turns[0])}: {MEDIA[stream]}: {error}") from None
            for turn, reading in zip(turns, readings, strict=True):
                if reading.values is None:
                    shown = medium if isinstance(medium, str) else MEDIA[stream]
                    where = conversation.where(turn)
                    logger.warning(f"{where}: {stream} is missing: {shown}: {reading.missing}")
                utterances[turn] = with_reading(
                    utterances[turn], stream, reading, key=extractor.raw.get(stream, f"{stream}_features")
                )
    return replace(conversation, utterances=utterances)


def read_spans(
    extractor: ReDiFuFeatureExtractor,
    stream: str,
    medium: Any,
    spans: Sequence[Span],
    *,
    report: Callable[[int, int], None] | None = None,
) -> list[Reading]:
    """Read spans of one medium with the extractor's backend.

    Args:
        extractor: selects the backend and its options.
        stream: "audio" or "visual".
        medium: a path, bytes, an array or a `datasets` value; see `media.reading`.
        spans: in any order; they may overlap.
        report: called with the number of spans read, and of all spans.

    Returns:
        One reading per span; its values are the backend's features.

    Raises:
        ImportError: a package that the backend requires is not installed.
        ValueError: the medium has an unsupported type.
    """
    readings: Iterator[tuple[int, Reading]]
    backend, detector = extractor.backends[stream], extractor.face_detector
    if stream == "audio":
        heard = read_waveforms(medium, spans, sampling_rate=SAMPLING_RATE)
        readings = ((number, _described(reading, extractor)) for number, reading in heard)
    elif backend == "action_units":
        readings = read_spans_of_action_units(medium, spans)
    elif backend == BACKBONE:
        count, size = extractor.picture_count, extractor.picture_size
        readings = read_face_crops(medium, spans, count=count, size=size, face_detector=detector)
    else:
        readings = read_face_descriptors(medium, spans, face_detector=detector)
    found = {}
    for number, reading in readings:
        found[number] = reading
        if report is not None:
            report(len(found), len(spans))
    return [found[number] for number in range(len(spans))]


def turns_by_medium(conversation: Conversation, stream: str) -> list[tuple[Any, list[int]]]:
    """Group turns that share a medium: paths by name, other media by object identity."""
    groups: dict[Any, tuple[Any, list[int]]] = {}
    for turn, utterance in enumerate(conversation.utterances):
        if (medium := conversation.medium_of(utterance, stream)) is not None:
            key = medium if isinstance(medium, str) else id(medium)
            groups.setdefault(key, (medium, []))[1].append(turn)
    return list(groups.values())


def with_reading(utterance: Utterance, stream: str, reading: Reading, *, key: str) -> Utterance:
    """Return the utterance with the reading of a stream added and its values stored under `key`."""
    quality = {**utterance.quality, stream: dict(reading.quality)} if reading.quality else utterance.quality
    if reading.values is None:
        missing = {**utterance.missing, stream: str(reading.missing)}
        return replace(utterance, quality=quality, missing=missing)
    return utterance.with_fields(quality=quality, **{key: reading.values})


def _described(reading: Reading, extractor: ReDiFuFeatureExtractor) -> Reading:
    if reading.values is None:
        return reading
    return replace(reading, values=extractor.describe_sound(reading.values))
