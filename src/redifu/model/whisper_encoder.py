"""Whisper's encoder as a waveform backbone: 30 s spectrograms, pooled over the real samples."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

FRAME, HOP = 400, 160  # samples: 25 ms, every 10 ms; the defaults of WhisperFeatureExtractor
_POSITION = 2 * HOP  # samples per position: the second convolution has stride 2


class WhisperBackbone(WhisperEncoder):
    """Whisper's encoder, without the decoder."""

    _keys_to_ignore_on_load_unexpected = [r"decoder\.", "proj_out", "projector", "classifier"]

    def __init__(self, config: Any):
        """Build from a WhisperConfig, without reading files."""
        super().__init__(config)
        # Fixed sinusoids: as a parameter, they would become trainable when weights are loaded.
        positions = self.embed_positions.weight.detach()
        del self.embed_positions.weight
        self.embed_positions.register_buffer("weight", positions)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load like any transformers model, from the weights of the encoder or of a full Whisper model."""
        return super().from_pretrained(*args, key_mapping={r"^(model\.)?encoder\.": ""}, **kwargs)


def encode_pieces(backbone: Any, audio_values: Tensor, mask: Tensor, *, chunk_samples: int) -> Tensor:
    """Embed waveforms by the mean of the encoder's states over the real samples.

    Whisper was trained on inputs of exactly 30 s. A shorter waveform is padded with silence, which is encoded
    (at the cost of 30 s) but not pooled; a longer one is split, and the mean is over all its pieces.

    Args:
        backbone: a `WhisperBackbone`.
        audio_values: (audios, samples) float at 16 kHz; the padding may hold any values.
        mask: (audios, samples) bool, True for real samples, padding at the end.
        chunk_samples: maximum samples per forward pass, silence included (but at least one piece).

    Returns:
        (audios, hidden).
    """
    widths, length = mask.sum(dim=1), _POSITION * backbone.config.max_source_positions
    rows = [row[:width].split(length) for row, width in zip(audio_values, widths.tolist(), strict=True)]
    pieces, at_once = [piece for row in rows for piece in row], max(1, chunk_samples // length)
    sums = torch.cat(
        [_sums(backbone, pieces[start : start + at_once], length) for start in range(0, len(pieces), at_once)]
    )
    totals = torch.stack([row.sum(dim=0) for row in sums.split([len(row) for row in rows])])
    return totals / _positions(widths)[:, None]


def log_mel_spectrogram(waveforms: Tensor, bins: int) -> Tensor:
    """Compute Whisper's input: log10 powers of mel bands, scaled to about -1 to 1.

    Args:
        waveforms: (waveforms, samples) float32 at 16 kHz.
        bins: number of bands.

    Returns:
        (waveforms, bins, samples // 160) float32.
    """
    device = waveforms.device
    # Half precision cannot represent the power of quiet sounds.
    with torch.autocast(device.type, enabled=False):
        spectrograms = _extractor(bins)._torch_extract_fbank_features(waveforms.cpu().numpy(), str(device))
    return torch.from_numpy(spectrograms).to(device)


def _sums(backbone: Any, pieces: list[Tensor], length: int) -> Tensor:
    """Encode pieces of at most `length` samples and sum the states over their real samples."""
    waveforms = torch.stack([pad(piece.float(), (0, length - len(piece))) for piece in pieces])
    spectrograms = log_mel_spectrogram(waveforms, backbone.config.num_mel_bins).to(backbone.dtype)
    states = backbone(input_features=spectrograms).last_hidden_state
    return torch.stack(
        [heard[: _positions(len(piece))].sum(dim=0) for heard, piece in zip(states, pieces, strict=True)]
    )


def _positions(samples: Any) -> Any:
    """Return the number of positions that cover the first `samples` samples."""
    return (samples + _POSITION - 1) // _POSITION


@lru_cache
def _extractor(bins: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bins)
