"""Processors and conversations small enough to build in every test."""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from model.tiny_models import LABELS, SIZES
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Ana", "Ben", ":", "hello", "no", "yes", "you", "came", "!"]


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token a word; a text stands between [CLS] and [SEP]."""
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = special or {"sep_token": "[SEP]", "cls_token": "[CLS]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", **named)


def feature_processor(**fields: Any) -> ReDiFuProcessor:
    """A processor of ready features of all streams."""
    sizes = {f"{name}_size": size for name, size in SIZES.items()}
    return ReDiFuProcessor(ReDiFuFeatureExtractor(**sizes), labels=LABELS, **fields)


def text_processor(**fields: Any) -> ReDiFuProcessor:
    """A processor of texts and ready audio features."""
    return ReDiFuProcessor(ReDiFuFeatureExtractor(audio_size=5), tokenizer(), labels=LABELS, **fields)


def utterance(speaker: str = "Ana", **streams: Any) -> dict[str, Any]:
    return {"speaker": speaker, **streams}


def conversation(*utterances: dict[str, Any], name: str = "d1") -> dict[str, Any]:
    return {"id": name, "utterances": list(utterances)}
