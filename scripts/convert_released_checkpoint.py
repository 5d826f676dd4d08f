"""Converts weights of the released ReDiFu into a folder that AutoModelForSequenceClassification loads.

    python scripts/convert_released_checkpoint.py --weights FILE.safetensors --recipe iemocap \\
        --num-heads 64 --window 20 --output DIR

FILE uses the released names, with or without the prefix `weight.`. Names with other prefixes and the
position constants are ignored. Sizes follow from the shapes; the heads and the window do not, so give them.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from redifu import ReDiFuConfig, ReDiFuForEmotionRecognition

CONSTANTS = ("pos_emb.pe", "pos_emb.inv_freq", "pos_emb.modality_scales")

# Released module, module here, {released name inside it: name here}; without a final .weight or .bias.
GRAPH = {
    "attentions.0.W": "inputs.0.weight",
    "attentions.0.a": "inputs.0.attention",
    "attentions.0.layer_norm": "inputs.0.norm",
    "attentions.1.W": "inputs.1.weight",
    "attentions.1.a": "inputs.1.attention",
    "attentions.1.layer_norm": "inputs.1.norm",
    "out_att.W": "joint.weight",
    "out_att.a": "joint.attention",
    "out_att.layer_norm": "joint.norm",
    "fc": "projection",
    "layer_norm": "norm",
}
# One embedding, shared by every layer and named in each.
SHARED_EMBEDDING = {
    f"{layer}.relation_embedding": "embedding" for layer in ("attentions.0", "attentions.1", "out_att")
}
ENCODER = {
    "delta_net.alpha": "delta.alpha",
    "delta_net.conv": "delta.convolution",
    "delta_net.norm": "delta.norm",
    "delta_net.gate.0": "delta.gate",
    "context_gate.norm": "context_gate.norm",
    "context_gate.w.0": "context_gate.hidden",
    "context_gate.w.2": "context_gate.output",
    "pre_norm": "input_norm",
    "internal_transformer.0.self_attn.qkv": "attention.qkv",
    "internal_transformer.0.self_attn.out": "attention.output",
    "internal_transformer.0.self_attn.lambda_": "attention.strength",
    "internal_transformer.0.norm1": "attention_norm",
    "internal_transformer.0.feed_forward.layer_norm": "feed_forward.norm",
    "internal_transformer.0.feed_forward.w_1": "feed_forward.inner",
    "internal_transformer.0.feed_forward.w_2": "feed_forward.outer",
    "internal_transformer.0.norm2": "feed_forward_norm",
}
FUSION = {
    "norm_{}": "norms.{}",
    "attn_{}.qkv": "streams.{}.attention.qkv",
    "attn_{}.proj": "streams.{}.attention.output",
    "gate_{}.gate.0": "streams.{}.feed_forward.gate",
    "mlp_{}.layers.0": "streams.{}.feed_forward.layers.0",
    "mlp_{}.layers.3": "streams.{}.feed_forward.layers.1",
    "mlp_{}.layers.6": "streams.{}.feed_forward.layers.2",
    "mlp_{}.layers.9": "streams.{}.feed_forward.layers.3",
}
STREAMS = {"t": "text", "a": "audio", "v": "visual"}
MODULES = [
    ("textf_input", "redifu.projections.text", {}),
    ("acouf_input", "redifu.projections.audio", {}),
    ("visuf_input", "redifu.projections.visual", {}),
    ("speaker_embeddings", "redifu.speaker_embedding", {}),
    ("gatTer", "redifu.relations.text.inter_speaker", GRAPH),
    ("gatT", "redifu.relations.text.intra_speaker", GRAPH),
    ("gatTer", "redifu.relations.text", SHARED_EMBEDDING),
    ("gatT", "redifu.relations.text", SHARED_EMBEDDING),
    ("a_a", "redifu.encoders.audio", ENCODER),
    ("v_v", "redifu.encoders.visual", ENCODER),
    ("agate.gate.0", "redifu.encoders.audio.filter_gate", {}),
    ("vgate.gate.0", "redifu.encoders.visual.filter_gate", {}),
    *(
        ("mutual_former", "redifu.fusion", {old.format(key): new.format(name) for old, new in FUSION.items()})
        for key, name in STREAMS.items()
    ),
    *((f"{key}_output_layer.2", f"classifier.outputs.{name}", {}) for key, name in STREAMS.items()),
]

NAMES = {
    f"{old_module}.{old}" if old else old_module: f"{new_module}.{new}" if new else new_module
    for old_module, new_module, parts in MODULES
    for old, new in (parts or {"": ""}).items()
}
RELEASED_NAMES = {new: old for old, new in NAMES.items()}


def translate(name: str, table: dict[str, str]) -> str | None:
    """Return the name that `table` gives to a weight or to its module, or None."""
    stem, _, ending = name.rpartition(".")
    if name in table or stem not in table:
        return table.get(name)
    return f"{table[stem]}.{ending}" if ending in ("weight", "bias") else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the learned weights of a file under their released names, without prefix and constants."""
    if not path.is_file():
        raise ValueError("no such file")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file ({error})") from error
    prefixed = {name[len("weight.") :]: x for name, x in tensors.items() if name.startswith("weight.")}
    modules = {old.split(".")[0] for old in NAMES}
    bare = {name: x for name, x in tensors.items() if name.split(".")[0] in modules}
    return {name: x for name, x in (prefixed or bare).items() if not name.endswith(CONSTANTS)}


def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to their names in this package; copies of the shared embedding must agree."""
    renamed: dict[str, Tensor] = {}
    for old, tensor in sorted(weights.items()):
        new = translate(old, NAMES)
        if new is None:
            raise ValueError(f"{old} is not a weight of the released model")
        if not torch.equal(renamed.setdefault(new, tensor), tensor):
            raise ValueError(f"{old} must equal the other copies of the embedding that the layers share")
    return renamed


def infer_config(weights: dict[str, Tensor], *, recipe: str, num_heads: int, window: int) -> ReDiFuConfig:
    """Return the configuration of renamed weights."""

    def rows_and_columns(name: str) -> tuple[int, int]:
        if name not in weights:
            raise ValueError(f"{translate(name, RELEASED_NAMES)} is missing")
        if weights[name].dim() != 2:
            shape = tuple(weights[name].shape)
            raise ValueError(f"{translate(name, RELEASED_NAMES)} must have two axes, got shape {shape}")
        rows, columns = weights[name].shape
        return rows, columns

    projections = {name: rows_and_columns(f"redifu.projections.{name}.weight") for name in STREAMS.values()}
    num_labels = rows_and_columns("classifier.outputs.text.weight")[0]
    # Label names are known only if there are as many labels as in the recipe.
    same_labels = num_labels == ReDiFuConfig.released(recipe).num_labels
    return ReDiFuConfig.released(
        recipe,
        hidden_size=projections["text"][0],
        num_attention_heads=num_heads,
        relation_window=window,
        num_speakers=rows_and_columns("redifu.speaker_embedding.weight")[0] - 1,
        relation_embedding_size=rows_and_columns("redifu.relations.text.embedding.weight")[1],
        **{f"{name}_size": columns for name, (_, columns) in projections.items()},
        **({} if same_labels else {"num_labels": num_labels}),
    )


def check_shapes(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that weights have the names and shapes of `expected`."""
    if missing := sorted(str(translate(name, RELEASED_NAMES)) for name in expected.keys() - weights.keys()):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(f"{missing[0]}{more} missing")
    for name, tensor in weights.items():
        wanted, got = tuple(expected[name].shape), tuple(tensor.shape)
        if wanted != got:
            raise ValueError(f"{translate(name, RELEASED_NAMES)} must have shape {wanted}, got {got}")


def convert(path: Path, output: Path, *, recipe: str, num_heads: int, window: int) -> None:
    """Write the folder of a released checkpoint.

    Raises:
        ValueError: the file, sizes or names are not those of the released model.
    """
    weights = rename(read_weights(path))
    config = infer_config(weights, recipe=recipe, num_heads=num_heads, window=window)
    model = ReDiFuForEmotionRecognition(config)
    check_shapes(weights, model.state_dict())
    model.load_state_dict(weights)
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)


def main(arguments: list[str] | None = None) -> int:
    """Convert, and return the exit status: 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="safetensors file with the released names"
    )
    parser.add_argument("--recipe", choices=("iemocap", "meld"), required=True, help="the released recipe")
    parser.add_argument("--num-heads", type=int, required=True, help="attention heads of the encoders")
    parser.add_argument(
        "--window", type=int, required=True, help="maximum distance between related utterances"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    options = vars(parser.parse_args(arguments))
    path = options.pop("weights")
    try:
        convert(path, **options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {path}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
