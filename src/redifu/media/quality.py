"""Measure audio and video quality, with the limits beyond which a stream counts as missing."""

from collections.abc import Mapping

import numpy as np

# The measures of each stream.
QUALITY = {
    "audio": ("snr", "clipping", "silence", "duration"),
    "visual": ("face_share", "face_size", "sharpness", "brightness"),
}
# (minimum, maximum) for a usable stream; None for no limit.
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "duration": (0.1, None),
    "silence": (None, 0.99),
    "clipping": (None, 0.5),
    "face_share": (0.1, None),
    "brightness": (0.02, None),
}
_FRAME_SECONDS = 0.02
_QUIET = 1e-4  # root mean square below which a frame is silent, 80 dB below full scale
_FULL_SCALE = 0.999
_NOISE_SHARE, _SPEECH_SHARE = 10, 95  # percentiles of frame power used for noise and speech
_SNR_RANGE = (-10.0, 60.0)


def audio_quality(waveform: np.ndarray, sampling_rate: int) -> dict[str, float]:
    """Measure the quality of a waveform.

    Args:
        waveform: (samples,) float, full scale 1.
        sampling_rate: samples per second.

    Returns:
        snr, the signal-to-noise ratio in dB, from -10 to 60, estimated from loud and quiet frames; clipping,
        the share of samples at full scale; silence, the share of frames more than 80 dB below full scale;
        duration in seconds.
    """
    duration = len(waveform) / sampling_rate
    size = max(round(_FRAME_SECONDS * sampling_rate), 1)
    count = len(waveform) // size
    if not count:
        return {"snr": _SNR_RANGE[0], "clipping": 0.0, "silence": 1.0, "duration": duration}
    frames = waveform[: count * size].reshape(count, size)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    noise, loud = np.percentile(power, (_NOISE_SHARE, _SPEECH_SHARE))
    speech = max(loud - noise, 1e-12)
    return {
        "snr": float(np.clip(10 * np.log10(speech / max(noise, 1e-12)), *_SNR_RANGE)),
        "clipping": float((np.abs(waveform) >= _FULL_SCALE).mean()),
        "silence": float((power < _QUIET**2).mean()),
        "duration": duration,
    }


def reason_to_drop(quality: Mapping[str, float]) -> str | None:
    """Return which limit a stream violates, or None."""
    for name, (least, most) in LIMITS.items():
        if (value := quality.get(name)) is None:
            continue
        if least is not None and value < least:
            return f"{name} {value:.3g} is below {least:g}"
        if most is not None and value > most:
            return f"{name} {value:.3g} is above {most:g}"
    return None
