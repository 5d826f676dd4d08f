"""Who speaks in a cue of subtitles, by the marks in its text."""

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from redifu.conversation_values import shown_names
from redifu.data.transcripts import UNKNOWN_SPEAKER
from redifu.data.turn_lines import CLOCK

# In place of a name: somebody else than before.
CHANGE = ">>"

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>", re.IGNORECASE)
# Two dashes mark an unfinished sentence, and a dash before a digit is a minus sign.
_DASH = re.compile(r"[-\u2010-\u2015]\s*(?=[^\s\d-])")
_CHEVRONS = re.compile(r"(?:^>>+(?=\s|\w|$)|(?<=\s)>>+(?=\s|$))")
# Karaoke times and SubRip formatting, which some players also accept in braces.
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9:.]+>|\{\\[^{}]*\}")

_COLON = re.compile(r"\s*([^:\uff1a<>]{1,60})(?::(?=\s|$)|\uff1a)\s*")
_BRACKETS = re.compile(r"\s*(?:\[([^\[\]()]{1,40})\]|\(([^\[\]()]{1,40})\))\s*(?=\S)")
# The time of day before a name. Capturing groups would be those of `CLOCK`.
_STAMP = re.compile(rf"\s*[\[(]?{CLOCK}[\])]?\s*(?:[AaPp]\.?[Mm]\.?\s*)?(?:-\s+)?(?=\S)")
# What tools call a speaker without a name; whisper.cpp writes a question mark where it cannot tell.
_LABEL = re.compile(r"(?:speaker|spkr?|person|participant|s)[ _-]*(?:[0-9]+|(\?))", re.IGNORECASE)
# "Ana (on phone)" is Ana, "Speaker (1)" is not Speaker.
_REMARK = re.compile(r"\s*[\[(](?:[a-z][^\])]*|[OV]\.? ?[SCO]\.?|CONT'D)[\])]$")
_PARTICLES = {
    *("van", "von", "der", "den", "de", "da", "di", "du", "la", "le", "del", "della", "dos", "das", "do"),
    *("bin", "ibn", "al", "el", "ter", "ten", "zu", "zur", "af", "av", "y", "e"),
}
_MOST_WORDS_OF_A_NAME = 4
# A file is marked throughout if this share of its cues begins with a mark.
_MOST_CUES = 0.8


class _Prefix(NamedTuple):
    """What may be the name of a speaker at the start of a line.

    Attributes:
        name: without brackets and remarks.
        bare: whether it has brackets alone, like a noise, and no colon.
        text: what follows.
    """

    name: str
    bare: bool
    text: str


class SpeakerMarks:
    """The marks of one file: a prefix that nobody would write but as a name, or that recurs over cues."""

    def __init__(self, cues: Iterable[Sequence[str]]):
        """Count the prefixes of the lines of all cues."""
        self._cues: Counter[tuple[bool, str]] = Counter()
        beginning: Counter[bool] = Counter()
        self._first: set[str] = set()  # names in brackets at the beginning of a cue
        total = 0
        self._refused: dict[str, None] = {}
        changed: list[_Prefix | None] = []
        for lines in cues:
            pieces = [piece for line in lines for piece in _pieces(line)]
            found = [prefix for piece in pieces if (prefix := _prefix(piece.text))]
            self._cues.update({(prefix.bare, prefix.name) for prefix in found})
            total += bool(pieces)
            if pieces and (first := _prefix(pieces[0].text)):
                beginning[first.bare] += 1
                self._first |= {first.name} if first.bare else set()
            changed += [_prefix(piece.text) for piece in pieces if piece.change]
        self._share = {bare: beginning[bare] / max(total, 1) for bare in (False, True)}
        self._recurs = {
            bare: any(count > 1 for (kind, _), count in self._cues.items() if kind == bare)
            for bare in (False, True)
        }
        self._labelled = any(map(_LABEL.fullmatch, self._first))
        self._changes = bool(changed)
        self._named_changes = any(prefix and self._is_name(prefix) for prefix in changed)

    def speaker(self, named: str | None, before: str) -> str:
        """Return who speaks a part: whom its mark names, or who spoke before."""
        if named != CHANGE:
            return named or before
        # Where others have names, it may be any of them.
        if self._named_changes:
            return UNKNOWN_SPEAKER
        return "speaker 2" if before == "speaker 1" else "speaker 1"

    def parts(self, lines: Iterable[str], name: str | None = None) -> list[tuple[str | None, str]]:
        """Split a cue into parts of a speaker each.

        Args:
            lines: of the cue, with formatting.
            name: who speaks where no mark says so; None if unknown.

        Returns:
            The name that a mark gives (None if there is no mark, `CHANGE` if it says only that the speaker
            changes) and the text, which may be empty.
        """
        parts: list[tuple[str | None, str]] = [(name, "")]
        dashes = 0
        for line in lines:
            for piece in _pieces(line):
                dashes += piece.dash
                found, text = (None, piece.text) if piece.voice else self._named(piece.text)
                if found is None:
                    marks = (piece.voice, CHANGE if piece.change else None)
                    found = next(filter(None, marks), f"speaker {dashes}" if piece.dash else None)
                parts.append((found, text))
        return _joined(parts)

    def notes(self) -> list[str]:
        """Say in a line each what the marks read so far leave open."""
        notes = []
        if self._changes and not self._named_changes:
            notes.append("'>>' says that the speaker changes, not who speaks: read as two speakers in turn")
        if self._refused:
            names = shown_names(self._refused)
            notes.append(f"read as text, not as names of speakers, before a colon: {names}")
        return notes

    def _named(self, text: str) -> tuple[str | None, str]:
        """Split a line into the name that its prefix gives and its text; the name may be None."""
        prefix = _prefix(text)
        if prefix is None:
            return None, text
        if not self._is_name(prefix):
            if not prefix.bare:
                self._refused[prefix.name] = None
            return None, text
        label = _LABEL.fullmatch(prefix.name)
        return UNKNOWN_SPEAKER if label and label[1] else prefix.name, prefix.text

    def _is_name(self, prefix: _Prefix) -> bool:
        if _LABEL.fullmatch(prefix.name) or (not prefix.bare and _is_written_like_a_name(prefix.name)):
            return True
        words = [word for word in prefix.name.split() if word not in _PARTICLES]
        if len(words) > _MOST_WORDS_OF_A_NAME:
            return False
        throughout = self._share[prefix.bare] >= _MOST_CUES and self._recurs[prefix.bare]
        recurs = self._cues[prefix.bare, prefix.name] > 1
        if prefix.bare:  # "[laughs]" recurs as well, beside "[SPEAKER_00]" and within cues of "[Ana]"
            like_a_name = not self._labelled or _is_written_like_a_name(prefix.name)
            return throughout and prefix.name in self._first and like_a_name
        return (recurs or throughout) if len(words) == 1 else recurs and self._share[False] >= 0.5


def speakers_among(identifiers: Iterable[str]) -> dict[str, str]:
    """Return the identifiers of cues that name speakers, with the names.

    Identifiers are different, so those that recur name speakers, like those that say "speaker 1".
    """
    counts = Counter(each for each in identifiers if any(character.isalpha() for character in each))
    recur = any(count > 1 for count in counts.values())
    labels = {each: _LABEL.fullmatch(each) for each in counts}
    return {
        each: UNKNOWN_SPEAKER if label and label[1] else each
        for each, label in labels.items()
        if label or recur
    }


def plain(text: str) -> str:
    """Remove formatting and collapse whitespace."""
    return " ".join(html.unescape(_TAGS.sub("", text)).split())


class _Piece(NamedTuple):
    text: str
    voice: str | None = None
    change: bool = False
    dash: bool = False


def _pieces(line: str) -> Iterator[_Piece]:
    """Split a line where a voice, a dash or `>>` begins."""
    # Split by a pattern with one group: text, name, text, name, text.
    opening, *voices = _VOICE.split(line)
    if shown := plain(opening):
        first, *others = _CHEVRONS.split(shown)
        if first.strip():
            dash = _DASH.match(first)
            yield _Piece(first[dash.end() :] if dash else first.strip(), dash=dash is not None)
        yield from (_Piece(each.strip(), change=True) for each in others)
    for name, text in zip(voices[::2], voices[1::2], strict=True):
        yield _Piece(plain(text), voice=plain(name) or None)


def _prefix(text: str) -> _Prefix | None:
    """Find what may be a name at the start of a line, perhaps after the time of day."""
    stamp = _STAMP.match(text)
    for start in (0, stamp.end()) if stamp else (0,):
        if mark := _COLON.match(text, start):
            name = _bare_name(mark[1])
            return _Prefix(name, False, text[mark.end() :].strip()) if name else None
        if start == 0 and stamp:
            continue  # the brackets may be those of the time
        if mark := _BRACKETS.match(text, start):
            return _Prefix((mark[1] or mark[2]).strip(), True, text[mark.end() :].strip())
    return None


def _bare_name(name: str) -> str:
    name = name.strip()
    for opening, closing in ("[]", "()"):
        if name.startswith(opening) and name.endswith(closing):
            name = name[1:-1].strip()
    return _REMARK.sub("", name)


def _is_written_like_a_name(name: str) -> bool:
    """Whether all its words, except "van" and the like, begin with a capital letter or have no case."""
    words = name.split()
    others = [word for word in words if word not in _PARTICLES]
    return (
        any(character.isalpha() for character in name)
        and 0 < len(others) <= _MOST_WORDS_OF_A_NAME
        and not any(word[0].islower() for word in (words[-1], *others))
    )


def _joined(parts: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Append parts without a speaker mark to the part before them."""
    joined = parts[:1]
    for name, text in parts[1:]:
        if name is None:
            before, begun = joined[-1]
            joined[-1] = (before, f"{begun} {text}".strip())
        else:
            joined.append((name, text))
    return joined
