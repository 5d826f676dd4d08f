"""Who speaks in a cue of subtitles, by the marks in its text."""

import html
import re

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>", re.IGNORECASE)
# Two dashes mark an unfinished sentence, and a dash before a digit is a minus sign.
_DASH = re.compile(r"[-\u2010-\u2015]\s*(?=[^\s\d-])")
# Karaoke times and SubRip formatting, which some players also accept in braces.
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9:.]+>|\{\\[^{}]*\}")
_NAME = re.compile(r"\s*([^:\uff1a<>]{1,40})(?::(?=\s|$)|\uff1a)\s*")
_MOST_WORDS_OF_A_NAME = 4


def parts_of(lines: list[str], name: str | None = None) -> list[tuple[str | None, str]]:
    """The parts of a cue, each with the speaker that a mark names and its text, which may be empty."""
    parts: list[tuple[str | None, str]] = [(name, "")]
    dashes = 0
    for line in lines:
        # Split by a pattern with one group: text, name, text, name, text.
        opening, *voices = _VOICE.split(line)
        if opening.strip():
            shown = plain(opening)
            dash = _DASH.match(shown)
            dashes += dash is not None
            name, text = _named(shown[dash.end() :] if dash else shown)
            if name is None and dash:
                name = f"speaker {dashes}"
            parts.append((name, text))
        pairs = zip(voices[::2], voices[1::2], strict=True)
        parts += [(plain(name) or None, plain(text)) for name, text in pairs]
    return _joined(parts)


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


def _named(text: str) -> tuple[str | None, str]:
    """Split `Ana: text` into name and text; the name is None if the prefix does not look like a name."""
    if mark := _NAME.match(text):
        name = mark[1].strip("[]() ")
        words = name.split()
        letters = any(character.isalpha() for character in name)
        if letters and len(words) <= _MOST_WORDS_OF_A_NAME and not any(word[0].islower() for word in words):
            return name, text[mark.end() :].strip()
    return None, text


def plain(text: str) -> str:
    """Remove formatting and collapse whitespace."""
    return " ".join(html.unescape(_TAGS.sub("", text)).split())
