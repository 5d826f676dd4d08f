"""Reasons why an utterance cannot be judged, or not well."""

from collections.abc import Mapping, Sequence

from redifu.conversation import Utterance

TOO_SHORT, OVERLAPPED, NOISY, NO_WORDS = "too short", "overlapped", "noisy", "no words"
NO_STREAM, NOT_SURE = "no usable stream", "not sure"
# People speak four to five syllables a second; this leaves two to hear an emotion in.
SHORTEST_SECONDS = 0.5
# Above this, the speaker is heard alone for less than half of the turn.
MOST_OVERLAP = 0.5
# `media.quality.audio_quality` estimates 4 to 8 dB for speech in white noise of the same power, and above
# 20 dB for meetings and studios. A model that was not trained in such noise is better without the sound.
LEAST_SNR = 8.0
UNLIKE = {
    "audio": "does not sound like the speaker's other utterances",
    "visual": "does not look like the speaker's other utterances",
}


def reasons_of(utterance: Utterance, streams: Sequence[str], *, unlike: Sequence[str] = ()) -> list[str]:
    """Return why the model may misjudge an utterance, most general first; empty if nothing is known.

    Args:
        utterance: with its media read.
        streams: the streams that the model reads: "text", "audio" or "visual".
        unlike: the streams of the utterance that do not fit the speaker.

    Returns:
        "too short" (below 0.5 s), "overlapped" (somebody else speaks in more than half of it), "noisy" (a
        signal-to-noise ratio below 8 dB; only if the model reads audio), "no words" (only if it reads text),
        and "STREAM: WHY" for each stream that cannot be used.
    """
    sound = utterance.quality.get("audio", {})
    seconds = sound.get("duration")
    if utterance.start is not None and utterance.end is not None:
        seconds = utterance.end - utterance.start
    overlap = getattr(utterance, "overlap", None)
    known = {
        TOO_SHORT: seconds is not None and seconds < SHORTEST_SECONDS,
        OVERLAPPED: overlap is not None and overlap > MOST_OVERLAP,
        NOISY: "audio" in streams and sound.get("snr", LEAST_SNR) < LEAST_SNR,
        NO_WORDS: "text" in streams and utterance.text is None and utterance.text_features is None,
    }
    missing = missing_of(utterance, unlike).items()
    return [
        *(reason for reason, holds in known.items() if holds),
        *(f"{stream}: {why}" for stream, why in missing if stream in streams),
    ]


def missing_of(utterance: Utterance, unlike: Sequence[str] = ()) -> Mapping[str, str]:
    """Return why streams that have a medium are not used, by stream; `unlike` do not fit the speaker."""
    return {**utterance.missing, **{stream: UNLIKE[stream] for stream in unlike}}
