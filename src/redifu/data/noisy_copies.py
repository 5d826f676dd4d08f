"""Copies of conversations with noise added to their audio, for training."""

import logging
import wave
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from redifu.atomic_files import replacing
from redifu.conversation import Conversation, Utterance
from redifu.data.media_reading import turns_by_medium
from redifu.data.recordings import relative_path, relocated
from redifu.data.writers import write_conversations
from redifu.media.noise import BABBLE_VOICES, babble_noise, record_in_noise, white_noise
from redifu.media.reading import read_waveforms
from redifu.model.audio_features import SAMPLING_RATE

logger = logging.getLogger(__name__)

CONVERSATIONS, SOUNDS = "conversations.jsonl", "sounds"
# Babble draws from this many previous utterances, at most this many seconds of each.
VOICES, VOICE_SECONDS = 64, 30


def write_noisy_copies(
    conversations: Iterable[Conversation],
    output: str | Path,
    *,
    snr: tuple[float, float],
    seed: int = 0,
) -> Path:
    """Write copies of conversations with noise added to their audio.

    Each dialogue gets one kind of noise, white noise or a babble of voices from previous utterances (white
    noise until there are enough voices), and one signal-to-noise ratio, both drawn uniformly. OUTPUT gets
    conversations.jsonl and sounds/, with one 16-bit 16 kHz WAV file per audio file of a dialogue. Utterances
    keep their start and end, and the file is silent between them. Existing audio features are removed;
    everything else is unchanged.

    Args:
        conversations: see `read_conversations`.
        output: a folder, created if it does not exist.
        snr: lowest and highest signal-to-noise ratio in dB, measured over an utterance.
        seed: seed of the random draws.

    Returns:
        The path of conversations.jsonl. Unreadable audio is left unchanged, with a warning.

    Raises:
        ImportError: PyAV is not installed (extra `media`).
        OSError: the output cannot be written.
        ValueError: `snr` is not a range within -100 to 100 dB, no audio can be read, or the conversations
            are in OUTPUT, where they might be overwritten.
    """
    low, high = snr
    if not -100 <= low <= high <= 100:
        raise ValueError(f"snr must be two ratios from -100 to 100 dB, the lower first, got {low:g} {high:g}")
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    copies = _noisy_copies(conversations, output, snr=snr, seed=seed)
    write_conversations(output / CONVERSATIONS, copies)
    return output / CONVERSATIONS


def _noisy_copies(
    conversations: Iterable[Conversation], output: Path, *, snr: tuple[float, float], seed: int
) -> Iterator[Conversation]:
    """Write the audio of each conversation and yield its copy."""
    voices: deque[np.ndarray] = deque(maxlen=VOICES)
    written = 0
    for number, conversation in enumerate(conversations):
        named = any(
            isinstance(one.audio, str) or isinstance(one.video, str) for one in conversation.utterances
        )
        if named and conversation.folder.resolve() == output.resolve():
            raise ValueError(f"{output}: output must not be the folder of the conversations")
        generator = np.random.default_rng((seed, zlib.crc32(conversation.id.encode())))
        make = (white_noise, babble_noise)[generator.integers(2)]
        level = generator.uniform(*snr)
        utterances = [relocated(conversation, one, output) for one in conversation.utterances]
        for place, sounds in enumerate(_sounds_of(conversation)):
            path = output / SOUNDS / f"{number:06}-{place:03}.wav"
            noisy = []
            for turn, start, sound in sounds:
                kind = make if len(voices) >= BABBLE_VOICES else white_noise
                noise = kind([sound, *voices], 0, length=len(sound), generator=generator)
                noisy.append((start, record_in_noise(sound, noise, level=level)))
                utterances[turn] = _unread(utterances[turn]).changed(audio=relative_path(path, output))
                if (voice := sound[: VOICE_SECONDS * SAMPLING_RATE]).any():
                    voices.append(voice)
            _write_wave(path, noisy)
            written += 1
        yield replace(conversation, utterances=utterances, folder=output)
    if not written:
        raise ValueError("expected at least one utterance with readable audio, got none")


def _sounds_of(conversation: Conversation) -> Iterator[list[tuple[int, int, np.ndarray]]]:
    """Yield turn, first sample and waveform of the readable utterances of each audio file."""
    unread = replace(conversation, utterances=[_unread(one) for one in conversation.utterances])
    for medium, turns in turns_by_medium(unread, "audio"):
        spans = [conversation.utterances[turn].span for turn in turns]
        readings = dict(read_waveforms(medium, spans, sampling_rate=SAMPLING_RATE))
        sounds = []
        for number, (turn, span) in enumerate(zip(turns, spans, strict=True)):
            if (waveform := readings[number].values) is None:
                reason = readings[number].missing
                logger.warning(f"{conversation.where(turn)}: audio left unchanged: {medium}: {reason}")
            else:
                sounds.append((turn, round(span.start * SAMPLING_RATE), waveform))
        # A copy is mono, so that the speakers of several channels do not lie over each other.
        for channel in dict.fromkeys(conversation.utterances[turn].audio_channel for turn, _, _ in sounds):
            yield [each for each in sounds if conversation.utterances[each[0]].audio_channel == channel]


def _unread(utterance: Utterance) -> Utterance:
    """Return the utterance without values read from its audio."""
    given = {
        key: value
        for key, value in utterance.given.items()
        if key not in ("audio_features", "audio_quality", "audio_channel")
    }
    return replace(utterance, audio_features=None, audio_values=None, audio_channel=None, given=given)


def _write_wave(path: Path, parts: Sequence[tuple[int, np.ndarray]]) -> None:
    samples = np.zeros(max(start + len(part) for start, part in parts), dtype="<i2")
    for start, part in parts:
        samples[start : start + len(part)] = np.round(part * np.iinfo(np.int16).max)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(samples.itemsize)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(samples.tobytes())
