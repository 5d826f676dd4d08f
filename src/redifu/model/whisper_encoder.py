"""Whisper's encoder as a waveform backbone, pooled over time; short waveforms are not padded to 30 s."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .width_groups import encode_by_width

FRAME, HOP = 400, 160  # samples: 25 ms, every 10 ms; the defaults of WhisperFeatureExtractor
_POSITION = 2 * HOP  # samples per position: the second convolution has stride 2
POOLING_STATISTICS = frozenset({"pooled_mean", "pooled_deviation"})  # no pretrained encoder has them
SMALLEST_DEVIATION = 1e-5  # of states over time, so that constant states have a gradient


class WhisperBackbone(WhisperEncoder):
    """Whisper's encoder for inputs of any length up to 30 s, without the decoder.

    With `pooled_layers`, the pooled features are normalised by their mean and standard deviation in the
    training data, which `normalise_by` sets.
    """

    pooled_mean: Tensor
    pooled_deviation: Tensor
    _keys_to_ignore_on_load_unexpected = [r"decoder\.", "proj_out", "projector", "classifier"]

    def __init__(self, config: Any, pooled_layers: Sequence[int] | None = None):
        """Build from a WhisperConfig, without reading files.

        Args:
            config: the WhisperConfig; its positions are the longest input.
            pooled_layers: the layers to pool, counted from 1; later layers are not built. None pools the
                last one.
        """
        super().__init__(config)
        self.pooled_layers = pooled_layers
        if pooled_layers is not None:
            self.layers = self.layers[: max(pooled_layers)]
            size = 2 * len(pooled_layers) * config.hidden_size
            self.register_buffer("pooled_mean", torch.zeros(size))
            self.register_buffer("pooled_deviation", torch.ones(size))
        # Fixed sinusoids: as a parameter, they would become trainable when weights are loaded.
        positions = self.embed_positions.weight.detach()
        del self.embed_positions.weight
        self.embed_positions.register_buffer("weight", positions)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load like any transformers model, from the weights of the encoder or of a full Whisper model."""
        return super().from_pretrained(*args, key_mapping={r"^(model\.)?encoder\.": ""}, **kwargs)

    def normalise_by(self, embeddings: Tensor) -> None:
        """Normalise from now on by the statistics of embeddings, (audios, size), of the training data.

        The embeddings must have been computed before any call of this.
        """
        self.pooled_mean.copy_(embeddings.mean(dim=0))
        # A constant feature carries no information: it becomes 0, without a division by 0.
        deviation = embeddings.std(dim=0, correction=0)
        self.pooled_deviation.copy_(deviation.where(deviation > SMALLEST_DEVIATION, 1.0))

    def forward(self, input_features: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Encode spectrograms; what is masked changes nothing.

        Args:
            input_features: (pieces, bins, 2 * positions) float.
            attention_mask: (pieces, positions) bool, True for real positions, padding at the end.

        Returns:
            For each pooled layer, its normalised states, (pieces, positions, hidden).
        """
        real = attention_mask.repeat_interleave(2, dim=1)[:, None]
        # The second convolution must read zeros after the end, as it does for a piece alone.
        states = gelu(self.conv1(input_features)).masked_fill(~real, 0.0)
        states = gelu(self.conv2(states)).transpose(1, 2)
        states = states + self.embed_positions.weight[: states.shape[1]]
        states = torch.nn.functional.dropout(states, p=self.dropout, training=self.training)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=states, attention_mask=attention_mask
        )
        wanted, kept = self.pooled_layers or [len(self.layers)], []
        for number, layer in enumerate(self.layers, start=1):
            states = layer(states, mask)
            if number in wanted:
                kept.append(self.layer_norm(states))
        return kept


def encode_pieces(
    backbone: WhisperBackbone, audio_values: Tensor, mask: Tensor, *, chunk_samples: int
) -> Tensor:
    """Embed waveforms by pooling the encoder's states over time.

    Whisper was trained on inputs of exactly 30 s. Here a shorter waveform has just its own positions, which
    costs less; a longer one is split into pieces of 30 s, and is pooled over all its pieces.

    Args:
        backbone: without `pooled_layers`, the embedding is the mean of the last layer's states. With them, it
            is the mean of each of these layers, then the standard deviation of each, normalised.
        audio_values: (audios, samples) float at 16 kHz; the padding may hold any values.
        mask: (audios, samples) bool, True for real samples, padding at the end.
        chunk_samples: maximum samples per forward pass, padding included (but at least one piece).

    Returns:
        (audios, hidden), or (audios, 2 * layers * hidden) with `pooled_layers`.
    """
    longest = _POSITION * backbone.config.max_source_positions
    widths = mask.sum(dim=1).tolist()
    rows = [row[:width].split(longest) for row, width in zip(audio_values, widths, strict=True)]
    pieces = [piece.float() for row in rows for piece in row]

    def encode(chosen: Tensor, _: int) -> Tensor:
        return _moments(backbone, [pieces[place] for place in chosen.tolist()])

    lengths = torch.tensor([_positions(len(piece)) for piece in pieces], device=audio_values.device)
    moments = encode_by_width(lengths, chunk_samples // _POSITION, encode)
    shares = [count / count.sum() for count in lengths.split([len(row) for row in rows])]
    parts = moments.split([len(row) for row in rows])
    return torch.stack([_joined(backbone, *each) for each in zip(parts, shares, strict=True)])


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


def _moments(backbone: WhisperBackbone, pieces: list[Tensor]) -> Tensor:
    """Return mean and variance over time, (pieces, 2, layers * hidden)."""
    counts = torch.tensor([_positions(len(piece)) for piece in pieces], device=pieces[0].device)
    real = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    bins = backbone.config.num_mel_bins
    # Each piece alone: the spectrogram of its end depends on where it ends.
    filled = [pad(piece, (0, -len(piece) % _POSITION)) for piece in pieces]
    spectrograms = [log_mel_spectrogram(piece[None], bins)[0].T for piece in filled]
    batch = pad_sequence(spectrograms, batch_first=True).transpose(1, 2).to(backbone.dtype)
    kept = real[..., None]
    moments = []
    for states in backbone(input_features=batch, attention_mask=real):
        mean = states.masked_fill(~kept, 0.0).sum(dim=1) / counts[:, None]
        deviations = (states - mean[:, None]).masked_fill(~kept, 0.0)
        moments.append(torch.stack([mean, deviations.square().sum(dim=1) / counts[:, None]], dim=1))
    return torch.cat(moments, dim=-1)


def _joined(backbone: WhisperBackbone, moments: Tensor, shares: Tensor) -> Tensor:
    """Join the moments of a waveform's pieces, (pieces, 2, size), given their shares of its positions."""
    means, variances = moments.unbind(dim=1)
    mean = shares.to(means.dtype) @ means
    if backbone.pooled_layers is None:
        return mean
    variance = shares.to(means.dtype) @ (variances + (means - mean).square())
    pooled = torch.cat([mean, variance.clamp_min(SMALLEST_DEVIATION**2).sqrt()])
    return (pooled - backbone.pooled_mean) / backbone.pooled_deviation


def _positions(samples: int) -> int:
    """Return how many positions a number of samples takes."""
    return -(-samples // _POSITION)


@lru_cache
def _extractor(bins: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bins)
