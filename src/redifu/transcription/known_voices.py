"""Speakers of a stream, by comparison with the voices heard so far."""

import numpy as np

# The cosine to all known voices below which a voice is a stranger's, and the seconds of speech that a voice
# needs to be a stranger's. Of 18 recordings with at least three turns (training and development excerpts of
# AMI, composed ones), heard turn by turn, 91 % and 74 % of the time get the right speaker; 91 % and 81 % if
# their number is given.
LIKE, SHORTEST_STRANGER = 0.55, 1.0
# Seconds of which a mean voice takes no more from one turn.
LONGEST = 5.0
# Speakers at most, if their number is not given: a stream may have no end, but its memory has.
MOST_SPEAKERS = 32


class KnownVoices:
    """The mean voices of the speakers of a stream, met one after the other."""

    def __init__(self, most: int | None = None):
        """Start with no speakers.

        Args:
            most: the largest number of speakers; None, or more than 32, for 32.
        """
        self._most = min(most or MOST_SPEAKERS, MOST_SPEAKERS)
        self._sums: list[np.ndarray] = []

    def speaker(self, voice: np.ndarray, seconds: float) -> int:
        """Return the number of the speaker of a turn, from 0 in the order in which they are met.

        Args:
            voice: (size,) of length 1.
            seconds: of speech that it was heard in.
        """
        cosines = [float(voice @ total / np.linalg.norm(total)) for total in self._sums]
        number = int(np.argmax(cosines)) if cosines else 0
        strange = not cosines or (cosines[number] < LIKE and seconds >= SHORTEST_STRANGER)
        if strange and len(self._sums) < self._most:
            number = len(self._sums)
            self._sums.append(np.zeros(len(voice)))
        self._sums[number] += min(seconds, LONGEST) * voice
        return number
