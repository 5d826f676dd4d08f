"""Configuration of ReDiFu."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

MODALITIES = ("text", "audio", "visual")
LARGEST_WINDOW = 2**31 - 1  # utterances; distances between them are compared with it
# The configuration field of each stream's backbone.
BACKBONE_CONFIGS = {"text": "text_config", "audio": "audio_config", "visual": "vision_config"}

# Keys that transformers passes to or stores in a configuration, in addition to its dataclass fields.
_INHERITED_KEYS = {
    "_commit_hash", "_name_or_path", "attn_implementation", "auto_map", "experts_implementation",
    "model_type", "name_or_path", "num_labels", "output_attentions", "torch_dtype", "use_cache",
}  # fmt: skip

_RELEASED: dict[str, dict[str, Any]] = {
    # The defaults of ReDiFuConfig are the released MELD recipe.
    "meld": {},
    "iemocap": {
        "hidden_size": 512,
        "num_attention_heads": 64,
        "audio_size": 1582,
        "num_speakers": 2,
        "relation_window": 20,
        "dropout": 0.5,
        "position_encoding": "rotary",
        "feed_forward_gelu_scale": 0.5,
        "encoder_residual_scale": 0.5,
        "head_activation": "leaky_relu",
        "head_residual": True,
        "modality_weights": [1.0, 1.0, 0.4],
    },
}
_RELEASED_LABELS = {
    "meld": ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"],
    "iemocap": ["happy", "sad", "neutral", "angry", "excited", "frustrated"],
}
_CHOICES = {
    "position_encoding": ("sinusoidal", "rotary"),
    "head_activation": ("relu", "leaky_relu"),
    "differential_attention": ("shifted_keys", "dual_maps", "none"),
    "fusion": ("mutual_attention", "concat", "text_diffusion"),
}
# Options of earlier versions; configurations may still contain them, but only with these values.
_DELETED = {"graph_implementation": "auto", "learned_modality_weights": False, "quality_size": None}


@strict
class ReDiFuConfig(PreTrainedConfig):
    """Configuration of a ReDiFu model; except for the labels, the defaults are the released MELD recipe.

    Args:
        text_size: number of text features; None for a model without text. `text_config` sets it.
        audio_size: number of audio features; None for a model without audio. `audio_config` sets it.
        visual_size: number of visual features; None for a model without video. `vision_config` sets it.
        text_config: configuration of a text backbone (any AutoModel); None reads precomputed text features.
        audio_config: configuration of a waveform backbone: wav2vec2, hubert, wavlm and similar models, or
            whisper, of which only the encoder is used.
        audio_layers: layers of a whisper backbone, counted from 1, whose means and standard deviations over
            time are the audio features; None for the mean of its last layer. Later layers are not built.
        vision_config: configuration of an image backbone: vit and similar models.
        hidden_size: size of every stream inside the model.
        num_attention_heads: heads of the differential encoders.
        fusion_num_attention_heads: heads of the fusion; None uses `num_attention_heads`.
        dropout: dropout everywhere except in the relation subgraphs.
        num_speakers: number of speakers with their own embedding; further speakers share one embedding.
        causal: whether utterances see only earlier ones and themselves.
        attention_window: maximum attention distance, in utterances, in the encoders and the fusion; None
            for the whole dialogue (released).
        differential_attention: "shifted_keys" (released), "dual_maps" (two maps with separate queries and
            keys) or "none" (ordinary attention).
        position_encoding: "sinusoidal" (released MELD) or "rotary" (released IEMOCAP).
        feed_forward_gelu_scale: c in c x (1 + tanh(...)) in the encoders; 0.5 is the standard GELU.
        encoder_residual_scale: factor on the encoded states when they are added to the positioned ones.
        relation_modalities: the streams that have relation subgraphs (released: text).
        cross_modal_relations: whether a subgraph also connects different streams of related utterances.
        relation_window: maximum distance between related utterances, in utterances.
        relation_embedding_size: size of a relation embedding.
        relation_dropout: dropout inside the relation subgraphs.
        fusion: "mutual_attention" (released), "text_diffusion" (audio and visual flow into the text) or
            "concat" (one head on the concatenated streams).
        diffusion_steps: steps of "text_diffusion".
        consistency_size: size of the vectors that compare an utterance's sound and picture with the same
            speaker's other utterances; a stream that does not match counts as missing. None disables this.
        head_activation: "relu" or "leaky_relu" before the heads.
        head_residual: whether the heads also read the streams from before the fusion.
        modality_weights: weights of the text, audio and visual logits in their sum.
        stream_loss_weight: weight of the squared cross-entropy of each stream's own head.
        temperature: divides the logits, so that their softmax is calibrated; the loss uses the undivided
            logits. Training fits it on dev.

    Raises:
        ValueError: an unknown key, a deleted option, or incompatible values.
    """

    model_type = "redifu"
    # So that transformers' Trainer evaluates the logits alone.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *(f"{name}_logits" for name in MODALITIES),
        *("present", "reliability", "consistency", "hidden_states", "attentions"),
    ]
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        field: SubConfigSpec(config_class=AutoConfig, model_type=family, optional=True)
        for field, family in (("text_config", "bert"), ("audio_config", "wav2vec2"), ("vision_config", "vit"))
    }

    # Streams: sizes of precomputed features, or the backbones that compute them.
    text_size: int | None = 1024
    audio_size: int | None = 300
    visual_size: int | None = 342
    text_config: PreTrainedConfig | dict | None = None
    audio_config: PreTrainedConfig | dict | None = None
    audio_layers: list[int] | tuple[int, ...] | None = None
    vision_config: PreTrainedConfig | dict | None = None
    # Everywhere.
    hidden_size: int = 256
    num_attention_heads: int = 16
    fusion_num_attention_heads: int | None = None
    dropout: float | int = 0.6
    num_speakers: int = 9
    causal: bool = False
    attention_window: int | None = None
    # Differential encoders.
    differential_attention: str = "shifted_keys"
    position_encoding: str = "sinusoidal"
    feed_forward_gelu_scale: float | int = 0.66
    encoder_residual_scale: float | int = 1.0
    # Relation subgraphs.
    relation_modalities: list[str] | tuple[str, ...] = ("text",)
    cross_modal_relations: bool = False
    relation_window: int = 25
    relation_embedding_size: int = 10
    relation_dropout: float | int = 0.2
    # Fusion, and which streams reach it.
    fusion: str = "mutual_attention"
    diffusion_steps: int = 1
    consistency_size: int | None = None
    # Heads, loss and calibration.
    head_activation: str = "relu"
    head_residual: bool = False
    modality_weights: list[float | int] | tuple[float | int, ...] = (3.0, 1.0, 0.3)
    stream_loss_weight: float | int = 0.1
    temperature: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive dependent fields and check all of them."""
        self._refuse_unknown(kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in _DELETED}
        if self.id2label is not None and self.label2id is None:
            self.label2id = {label: int(index) for index, label in self.id2label.items()}
        count = kwargs.get("num_labels")
        if self.id2label is not None and count not in (None, len(self.id2label)):
            raise ValueError(f"num_labels must match id2label, got {count} and {self.id2label}")
        super().__post_init__(**kwargs)
        self.relation_modalities = list(self.relation_modalities)
        self.modality_weights = list(self.modality_weights)
        for name, field in BACKBONE_CONFIGS.items():
            if isinstance(backbone := getattr(self, field), PreTrainedConfig):
                self._check_backbone(field, backbone)
                setattr(self, f"{name}_size", backbone.hidden_size)
        if self.audio_layers is not None:
            self.audio_layers = list(self.audio_layers)
            self.audio_size = 2 * len(self.audio_layers) * self._pooled_whisper().hidden_size
        self._check()

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        known = {field.name for field in fields(cls)}
        for key, value in given.items():
            if key in _DELETED and value != _DELETED[key]:
                expected = json.dumps(_DELETED[key])
                raise ValueError(
                    f"{key} is no longer supported: remove it or set it to {expected}, got {value!r}"
                )
            if key not in known | _INHERITED_KEYS | _DELETED.keys():
                nearest = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise ValueError(f"unknown configuration key {key!r}{hint}")

    def _check(self) -> None:
        # Not as @strict validators, because these do not raise ValueError.
        self._check_choices()
        self._check_sizes()
        self._check_numbers()

    @classmethod
    def released(cls, recipe: str, **overrides: Any) -> "ReDiFuConfig":
        """Return the configuration of a released model.

        Args:
            recipe: "iemocap" or "meld".
            overrides: fields to override.

        Raises:
            ValueError: there is no such recipe, or an override is invalid.
        """
        if recipe not in _RELEASED:
            raise ValueError(f"recipe must be one of {sorted(_RELEASED)}, got {recipe!r}")
        values = {**_RELEASED[recipe], **overrides}
        if not {"num_labels", "id2label"} & set(overrides):
            values["id2label"] = dict(enumerate(_RELEASED_LABELS[recipe]))
        if recipe == "iemocap":
            heads = values["num_attention_heads"]
            values.setdefault("fusion_num_attention_heads", max(heads // 2, 1))
        return cls(**values)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a dict and overrides, and check the overrides, which transformers does not.

        An override of `id2label`, or of `num_labels` with a different number, replaces all labels.
        """
        if not kwargs.get("return_unused_kwargs"):
            cls._refuse_unknown({key: kwargs[key] for key in kwargs.keys() - {"return_unused_kwargs"}})
        given = {name: kwargs.pop(name, None) for name in ("id2label", "label2id", "num_labels")}
        if given["id2label"] is not None or given["num_labels"] is not None:
            labels = changed_labels(config_dict.get("id2label") or {}, given["id2label"], given["num_labels"])
            config_dict = {**config_dict, "id2label": dict(enumerate(labels)), "label2id": None}
        result = super().from_dict(config_dict, **kwargs)
        (result[0] if isinstance(result, tuple) else result)._check()
        return result

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's streams, in the order text, audio, visual."""
        return tuple(name for name in MODALITIES if getattr(self, f"{name}_size") is not None)

    @property
    def labels(self) -> list[str]:
        """The label names, in the order of the logits."""
        names: dict[Any, str] = self.id2label or {}
        return [names[index] for index in range(len(names))]

    def _check_choices(self) -> None:
        """Check options whose values are names."""
        for field, choices in _CHOICES.items():
            if (value := getattr(self, field)) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
        given = self.relation_modalities
        if not set(given) <= set(MODALITIES) or len(set(given)) < len(given):
            raise ValueError(f"relation_modalities must be a subset of {', '.join(MODALITIES)}, got {given}")
        self._check_fusion()

    @staticmethod
    def _check_backbone(field: str, config: PreTrainedConfig) -> None:
        """Check that the model can run a backbone."""
        family = config.model_type
        if field == "audio_config" and family == "whisper":
            return  # only its encoder is built
        if field == "audio_config" and not hasattr(config, "conv_stride"):
            raise ValueError(
                "audio_config must configure a waveform encoder such as wav2vec2 or whisper, "
                f"got {family}, which does not read waveforms"
            )
        if field == "audio_config" and getattr(config, "add_adapter", False):
            raise ValueError("audio_config must not use an adapter, got add_adapter=True")
        if field == "vision_config" and not (
            hasattr(config, "image_size") and hasattr(config, "hidden_size")
        ):
            raise ValueError(f"vision_config must configure an image transformer such as vit, got {family}")
        if config.is_encoder_decoder:
            raise ValueError(f"{field} must configure an encoder or a decoder, got {family}, which has both")

    def _pooled_whisper(self) -> Any:
        """Return the configuration of the whisper backbone, after checking that it has `audio_layers`."""
        config, given = self.audio_config, list(self.audio_layers or ())
        if not isinstance(config, PreTrainedConfig) or config.model_type != "whisper":
            raise ValueError("audio_layers requires an audio_config of whisper")
        exist = set(given) <= set(range(1, config.encoder_layers + 1))
        if not given or sorted(set(given)) != given or not exist:
            raise ValueError(
                f"audio_layers must be ascending numbers from 1 to {config.encoder_layers}, got {given}"
            )
        return config

    def _check_fusion(self) -> None:
        """Check that options have the streams they require."""
        if self.cross_modal_relations and len(self.modalities) < 2:
            raise ValueError("cross_modal_relations requires two or more streams, got " + self.modalities[0])
        if self.fusion == "text_diffusion" and self.text_size is None:
            raise ValueError("fusion text_diffusion requires a text stream, but text_size is None")
        if self.consistency_size is not None and self.modalities == ("text",):
            raise ValueError("consistency_size requires an audio or visual stream; this model has only text")

    def _check_sizes(self) -> None:
        """Check that sizes are in range and divide each other."""
        heads = ["num_attention_heads"]
        if self.fusion_num_attention_heads is not None:
            heads.append("fusion_num_attention_heads")
        sizes = ["hidden_size", "num_speakers", "relation_embedding_size", *heads]
        sizes += [f"{name}_size" for name in self.modalities] + ["diffusion_steps"]
        sizes += ["consistency_size"] * (self.consistency_size is not None)
        windows = ["relation_window"] + ["attention_window"] * (self.attention_window is not None)
        for field, least in [*((size, 1) for size in sizes), *((window, 0) for window in windows)]:
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        for field in windows:
            if getattr(self, field) > LARGEST_WINDOW:
                raise ValueError(f"{field} must be at most {LARGEST_WINDOW:,}, got {getattr(self, field):,}")
        for field in heads:
            if self.hidden_size % getattr(self, field):
                raise ValueError(
                    f"{field} must divide hidden_size {self.hidden_size}, got {getattr(self, field)}"
                )
        if self.position_encoding == "rotary" and self.hidden_size % 2:
            raise ValueError(f"rotary positions require an even hidden_size, got {self.hidden_size}")
        if not self.modalities:
            raise ValueError(
                "at least one of text_size, audio_size and visual_size must be set; all are None"
            )

    def _check_numbers(self) -> None:
        """Check that probabilities and weights are in range."""
        for field in ("dropout", "relation_dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field in ("stream_loss_weight", "feed_forward_gelu_scale", "encoder_residual_scale"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be at least 0 and finite, got {getattr(self, field)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")
        weights = self.modality_weights
        if len(weights) != len(MODALITIES) or not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(
                f"modality_weights must be three finite, non-negative numbers, got {self.modality_weights}"
            )
        names = self.id2label or {}
        if not names or sorted(names) != list(range(len(names))) or len(set(names.values())) < len(names):
            raise ValueError(f"id2label must map 0, 1, ... to distinct labels, got {names}")


def changed_labels(
    old: Mapping[Any, str], id2label: Mapping[Any, str] | None, num_labels: int | None
) -> list[str]:
    """Return the label names after the changes that transformers' from_pretrained would make.

    Args:
        old: names by id, as in config.json.
        id2label: the new names by id, or None.
        num_labels: the new number of labels, or None; if it differs, labels are renamed LABEL_0, LABEL_1, ...

    Raises:
        ValueError: `id2label` skips an id or does not match `num_labels`.
    """
    names = {int(key): name for key, name in (old if id2label is None else id2label).items()}
    if id2label is None and num_labels not in (None, len(names)):
        names = {index: f"LABEL_{index}" for index in range(num_labels or 0)}
    if sorted(names) != list(range(len(names) if num_labels is None else num_labels)):
        raise ValueError(f"id2label must map exactly 0, 1, ..., num_labels - 1, got {id2label}")
    return [names[index] for index in range(len(names))]
