"""Speakers of a stream, by comparison with the voices heard so far."""

import numpy as np

# The cosine to all known voices below which a voice is a stranger's, and the seconds of speech in which a
# stranger is noticed. On the training excerpts of AMI and composed recordings, the windows of a known
# speaker have cosines around 0.7 and those of others around 0.5.
LIKE, SECONDS_OF_STRANGER = 0.5, 1.5
# Speakers at most, if the number is not given; a stream may have no end, but its memory has.
MOST_SPEAKERS = 32


class KnownVoices:
    """The mean voices of the speakers of a stream, which it meets one after the other."""

    def __init__(self, most: int | None = None):
        """Start with no speakers.

        Args:
            most: the largest number of speakers; None for no number below 32.
        """
        self._most = min(most or MOST_SPEAKERS, MOST_SPEAKERS)
        self._sums: list[np.ndarray] = []

    def __len__(self) -> int:
        """Return the number of speakers so far."""
        return len(self._sums)

    def likeness(self, voices: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Compare the voices of windows with the known speakers, and get to know them.

        Args:
            voices: (windows, size) of length 1, in the order of time; at least one.
            seconds: (windows,) of speech that each window adds to those before it.

        Returns:
            (windows, speakers), the cosines to the speakers' mean voices, with those who are new.
        """
        if len(self._sums) < self._most:
            strange = self._cosines(voices).max(1, initial=-1.0) < LIKE
            if not self._sums or seconds[strange].sum() >= SECONDS_OF_STRANGER:
                self._sums.append(voices[strange].sum(0, dtype=np.float64))
        nearest = self._cosines(voices).argmax(1)
        for number, total in enumerate(self._sums):
            total += voices[nearest == number].sum(0)
        return self._cosines(voices)

    def _cosines(self, voices: np.ndarray) -> np.ndarray:
        if not self._sums:
            return np.zeros((len(voices), 0))
        centres = np.stack(self._sums)
        return voices @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
