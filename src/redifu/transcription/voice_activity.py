"""Voice activity in a stream of sound, frame by frame."""

import numpy as np

from redifu.optional_packages import optional_package

# Samples of a frame at 16 kHz, 32 ms, and of the frame before it that the detector hears again.
FRAME, _CONTEXT = 512, 64


class VoiceActivity:
    """Silero's voice activity detector, which remembers what it heard.

    Its probabilities are those that faster-whisper computes for a whole recording.
    """

    def __init__(self) -> None:
        """Start with silence; the weights are those that faster-whisper brings.

        Raises:
            ImportError: the extra `speech` is not installed.
        """
        self._detector = optional_package("faster_whisper.vad", extra="speech").get_vad_model().session
        self._context = np.zeros(_CONTEXT, np.float32)
        self._state = {name: np.zeros((1, 1, 128), np.float32) for name in "hc"}

    def probability(self, frame: np.ndarray) -> float:
        """Return the probability that somebody speaks in the next frame, (512,) float32."""
        # One frame at a time: rounding may depend on the number of frames, and events must not.
        given = np.concatenate([self._context, frame])[None]
        found, *state = self._detector.run(None, {"input": given, **self._state})
        self._context, self._state = frame[-_CONTEXT:], dict(zip("hc", state, strict=True))
        return float(found.item())
