"""Folders of untrained models small enough to publish in every test."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from model.tiny_models import LABELS, SIZES, tiny_model
from redifu.model import ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition, ReDiFuProcessor
from training.toy import write_text_backbone

CONVERSATION: dict[str, Any] = {
    "id": "dinner-3",
    "utterances": [
        {"speaker": "Ana", "text": "great", **{f"{name}_features": [0.5] * n for name, n in SIZES.items()}},
        {"speaker": "Bo", "text": "never", "audio_features": [-1.0] * SIZES["audio"]},
    ],
}
METRICS: dict[str, Any] = {
    "weighted_f1": 61.514,
    "macro_f1": 38.77,
    "accuracy": 63.559,
    "nll": 1.09821,
    "ece": 0.0594,
    "intervals": {"weighted_f1": [59.29, 63.67]},
    "per_class": {
        label: {"precision": 50.0, "recall": 25.0, "f1": 100 / 3, "support": 7} for label in LABELS
    },
}


def write_features_model(folder: Path, *, seed: int = 0) -> Path:
    """A model that reads ready features of three streams."""
    tiny_model(seed=seed).save_pretrained(folder)
    extractor = ReDiFuFeatureExtractor(**{f"{name}_size": size for name, size in SIZES.items()})
    ReDiFuProcessor(extractor, labels=LABELS).save_pretrained(folder)
    return folder


def write_text_model(folder: Path) -> Path:
    """A model that reads text through a backbone, as a run leaves it: with metrics, recipe and logs."""
    backbone = write_text_backbone(folder.with_name(f"{folder.name}-backbone"))
    torch.manual_seed(0)
    fields = {"audio_size": None, "visual_size": None, "hidden_size": 8, "num_attention_heads": 2}
    model = ReDiFuForEmotionRecognition.from_backbones(
        text=str(backbone), fusion="concat", id2label=dict(enumerate(LABELS)), **fields
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    ReDiFuProcessor(ReDiFuFeatureExtractor(), tokenizer, labels=LABELS, max_text_tokens=16).save_pretrained(
        folder
    )
    (folder / "metrics.json").write_text(json.dumps({"best_epoch": 2, "dev": METRICS, "test": METRICS}))
    places = "model:\n  text_backbone: ana/words\ndata:\n  train: /home/ana/train.csv\n  dev: $MELD/dev.csv\n"
    (folder / "recipe.yaml").write_text(places)
    (folder / "log.jsonl").write_text("{}\n")
    return folder
