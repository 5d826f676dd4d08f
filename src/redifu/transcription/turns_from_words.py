"""Spoken turns from recognised words and speaker segments; pure functions without models."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple, Protocol

import numpy as np

from redifu.transcription.timed_words import SpeakerSegment, Word

# Seconds up to which the times of a word are believed: Whisper stretches the words around speech it missed.
LONGEST_WORD = 1.0
# Seconds of silence that end a turn; shorter ones are hesitations.
PAUSE = 0.5
# A speaker with this share of the words of a clause has said all of it; times err by a word at its ends.
MAJORITY = 0.8
# Seconds below which a sentence is joined with its neighbour, for there is little emotion to hear in it.
SHORTEST_SECONDS = 1.0
# Seconds of silence over which it is joined.
JOINED_PAUSE = 1.0
# Seconds that Whisper, the recogniser and the audio encoder, hears at a time.
LONGEST_SECONDS = 30.0
# A text encoder of 128 tokens reads at least as many words.
LONGEST_WORDS = 64
# Seconds, the resolution of Whisper's times: words may take no time at all, but an utterance must.
RESOLUTION = 0.02
# Seconds from a given turn up to which a word belongs to it.
REACH = 0.5

# Thai to Burmese, Chinese, Japanese and their punctuation.
_SPACELESS = "[\u0e00-\u0eff\u1000-\u109f\u3000-\u30ff\u3400-\u9fff\uff00-\uff9f]"
_NO_SPACE = re.compile(rf"(?<={_SPACELESS}) (?={_SPACELESS})")
_CLOSING = "\"'”’»)]}」』"
_SENTENCE_END = re.compile(r".*(?:(?<!\.)\.|[?!。．｡？！])", re.DOTALL)
_ABBREVIATION = re.compile(
    r"\W*(?:mrs?|ms|drs?|prof|st|jr|sr|vs|gen|capt|lt|sgt|rev|[a-hj-z]|(?:[a-z]\.)+[a-z])\.", re.IGNORECASE
)


class SpokenTurn(NamedTuple):
    """Words that one speaker says without a break.

    Attributes:
        speaker: "speaker 1" and so on, in the order of their first words.
        start: seconds, where the first word begins.
        end: seconds, where the last word ends, after `start`.
        words: at least one, by start.
        overlap: share of the time in which somebody else speaks, from 0 to 1, to 3 digits.
    """

    speaker: str
    start: float
    end: float
    words: tuple[Word, ...]
    overlap: float

    @property
    def text(self) -> str:
        """See `text_of`."""
        return text_of(self.words)

    @property
    def text_confidence(self) -> float:
        """The mean probability of the words."""
        return float(np.mean([word.probability for word in self.words]))


class Timed(Protocol):
    """Whatever has a start and an end in seconds."""

    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def end(self) -> float: ...  # noqa: D102


def turns_from_words(words: Sequence[Word], segments: Sequence[SpeakerSegment]) -> list[SpokenTurn]:
    """Divide recognised words into the turns of speakers.

    The times of a word longer than a second are first cut to the segment that covers most of it. A word
    belongs to the speaker whose segments cover most of it, or else to the nearest segment. Times are least
    exact where speakers change, and a speaker rarely changes within a clause (words up to the end of a
    sentence or a pause). So a speaker with nearly all words of a clause gets the rest, and a single word
    between two words of another speaker in a clause goes to that speaker.

    Turns end where the speaker changes, at pauses and at the ends of sentences. Short ones are joined with
    the turn of the same speaker before or after them. Long ones are cut at the longest pause in their middle
    half until they are short enough; only a single word may be longer. The constants of this module are the
    thresholds.

    Args:
        words: the words of the recording; sorted by start.
        segments: who speaks when; without any, "speaker 1" says everything.

    Returns:
        Turns sorted by start. Each word is in exactly one of them.
    """
    # On 12 composed recordings with the true segments and words of Whisper tiny.en, this finds 224 of 235
    # turns (common time of at least half of the joint time) and splits or merges none; with the times of long
    # words as they are, it finds 215, splits 4 and merges 3.
    by_start = sorted(words, key=lambda word: word.start)
    words = sorted((_trimmed(word, segments) for word in by_start), key=lambda word: word.start)
    speakers = list(dict.fromkeys(segment.speaker for segment in segments))
    ids = [speakers.index(segment.speaker) for segment in segments]
    owners, _ = _owners(words, segments, ids)
    said = [
        piece
        for first, last in _clauses(words)
        for piece in _pieces(words[first:last], _settled(owners[first:last]))
    ]
    pieces = _joined(said)
    others = {
        owner: [segment for segment, id in zip(segments, ids, strict=True) if id != owner]
        for owner in dict(pieces)
    }
    names = {owner: f"speaker {number}" for number, owner in enumerate(dict(pieces), start=1)}
    found = []
    for owner, piece in pieces:
        for part in _shortened(piece):
            start, end = _span(part)
            share = overlap_share(start, end, others[owner])
            found.append(SpokenTurn(names[owner], start, end, tuple(part), share))
    return found


def words_on_turns(words: Sequence[Word], turns: Sequence[Timed]) -> list[list[Word]]:
    """Give recognised words to turns whose times are known.

    A word belongs to the turn that covers most of it, or else to the nearest one within 0.5 s.

    Args:
        words: the words of the recording; sorted by start.
        turns: the turns, which may overlap.

    Returns:
        The words of each turn by start. Each word is in one of them at most.
    """
    words = sorted(words, key=lambda word: word.start)
    found: list[list[Word]] = [[] for _ in turns]
    for word, owner, distance in zip(words, *_owners(words, turns, range(len(turns))), strict=True):
        if distance <= REACH:
            found[owner].append(word)
    return found


def text_of(words: Sequence[Word]) -> str:
    """Join words, with spaces between them where their script has any."""
    return _NO_SPACE.sub("", " ".join(word.text for word in words))


def overlap_share(start: float, end: float, others: Sequence[Timed]) -> float:
    """Return the share of a span, 0 to 1 with 3 digits, in which at least one of `others` is active."""
    active, until = 0.0, start
    for begin, stop in sorted(
        (each.start, each.end) for each in others if each.start < end and each.end > start
    ):
        active += max(min(stop, end) - max(begin, until), 0.0)
        until = max(until, stop)
    return round(min(active / (end - start), 1.0), 3)


def _trimmed(word: Word, segments: Sequence[SpeakerSegment]) -> Word:
    """Cut the times of a long word to the segment that covers most of it."""
    if word.end - word.start <= LONGEST_WORD or not segments:
        return word
    spans = [(max(word.start, each.start), min(word.end, each.end)) for each in segments]
    start, end = max(spans, key=lambda span: span[1] - span[0])
    return word._replace(start=start, end=end) if start < end else word


def _owners(
    words: Sequence[Word], spans: Sequence[Timed], ids: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Return whose spans cover most of each word, or else whose span is nearest, and how far away it is.

    Between equals it is who has the word before, or else the one with the lowest id.
    """
    if not spans:
        return [0] * len(words), [math.inf] * len(words)
    owned_by = np.asarray(ids)
    starts, ends = (np.array([getattr(span, side) for span in spans]) for side in ("start", "end"))
    owners: list[int] = []
    distances: list[float] = []
    for word in words:
        common = np.minimum(ends, word.end) - np.maximum(starts, word.start)
        covered = np.bincount(owned_by, common.clip(min=0))
        equals = (
            np.flatnonzero(covered == covered.max()) if covered.any() else owned_by[common == common.max()]
        )
        owners.append(owners[-1] if owners and owners[-1] in equals else int(equals.min()))
        distances.append(max(0.0, float(-common.max())))
    return owners, distances


def _clauses(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Yield the place of the first word, and of the one after the last, of runs without a break."""
    first = 0
    for place, (word, following) in enumerate(pairwise(words), start=1):
        if following.start - word.end > PAUSE or ends_sentence(word.text):
            yield first, place
            first = place
    if words:
        yield first, len(words)


def ends_sentence(text: str) -> bool:
    """Return whether a word, with its punctuation, ends a sentence."""
    text = text.rstrip(_CLOSING)
    return bool(_SENTENCE_END.fullmatch(text)) and not _ABBREVIATION.fullmatch(text)


def _settled(owners: list[int]) -> list[int]:
    """Correct the speakers of the words of a clause."""
    owner, count = Counter(owners).most_common(1)[0]
    if count >= MAJORITY * len(owners):
        return [owner] * len(owners)
    settled = list(owners)
    for place in range(1, len(owners) - 1):
        before, after = settled[place - 1], owners[place + 1]
        if before == after:
            settled[place] = before
    return settled


def _pieces(words: Sequence[Word], owners: Sequence[int]) -> Iterator[tuple[int, list[Word]]]:
    """Yield runs of words of one speaker."""
    for owner, run in groupby(zip(owners, words, strict=True), key=itemgetter(0)):
        yield owner, [word for _, word in run]


def _joined(pieces: list[tuple[int, list[Word]]]) -> list[tuple[int, list[Word]]]:
    """Join short pieces with the one of the same speaker before or after them."""
    joined: list[tuple[int, list[Word]]] = []
    for owner, piece in pieces:
        if joined and joined[-1][0] == owner and _belong_together(joined[-1][1], piece):
            joined[-1][1].extend(piece)
        else:
            joined.append((owner, list(piece)))
    return joined


def _belong_together(piece: list[Word], following: list[Word]) -> bool:
    short = any(end - start < SHORTEST_SECONDS for start, end in map(_span, (piece, following)))
    pause = following[0].start - piece[-1].end
    return short and pause <= JOINED_PAUSE and _fits([*piece, *following])


def _fits(piece: list[Word]) -> bool:
    start, end = _span(piece)
    return end - start <= LONGEST_SECONDS and len(piece) <= LONGEST_WORDS


def _shortened(piece: list[Word]) -> list[list[Word]]:
    """Cut a piece at the longest pause in its middle half until each part is short enough."""
    if _fits(piece) or len(piece) == 1:
        return [piece]
    middle, quarter = len(piece) // 2, len(piece) // 4
    places = sorted(
        range(max(middle - quarter, 1), middle + quarter + 1), key=lambda place: abs(place - middle)
    )
    cut = max(places, key=lambda place: piece[place].start - piece[place - 1].end)
    return [*_shortened(piece[:cut]), *_shortened(piece[cut:])]


def _span(piece: list[Word]) -> tuple[float, float]:
    """Return start and end in seconds."""
    start = piece[0].start
    return start, max(start + RESOLUTION, *(word.end for word in piece))
