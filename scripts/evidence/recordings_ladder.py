"""Measures what each step from a recording to its emotions costs.

    python path/to/compose.py path/to/ravdess/audio clean --split test --seed 1
    python path/to/compose.py path/to/ravdess/audio noisy --split test --seed 1 --snr 10
    python scripts/evidence/recordings_ladder.py model_cards/redifu-meld-ravdess clean --noisy noisy \\
        --output ladder.json

A folder has, for each recording, NAME.flac; NAME.json, a conversation with speakers, texts, times and labels;
and its turns in NAME.rttm. Prints a Markdown table with a row for each rung: (a) everything given, (b)
recognised words on given turns, (c) given words with found speakers, (d) everything found, (e) everything
found in noise. A model that is no better than the most frequent label, the first row, has nothing to lose.
Scores are explained in `recording_scores.py`; 95 % intervals are those of a bootstrap over recordings.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from recording_scores import RATES, Counts, EmotionalTurn, count, scores_of

from redifu.conversation import Conversation
from redifu.data.readers import read_conversations
from redifu.inference.recogniser import Recogniser, load
from redifu.transcription.timed_words import SpeakerSegment, Word
from redifu.transcription.transcribe import Transcriber
from redifu.transcription.turns_from_words import turns_from_words

RUNGS = {
    "0": "the most frequent label on given turns",
    "a": "everything given",
    "b": "recognised words on given turns",
    "c": "given words with found speakers",
    "d": "everything found",
    "e": "everything found, in noise",
}
HEADER = {
    **{"wer": "WER", "cpwer": "cpWER", "tcpwer": "tcpWER", "der": "DER"},
    "der_collar_no_overlap": "DER (collar 0.25, no overlap)",
    **{"speakers_right": "speakers right", "speakers_within_one": "within one"},
    **{"teer": "TEER", "steer": "sTEER", "weighted_f1": "weighted F1", "weighted_f1_lost": "lost"},
}

# A `Transcriber`, or what stands for it: makes a conversation of a recording and perhaps of a file of turns.
Transcribe = Callable[..., Conversation]


def hypothesis_of(
    recording: Path, rung: str, reference: Conversation, *, recogniser: Recogniser, transcribe: Transcribe
) -> list[EmotionalTurn]:
    """Return the turns of a recording with what a rung finds, and the model's emotions."""
    if rung == "a":
        said = reference
    elif rung == "b":
        said = transcribe(recording, turns=recording.with_suffix(".rttm"))
    elif rung == "c":
        said = given_words(reference, found=transcribe(recording), recording=recording)
    else:
        said = transcribe(recording)
    if not said.utterances:
        return []
    ((said, predictions),) = recogniser.predict([said])
    return turns_of(said, [prediction.emotion for prediction in predictions])


def given_words(reference: Conversation, *, found: Conversation, recording: Path) -> Conversation:
    """Return the turns of the given words with the speakers that were found.

    Nobody wrote down the times of the given words, so they share the time of their turn by their length.
    """
    words = [word for utterance in reference.utterances for word in spread_words(utterance)]
    segments = [SpeakerSegment(each.start, each.end, each.speaker) for each in found.utterances]
    turns = turns_from_words(words, segments)
    utterances = [
        {
            "speaker": turn.speaker,
            "text": turn.text,
            "audio": recording.name,
            "start": turn.start,
            "end": turn.end,
        }
        for turn in turns
    ]
    return Conversation.from_dict(
        {"id": reference.id, "utterances": utterances}, source=str(recording), folder=recording.parent
    )


def spread_words(utterance: Any) -> list[Word]:
    """Return the words of an utterance, which share its time by their number of characters."""
    words = utterance.text.split()
    total, bounds = sum(map(len, words)), [utterance.start]
    for word in words:
        bounds.append(bounds[-1] + (utterance.end - utterance.start) * len(word) / total)
    return [Word(word, *span, 1.0) for word, span in zip(words, pairwise(bounds), strict=True)]


def turns_of(conversation: Conversation, emotions: Sequence[str | None]) -> list[EmotionalTurn]:
    """Return the utterances of a conversation as turns."""
    return [
        EmotionalTurn(each.speaker, each.start, each.end, each.text or "", emotion)
        for each, emotion in zip(conversation.utterances, emotions, strict=True)
    ]


def climb(
    folder: Path, rungs: Sequence[str], *, recogniser: Recogniser, transcribe: Transcribe
) -> dict[str, list[Counts]]:
    """Count the errors in each recording of a folder, {rung: [counts]}."""
    recordings = sorted(folder.glob("*.flac"))
    if not recordings:
        raise ValueError(f"{folder}: expected NAME.flac, NAME.json and NAME.rttm, got no such file")
    counts: dict[str, list[Counts]] = {rung: [] for rung in rungs}
    for recording in recordings:
        reference, true = reference_of(recording)
        for rung in rungs:
            print(f"{recording}: {RUNGS[rung]}", flush=True)
            found = hypothesis_of(recording, rung, reference, recogniser=recogniser, transcribe=transcribe)
            counts[rung].append(count(true, found, labels=recogniser.labels))
    return counts


def most_frequent(folder: Path, *, labels: list[str]) -> list[Counts]:
    """Count the errors of the most frequent label on the true turns of each recording of a folder."""
    references = [reference_of(recording)[1] for recording in sorted(folder.glob("*.flac"))]
    ((label, _),) = Counter(turn.emotion for turns in references for turn in turns).most_common(1)
    return [
        count(turns, [turn._replace(emotion=label) for turn in turns], labels=labels) for turns in references
    ]


def reference_of(recording: Path) -> tuple[Conversation, list[EmotionalTurn]]:
    """Read the true conversation of a recording, and its turns."""
    (reference,) = read_conversations(recording.with_suffix(".json"))
    return reference, turns_of(reference, [utterance.label for utterance in reference.utterances])


def ladder(
    model: Path, clean: Path, noisy: Path | None = None, *, transcribe: Transcribe
) -> dict[str, dict[str, Any]]:
    """Score every rung, {rung: scores}; see `recording_scores.scores_of`."""
    recogniser = load(model)
    counts = {"0": most_frequent(clean, labels=recogniser.labels)}
    counts |= climb(clean, "abcd", recogniser=recogniser, transcribe=transcribe)
    if noisy is not None:
        counts |= climb(noisy, "e", recogniser=recogniser, transcribe=transcribe)
    return {rung: scores_of(each, counts["a"]) for rung, each in counts.items()}


def table_of(result: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the result of `ladder`; all numbers are in per cent."""
    yield _line(["", *HEADER.values()])
    yield _line(["---"] * (len(HEADER) + 1))
    for rung, scores in result.items():
        cells = [f"({rung}) {RUNGS[rung]}" if rung.isalpha() else RUNGS[rung]]
        for name in HEADER:
            scale = 100 if name in RATES else 1
            value, low, high = (
                scale * number for number in (scores[name]["value"], *scores[name]["interval"])
            )
            cells.append(f"{value:.1f} ({low:.1f} to {high:.1f})")
        yield _line(cells)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings", type=Path, help="folder of NAME.flac, NAME.json and NAME.rttm")
    parser.add_argument("--noisy", type=Path, metavar="FOLDER", help="the same recordings in noise")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write every number")
    options = parser.parse_args()
    result = ladder(options.model, options.recordings, options.noisy, transcribe=Transcriber())
    print("\n".join(table_of(result)))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
