"""Makes the data of the comparisons: controlled conversations, CMU-MOSI, and MELD's own speech.

`paired` joins MELD's texts, speakers and labels with clips of RAVDESS, which provide sound (log_mel) and
action units (OpenFace). The texts are embedded once, by the frozen all-MiniLM-L6-v2. OUTPUT then holds

    paired/           features, one row per utterance: text 384, audio 291, visual 35, and the sound's quality
    paired-raw.jsonl  the same conversations with their texts and the paths of their sounds
    noisy/            copies of the training conversations with noise in their sounds: 1.1 GB
    paired-noisy/     features of these copies
    mosi.parquet      CMU-MOSI with its own features and named labels
    meld-speech-F.parquet
                      MELD's dev set with embeddings of its own texts and speech; each dialogue is in the
                      test set of one fold F, 1 to 5

    python scripts/evidence/prepare_data.py path/to/data --output path/to/evidence --num-proc 2
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from transformers import AutoModel, AutoTokenizer

from redifu.conversation import Conversation
from redifu.data.extraction import extract_conversations
from redifu.data.noisy_copies import write_noisy_copies
from redifu.data.readers import conversations_from_table, read_conversations
from redifu.data.writers import write_conversations
from redifu.media.face_features import ACTION_UNITS
from redifu.model import ReDiFuFeatureExtractor
from redifu.model.backbones import encode_texts
from redifu.training.build import backbone_folder

SPLITS = ("train", "dev", "test")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS_AT_ONCE = 64
TRAINING_SNR = (-5, 20)  # dB
FOLDS, DEV_SHARE = 5, 1 / 8  # of MELD's speech, by dialogue; the share is of the training dialogues
# Whether a clip shows the label is for analysis only, and not an input.
COLUMNS = [
    "Dialogue_ID",
    "Utterance_ID",
    "Speaker",
    "Utterance",
    "Emotion",
    "split",
    "audio",
    "visual_features",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with meld, ravdess, paired, mosi, ...")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num-proc", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    raw = options.output / "paired-raw.jsonl"
    write_conversations(raw, paired_conversations(options.data, folder=options.output))
    training = read_conversations(raw, split="train")
    noisy = write_noisy_copies(training, options.output / "noisy", snr=TRAINING_SNR)
    for name, source in {"paired": raw, "paired-noisy": noisy}.items():
        extract_conversations(
            with_text_features(list(read_conversations(source))),
            options.output / name,
            extractor=ReDiFuFeatureExtractor(audio_backend="log_mel"),
            num_processes=options.num_proc,
        )
    write_mosi(options.data / "mosi" / "utterances.parquet", options.output / "mosi.parquet")
    write_meld_speech(options.data, options.output)


def paired_conversations(data: Path, *, folder: Path) -> Iterator[Conversation]:
    """Join MELD and RAVDESS by the table of pairs; sound paths are relative to `folder`."""
    pairs = pd.read_csv(data / "paired" / "pairs.csv", dtype=str)
    units = pd.read_csv(data / "ravdess" / "action_units.csv", index_col="clip")[list(ACTION_UNITS)]
    sounds = os.path.relpath(data / "ravdess" / "audio", folder)
    for split in SPLITS:
        table = pd.read_csv(data / "meld" / f"{split}.csv", dtype=str, keep_default_na=False)
        table = table.drop(columns=["StartTime", "EndTime"]).merge(
            pairs[pairs["split"] == split],
            left_on=["Dialogue_ID", "Utterance_ID"],
            right_on=["dialogue_id", "utterance_id"],
            validate="one_to_one",
        )
        table["audio"] = [f"{sounds}/{clip}.flac" for clip in table["audio_clip"]]
        table["visual_features"] = [units.loc[clip].tolist() for clip in table["visual_clip"]]
        table = table[COLUMNS]
        yield from conversations_from_table(pa.Table.from_pandas(table, preserve_index=False), source="pairs")


def with_text_features(conversations: list[Conversation]) -> list[Conversation]:
    """Replace each text by its mean-pooled embedding."""
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder(MINILM))
    backbone = AutoModel.from_pretrained(backbone_folder(MINILM)).eval()
    texts = sorted({str(one.text) for each in conversations for one in each.utterances}, key=len)
    embedded = {}
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[first : first + TEXTS_AT_ONCE]
        tokens = tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            rows = encode_texts(backbone, tokens["input_ids"], tokens["attention_mask"].bool())
        embedded.update(zip(part, rows.numpy(), strict=True))
    replaced = []
    for each in conversations:
        given = each.to_dict()
        for utterance in given["utterances"]:
            utterance["text_features"] = embedded[utterance.pop("text")]
        replaced.append(Conversation.from_dict(given, folder=each.folder))
    return replaced


def write_mosi(source: Path, output: Path) -> None:
    """Write CMU-MOSI with named labels and without its texts."""
    table = pd.read_parquet(source)
    table["label"] = table["label"].map({0: "negative", 1: "positive"})
    # The models read features only.
    table.drop(columns="text").to_parquet(output, index=False)


def write_meld_speech(data: Path, output: Path) -> None:
    """Write the folds of MELD's dev set, with embeddings of its texts and speech."""
    table = pd.read_csv(data / "meld" / "dev.csv", dtype=str, keep_default_na=False)
    # This utterance has no embeddings.
    table = table[(table["Dialogue_ID"] != "110") | (table["Utterance_ID"] != "7")]
    names = {"Dialogue_ID": "dialogue_id", "Utterance_ID": "turn", "Speaker": "speaker", "Emotion": "label"}
    table = table[list(names)].rename(columns=names)
    for stream, name in {"text": "text_roberta_base_val", "audio": "audio_wav2vec2_val"}.items():
        rows = np.load(data / "meld_dev_embeddings" / f"{name}.npy", allow_pickle=False)
        table[f"{stream}_features"] = list(rows)
    dialogues = np.random.default_rng(0).permutation(table["dialogue_id"].unique())
    folds = np.array_split(dialogues, FOLDS)
    for number, tested in enumerate(folds, start=1):
        rest = [dialogue for fold in folds if fold is not tested for dialogue in fold]
        splits = dict.fromkeys(tested, "test") | dict.fromkeys(rest, "train")
        splits |= dict.fromkeys(rest[:: round(1 / DEV_SHARE)], "dev")
        table["split"] = table["dialogue_id"].map(splits)
        table.to_parquet(output / f"meld-speech-{number}.parquet", index=False)


if __name__ == "__main__":
    main()
