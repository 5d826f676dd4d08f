"""Words and speakers with their times."""

from typing import NamedTuple


class Word(NamedTuple):
    """A recognised word.

    Attributes:
        text: the word with its punctuation, without spaces around it.
        start: seconds from the start of the recording.
        end: seconds, not before `start`.
        probability: of the word, by the speech model, from 0 to 1.
    """

    text: str
    start: float
    end: float
    probability: float


class SpeakerSegment(NamedTuple):
    """A span in which one speaker talks; segments of different speakers may overlap.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds, after `start`.
        speaker: the name, "speaker 1" and so on in the order of their first words.
    """

    start: float
    end: float
    speaker: str
