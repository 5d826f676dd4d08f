"""Converts a Whisper model in CTranslate2's format to a folder that AutoModel loads.

Speech recognisers such as faster-whisper use this format. The weights keep their precision, which must be
float16 or float32: quantised files have lost what the encoder needs. A model that hears emotions with the
first layers of Whisper takes the folder as `model.audio_backbone` of a recipe.

    python scripts/convert_ctranslate2_whisper.py tiny.en --output runs/whisper-tiny.en   # of redifu[speech]
    python scripts/convert_ctranslate2_whisper.py path/to/faster-whisper-small --output runs/whisper-small
"""

import argparse
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from redifu.transcription.weights import INSTALLED_SPEECH_MODELS, speech_model_files

TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # by their numbers in the file
VERSION = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(INSTALLED_SPEECH_MODELS)
    parser.add_argument("model", help=f"folder with model.bin, or one of {known}")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        files, _ = speech_model_files(options.model)
        content = files["model.bin"] if isinstance(files, dict) else (files / "model.bin").read_bytes()
        variables = read_ctranslate2(content)
        write_whisper(variables, options.output)
    except (OSError, ValueError, ImportError) as error:
        parser.error(f"{options.model}: {error}")
    print(f"{options.output}: {len(variables)} tensors")


def read_ctranslate2(content: bytes) -> dict[str, np.ndarray]:
    """Return the variables of a model.bin by name.

    Raises:
        ValueError: the file is damaged, quantised, of another version, or does not hold a Whisper model.
    """
    try:
        return _variables(content)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"model.bin is not a CTranslate2 model, or cut short: {error}") from None


def _variables(content: bytes) -> dict[str, np.ndarray]:
    place = 0

    def take(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", content, place)
        place += struct.calcsize(f"<{form}")
        return int(value)

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return content[place - length : place - 1].decode()  # without the final zero

    version, spec = take("I"), text()
    if version != VERSION or spec != "WhisperSpec":
        raise ValueError(f"expected a WhisperSpec of version {VERSION}, got {spec} of version {version}")
    take("I")  # revision of the spec
    variables = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = take("B"), take("I")
        if kind not in TYPES or (shape and not TYPES[kind].startswith("<f")):
            raise ValueError(f"{name} is quantised; expected weights in float16 or float32")
        if place + size > len(content):
            raise ValueError(f"cut short in {name}")
        values = np.frombuffer(content, TYPES[kind], size // np.dtype(TYPES[kind]).itemsize, place)
        variables[name] = values.reshape(shape)
        place += size
    return variables


def write_whisper(variables: dict[str, np.ndarray], folder: Path) -> None:
    """Write a WhisperModel and its feature extractor; sizes are read from the shapes of the weights."""
    hidden, bins, _ = variables["encoder/conv1/weight"].shape
    vocabulary = variables["decoder/embeddings/weight"].shape[0]
    depths = {side: _depth(variables, side) for side in ("encoder", "decoder")}
    heads = {side: int(variables[f"{side}/num_heads"]) for side in depths}
    inner = variables["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    config = WhisperConfig(
        d_model=hidden,
        num_mel_bins=bins,
        vocab_size=vocabulary,
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        **{f"{side}_layers": depth for side, depth in depths.items()},
        **{f"{side}_attention_heads": number for side, number in heads.items()},
        **{f"{side}_ffn_dim": inner for side in depths},
    )
    dtype = torch.from_numpy(variables["encoder/conv1/weight"][:0].copy()).dtype
    model = WhisperModel(config).to(dtype)
    model.load_state_dict(transformers_weights(variables))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bins).save_pretrained(folder)


def transformers_weights(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the weights of a WhisperModel by their names in transformers."""
    given = {name: torch.from_numpy(values.copy()) for name, values in variables.items()}
    weights: dict[str, Tensor] = {"decoder.embed_tokens.weight": given["decoder/embeddings/weight"]}
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            weights[f"encoder.{name}.{kind}"] = given[f"encoder/{name}/{kind}"]
    for side in ("encoder", "decoder"):
        weights[f"{side}.embed_positions.weight"] = given[f"{side}/position_encodings/encodings"]
        weights |= _norm(given, f"{side}/layer_norm", f"{side}.layer_norm")
        for number in range(_depth(variables, side)):
            here, there = f"{side}/layer_{number}", f"{side}.layers.{number}"
            weights |= _attention(given, f"{here}/self_attention", f"{there}.self_attn")
            if side == "decoder":
                weights |= _attention(given, f"{here}/attention", f"{there}.encoder_attn")
            weights |= _norm(given, f"{here}/ffn/layer_norm", f"{there}.final_layer_norm")
            for ours, theirs in (("linear_0", "fc1"), ("linear_1", "fc2")):
                for kind in ("weight", "bias"):
                    weights[f"{there}.{theirs}.{kind}"] = given[f"{here}/ffn/{ours}/{kind}"]
    return weights


def _attention(given: dict[str, Tensor], here: str, there: str) -> dict[str, Tensor]:
    """Take stacked projections apart; keys have no bias, so that of the file is zero."""
    weights = _norm(given, f"{here}/layer_norm", f"{there}_layer_norm")
    numbers = sorted({name.split("/")[3] for name in given if name.startswith(f"{here}/linear_")})
    names = ["q_proj", "k_proj", "v_proj", "out_proj"]
    for number in numbers:
        values = given[f"{here}/{number}/weight"]
        count = len(values) // values.shape[1]
        for kind in ("weight", "bias"):
            parts = given[f"{here}/{number}/{kind}"].chunk(count)
            for name, part in zip(names[:count], parts, strict=True):
                if (name, kind) != ("k_proj", "bias"):
                    weights[f"{there}.{name}.{kind}"] = part.contiguous()
        names = names[count:]
    return weights


def _norm(given: dict[str, Tensor], here: str, there: str) -> dict[str, Tensor]:
    return {f"{there}.weight": given[f"{here}/gamma"], f"{there}.bias": given[f"{here}/beta"]}


def _depth(variables: dict[str, np.ndarray], side: str) -> int:
    return len(
        {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")} - {"layer_norm"}
    )


if __name__ == "__main__":
    main()
