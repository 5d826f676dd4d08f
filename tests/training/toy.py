"""Conversations whose label their features tell, and recipes that learn it in seconds."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from redifu.training.recipe import Recipe

LABELS = ["calm", "glad", "cross"]
# Each label has a word and a direction of its own, and noise in both.
WORDS = ["well", "great", "never"]
TEXT_SIZE, AUDIO_SIZE = 4, 3


def toy_conversations(number: int, *, seed: int, longest: int = 6) -> list[dict[str, Any]]:
    """Dialogues of up to `longest` utterances; some utterances have no audio."""
    generator = random.Random(seed)
    return [
        {
            "id": f"toy-{index}",
            "utterances": [_utterance(generator) for _ in range(generator.randint(1, longest))],
        }
        for index in range(number)
    ]


def _utterance(generator: random.Random) -> dict[str, Any]:
    label = generator.randrange(len(LABELS))
    utterance: dict[str, Any] = {"speaker": generator.choice(["Ana", "Bo"]), "label": LABELS[label]}
    utterance["text"] = f"{WORDS[label]} {generator.choice(WORDS)}"
    for name, size in (("text", TEXT_SIZE), ("audio", AUDIO_SIZE)):
        utterance[f"{name}_features"] = [generator.gauss(place == label, 0.4) for place in range(size)]
    if generator.random() < 0.2:
        utterance["audio_features"] = None
    return utterance


def write_conversations(path: Path, conversations: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in conversations), encoding="utf-8")
    return path


def write_toy_data(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for seed, (name, number) in enumerate({"train": 20, "dev": 8, "test": 8}.items()):
        write_conversations(folder / f"{name}.jsonl", toy_conversations(number, seed=seed))


def write_text_backbone(folder: Path) -> Path:
    """A BERT that knows the toy words."""
    folder.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", "ana", "bo", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **shape)).save_pretrained(folder)
    return folder


def toy_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """The mapping of a recipe on the data in `folder`; `changes` are SECTION_KEY=value."""
    model = {"hidden_size": 8, "num_attention_heads": 2, "num_speakers": 2, "relation_window": 3}
    model |= {"text_size": TEXT_SIZE, "audio_size": AUDIO_SIZE, "visual_size": None, "dropout": 0.1}
    values: dict[str, Any] = {
        "model": model,
        "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "dev", "test")},
        "training": {"output": str(folder / "model"), "epochs": 3, "batch_size": 4, "learning_rate": 0.01},
    }
    values["data"]["labels"] = LABELS
    for name, value in changes.items():
        section, key = name.split("_", maxsplit=1)
        values[section][key] = value
    return values


def toy_recipe(folder: Path, **changes: Any) -> Recipe:
    return Recipe.from_dict(toy_values(folder, **changes))
