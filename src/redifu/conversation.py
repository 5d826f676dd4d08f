"""Conversations, utterances and predictions: the only place that validates user input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from redifu.conversation_values import (
    checked_channel,
    checked_features,
    checked_span,
    checked_string,
    normal_speaker,
    readings,
    recognised,
    shown,
    shown_names,
)
from redifu.media.decoding import Span

# The key of an utterance that holds the medium of a stream.
MEDIA = {"audio": "audio", "visual": "video"}
FEATURES = ("text_features", "audio_features", "visual_features")
# The inputs to recognise an utterance from; one is enough.
STREAMS = ("text", "audio", "video", *FEATURES)
_INPUTS = ("speaker", "label", *STREAMS, "audio_values", "pixel_values")
MOST_SPEAKERS = 1_000  # in a conversation


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What one speaker says in one turn; only the speaker is required in every utterance.

    Attributes:
        speaker: the name in normal form, so that one name in several spellings is one speaker: Unicode's NFC,
            single spaces, no invisible marks; `given` holds it as written.
        text: the words, or None.
        audio: a path, the bytes of a file, {"array", "sampling_rate"} or a value of a datasets column.
        video: a path, the bytes of a file, {"frames", "frames_per_second"} or a value of a datasets column.
        start: seconds from the start of the medium.
        end: seconds, or None for the end of the medium.
        audio_channel: the channel of the sound in which the speaker is heard, from 1; None is their mean.
        label: the true emotion.
        words: {"word", "start", "end", "probability"} of each recognised word, in seconds and from 0 to 1.
        text_confidence: how sure speech recognition was of the text, 0 to 1.
        overlap: share of the turn in which somebody else speaks, 0 to 1.
        text_features: (size,) float32.
        audio_features: (size,) float32.
        visual_features: (size,) float32.
        audio_values: (samples,) float32, the waveform that an audio backbone reads.
        pixel_values: (pictures, height, width, 3) uint8, the face crops that a visual backbone reads.
        quality: measures of `media.quality.QUALITY` by stream.
        missing: why a stream that has a medium cannot be used, by stream.
        given: the original JSON object; unknown keys are returned with predictions.
    """

    speaker: str
    text: str | None = None
    audio: Any = None
    video: Any = None
    start: float | None = None
    end: float | None = None
    audio_channel: int | None = None
    label: str | None = None
    words: Sequence[Mapping[str, Any]] | None = None
    text_confidence: float | None = None
    overlap: float | None = None
    text_features: np.ndarray | None = None
    audio_features: np.ndarray | None = None
    visual_features: np.ndarray | None = None
    audio_values: np.ndarray | None = None
    pixel_values: np.ndarray | None = None
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(cls, value: Any, *, allow_media_objects: bool = False) -> "Utterance":
        """Validate one utterance, {"speaker": str, "text"?: str, ...}.

        Args:
            value: a JSON object; None means absent, and unknown keys are kept in `given`.
            allow_media_objects: whether audio and video may be other than paths.

        Raises:
            ValueError: the first invalid field, by name.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"expected an object, got {shown(value)}")
        fields: dict[str, Any] = {"speaker": normal_speaker(value.get("speaker"))}
        text = value.get("text")
        # Real transcripts contain empty lines: with another stream, an empty text just counts as missing.
        if text is not None and not (isinstance(text, str) and not text.strip()):
            fields["text"] = checked_string("text", text)
        for name in MEDIA.values():
            if (medium := value.get(name)) is not None:
                plain = isinstance(medium, str) or not allow_media_objects
                fields[name] = checked_string(name, medium) if plain else medium
        for name in FEATURES:
            if (features := value.get(name)) is not None:
                fields[name] = checked_features(name, features)
        if len(fields) == 1:
            raise ValueError(f"expected at least one of {', '.join(STREAMS)}; got none")
        if (label := value.get("label")) is not None:
            fields["label"] = checked_string("label", label)
        if (channel := value.get("audio_channel")) is not None:
            fields["audio_channel"] = checked_channel(channel)
        fields |= recognised(value)
        return cls(**fields, **checked_span(value), **readings(value), given=value)

    @property
    def span(self) -> Span:
        """The part of the media that contains the utterance."""
        channel = None if self.audio_channel is None else self.audio_channel - 1
        return Span(start=self.start or 0.0, end=self.end, channel=channel)

    def with_fields(self, **fields: Any) -> "Utterance":
        """Return a copy with changed fields, for computation only; its JSON is unchanged."""
        return replace(self, **fields)

    def changed(self, **fields: Any) -> "Utterance":
        """Return a copy with changed fields, which also change its JSON."""
        return replace(self, **fields, given={**self.given, **fields})

    def to_inputs(self) -> dict[str, Any]:
        """Return the processor's inputs by name: speaker, label, content and arrays."""
        return {name: value for name in _INPUTS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Utterances in spoken order.

    Attributes:
        id: the name.
        utterances: at least one.
        folder: base of relative media paths.
        speakers: speakers of the whole dialogue in order of appearance; () means those of `utterances`.
        columns: columns of the table it was read from that a table of its predictions repeats.
        given: the original JSON object; `utterances` replace its own when it is written.
    """

    id: str
    utterances: Sequence[Utterance]
    folder: Path = Path()
    speakers: Sequence[str] = ()
    columns: Sequence[str] = field(default=(), repr=False, compare=False)
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(
        cls,
        value: Any,
        *,
        source: str = "conversation",
        index: int = 0,
        line: int | None = None,
        folder: str | Path = "",
        allow_media_objects: bool = False,
    ) -> "Conversation":
        """Validate one conversation.

        Args:
            value: {"id"?: str, "utterances": [{"speaker": str, "text"?: str, ...}, ...]}; `start` and `end`
                are seconds, features are lists of numbers; None means absent; other keys are kept.
            source: the file name, used in errors.
            index: index in the file from 0; a missing id becomes "STEM-INDEX", where STEM is the file name
                without its extension.
            line: line number in the file, used in errors.
            folder: base of relative media paths.
            allow_media_objects: whether audio and video may be bytes, arrays or `datasets` values instead
                of paths.

        Raises:
            ValueError: the first mistake, with the file, dialogue and utterance (counted from 0).
        """
        place = source if line is None else f"{source}: line {line}"
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: conversation {index}: expected an object, got {shown(value)}")
        name = value.get("id")
        try:
            name = f"{Path(source).stem}-{index}" if name is None else checked_string("id", name)
        except ValueError as error:
            raise ValueError(f"{place}: conversation {index}: {error}") from None
        where = f"{place}: dialogue {shown_names([name])}"
        given = value.get("utterances")
        if not isinstance(given, list | tuple) or not given:
            raise ValueError(f"{where}: expected a non-empty list of utterances, got {shown(given)}")
        utterances = []
        for turn, utterance in enumerate(given):
            try:
                utterances.append(Utterance.from_dict(utterance, allow_media_objects=allow_media_objects))
            except ValueError as error:
                raise ValueError(f"{where}, utterance {turn}: {error}") from None
        if (number := len({utterance.speaker for utterance in utterances})) > MOST_SPEAKERS:
            raise ValueError(f"{where}: expected at most {MOST_SPEAKERS:,} speakers, got {number:,}")
        return cls(id=name, utterances=utterances, folder=Path(folder), given={**value, "id": name})

    @property
    def split(self) -> str | None:
        """The split named in the file, or None."""
        split = self.given.get("split")
        return None if split is None else str(split)

    @property
    def turns(self) -> Sequence[int]:
        """The numbers of the utterances: their own key "turn" if these differ, else 0, 1, ..."""
        given = [utterance.given.get("turn") for utterance in self.utterances]
        own = [turn for turn in given if isinstance(turn, int) and not isinstance(turn, bool)]
        return own if len(set(own)) == len(given) else range(len(given))

    def where(self, turn: int) -> str:
        """Return the dialogue and utterance for use in a message."""
        return f"dialogue {self.id}, utterance {turn}"

    def medium_of(self, utterance: Utterance, stream: str) -> Any:
        """Return the medium to read for a stream, or None.

        Streams that already have features, or were read and found missing, are not read again.
        """
        medium = getattr(utterance, MEDIA[stream])
        raw = utterance.audio_values if stream == "audio" else utterance.pixel_values
        ready = raw is not None or getattr(utterance, f"{stream}_features") is not None
        if medium is None or ready or utterance.missing.get(stream):
            return None
        return str(self.folder / medium) if isinstance(medium, str) else medium

    def pieces(self, most: int) -> "list[tuple[Conversation, slice]]":
        """Split a dialogue with more than `most` utterances into pieces with context on both sides.

        Returns:
            Pieces, each with the slice of its utterances to use; together, the slices cover every utterance
            exactly once, in order. Speakers keep their numbers in every piece.
        """
        length = len(self.utterances)
        if length <= most:
            return [(self, slice(0, length))]
        speakers = tuple(dict.fromkeys(utterance.speaker for utterance in self.utterances))
        counted = max(most // 2, 1)
        context = (most - counted) // 2
        pieces = []
        for start in range(0, length, counted):
            first, last = max(start - context, 0), start + counted + context
            keep = slice(start - first, min(start + counted, length) - first)
            pieces.append((replace(self, utterances=self.utterances[first:last], speakers=speakers), keep))
        return pieces

    def to_inputs(self) -> dict[str, Any]:
        """Return the processor's inputs."""
        utterances = [utterance.to_inputs() for utterance in self.utterances]
        return {"id": self.id, "speakers": list(self.speakers), "utterances": utterances}

    def to_dict(self) -> dict[str, Any]:
        """Return the conversation as a JSON object."""
        return {**self.given, "utterances": [dict(utterance.given) for utterance in self.utterances]}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """A model's prediction for one utterance.

    Attributes:
        turn: index of the utterance in its dialogue, from 0.
        speaker: the name of the speaker, as it was written.
        text: the words, or None.
        start: seconds, or None if unknown.
        end: seconds, or None if unknown.
        labels: names of the emotions.
        probabilities: (labels,) float32, calibrated; NaN if the model cannot use any stream of the utterance.
        reliability: how much the model trusted each stream it read, 0 to 1; None if it does not estimate it.
        reasons: why the utterance cannot be judged, or not well, in words; see `inference.reasons`.
        unsure: whether the model abstains: `emotion` is None, and the probabilities are kept.
        explanation: see `inference.explanation`; None unless requested.
    """

    turn: int
    speaker: str
    text: str | None
    start: float | None
    end: float | None
    labels: Sequence[str]
    probabilities: np.ndarray
    reliability: Mapping[str, float] | None = None
    reasons: Sequence[str] = ()
    unsure: bool = False
    explanation: Mapping[str, Any] | None = None

    @property
    def emotion(self) -> str | None:
        """The most probable label; None if the model is unsure or cannot use any stream of the utterance."""
        unknown = self.unsure or self.probability is None
        return None if unknown else self.labels[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float | None:
        """The highest probability, or None if the model cannot use any stream of the utterance."""
        return None if np.isnan(self.probabilities).any() else shortest(self.probabilities.max())

    @property
    def scores(self) -> dict[str, float] | None:
        """The probability of each label, or None if the model cannot use any stream of the utterance."""
        if self.probability is None:
            return None
        return dict(zip(self.labels, map(shortest, self.probabilities), strict=True))


def shortest(value: Any) -> float:
    """Return the float with the shortest decimal form of the same float32, which prints without noise."""
    return float(str(np.float32(value)))
