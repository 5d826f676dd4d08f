"""ReDiFu: the emotion of every utterance of a conversation from its text, sound and picture.

Source: arXiv 2603.25752; `ReDiFuConfig.released` reproduces the authors' released model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_redifu import ReDiFuConfig
from .conversation_inputs import check_ids, check_inputs, check_labels, stream_presence
from .differential_attention import DifferentialEncoder
from .emotion_heads import build_head
from .losses import IGNORED_LABEL, emotion_loss
from .relation_subgraphs import conversation_graph
from .remote_code import CarriesCode
from .speaker_relations import CrossModalRelations, SpeakerRelations
from .text_backbone import embed_by_length, embed_texts, load_backbone_weights, read_backbone_config
from .text_guided_fusion import build_fusion

# Bounds the memory of the text backbone; 1,024 tokens at once were faster on a CPU than 4,096 or 8,192.
TEXT_CHUNK_TOKENS = 1024


@dataclass
class ReDiFuModelOutput(ModelOutput):
    """What `ReDiFuModel` returns.

    Attributes:
        last_hidden_state: (batch, utterances, streams * hidden), the fused streams, zero where missing.
        present: (batch, utterances, streams) bool, the streams each real utterance has after the fusion.
        reliability: (batch, utterances, 3) in 0 to 1, of text, audio and visual; of text_diffusion only.
        hidden_states: on request, (batch, utterances, hidden) by name of the step.
        attentions: on request (eager only), weights by name: (batch, heads, utterances, utterances); none of
            a subgraph of edges or of an attention with a window.
    """

    last_hidden_state: Tensor | None = None
    present: Tensor | None = None
    reliability: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None


@dataclass
class ReDiFuEmotionRecognitionOutput(ModelOutput):
    """What `ReDiFuForEmotionRecognition` returns.

    Attributes:
        loss: scalar, with labels.
        logits: (batch, utterances, labels), un-normalised; what masks hide is finite and means nothing.
        text_logits: the same of the text stream alone, None where a fusion has no head per stream.
        audio_logits: the same of the audio stream.
        visual_logits: the same of the visual stream.
        reliability: see `ReDiFuModelOutput`.
        hidden_states: see `ReDiFuModelOutput`.
        attentions: see `ReDiFuModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_logits: Tensor | None = None
    audio_logits: Tensor | None = None
    visual_logits: Tensor | None = None
    reliability: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None


class ReDiFuPreTrainedModel(CarriesCode, PreTrainedModel):
    """Loading, saving and initialisation of ReDiFu models."""

    config: ReDiFuConfig
    config_class = ReDiFuConfig
    base_model_prefix = "redifu"
    main_input_name = "text_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as every model of transformers, from safetensors only: what is pickled is not opened.

        Raises:
            ValueError: pickled weights are asked for.
            OSError: there are no weights in safetensors.
        """
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError("weights are read from safetensors only, got use_safetensors=False")
        return super().from_pretrained(*args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        # torch's own defaults, as in the released recipe; the base class draws every Linear from a normal.
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


class ReDiFuModel(ReDiFuPreTrainedModel):
    """Relations, differential encoders and fusion, without a head on top."""

    def __init__(self, config: ReDiFuConfig):
        """Build from a configuration; touches no file."""
        super().__init__(config)
        if config.text_config is not None:
            self.text_backbone = AutoModel.from_config(config.text_config, dtype=torch.get_default_dtype())
            if hasattr(self.text_backbone, "pooler"):
                self.text_backbone.pooler = (
                    None  # mean pooling reads the tokens: a pooler would never be trained
                )
        sizes = {name: getattr(config, f"{name}_size") for name in config.modalities}
        self.projections = nn.ModuleDict(
            {name: nn.Linear(size, config.hidden_size) for name, size in sizes.items()}
        )
        relation_modalities = [name for name in config.relation_modalities if name in sizes]
        self.relations = nn.ModuleDict({name: SpeakerRelations(config) for name in relation_modalities})
        if config.cross_modal_relations:
            self.cross_modal_relations = CrossModalRelations(config)
        encoded = [name for name in ("audio", "visual") if name in sizes]
        self.encoders = nn.ModuleDict({name: DifferentialEncoder(config) for name in encoded})
        if encoded:
            self.speaker_embedding = nn.Embedding(config.num_speakers + 1, config.hidden_size)
        self.fusion = build_fusion(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        text_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        visual_features: Tensor | None = None,
        *,
        utterance_mask: Tensor | None = None,
        modality_mask: Tensor | None = None,
        speaker_ids: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        quality_features: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ReDiFuModelOutput:
        """Encode conversations.

        Args:
            text_features: (batch, utterances, text size) float, or None.
            audio_features: (batch, utterances, audio size) float, or None.
            visual_features: (batch, utterances, visual size) float, or None.
            utterance_mask: (batch, utterances) bool or 0/1, True for real utterances; None for all.
            modality_mask: (batch, utterances, 3) bool or 0/1, streams present; None for what is given.
            speaker_ids: (batch, utterances) int, numbered from 0 in each dialogue; None for one speaker.
            input_ids: (real utterances with text, tokens) int, row by row, in place of `text_features`.
            attention_mask: (real utterances with text, tokens), 1 for real tokens; None for all.
            quality_features: (batch, utterances, 2, measures) float, of audio and visual, NaN where a
                measure is unknown, or None.
            output_hidden_states: whether to return the states of every step.
            output_attentions: whether to return attention weights.

        Raises:
            ValueError: for inputs that do not fit the model or each other.
        """
        config = self.config
        want_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        want_attentions = config.output_attentions if output_attentions is None else output_attentions
        if want_attentions and config._attn_implementation != "eager":
            raise ValueError("attention weights are returned by attn_implementation='eager' only, got 'sdpa'")
        features = {"text": text_features, "audio": audio_features, "visual": visual_features}
        check_inputs(
            config,
            features,
            utterance_mask=utterance_mask,
            modality_mask=modality_mask,
            speaker_ids=speaker_ids,
            input_ids=input_ids,
            attention_mask=attention_mask,
            quality_features=quality_features,
        )
        real, present = stream_presence(features, input_ids, utterance_mask, modality_mask, speaker_ids)
        if input_ids is not None:
            features["text"] = self._encode_text(input_ids, attention_mask, present["text"])
        speaker_ids = torch.zeros_like(real, dtype=torch.long) if speaker_ids is None else speaker_ids
        check_ids("speaker_ids", speaker_ids, counted=real)
        positions = (real.long().cumsum(-1) - 1).masked_fill(~real, real.shape[1])
        streams, states, attentions = self._encode_streams(
            features, speaker_ids.masked_fill(~real, 0), positions, present
        )
        fusion = self.fusion(
            streams,
            present={name: present[name] for name in config.modalities},
            positions=positions,
            quality_features=quality_features,
        )
        fused = fusion.streams
        states |= {f"{name}_fused": hidden for name, hidden in fused.items()}
        attentions |= fusion.attentions
        if config.head_residual:
            fused = {name: hidden + streams[name] for name, hidden in fused.items()}
        return ReDiFuModelOutput(
            last_hidden_state=torch.cat([fused[name] for name in config.modalities], dim=-1),
            present=torch.stack([fusion.present[name] for name in config.modalities], dim=-1),
            reliability=fusion.reliability,
            hidden_states=states if want_states else None,
            attentions={name: w for name, w in attentions.items() if w is not None}
            if want_attentions
            else None,
        )

    def relation_graph(self, conversation: Mapping[str, Any]) -> Any:
        """Return the relation subgraphs of a conversation; see `conversation_graph`."""
        return conversation_graph(conversation, self.config)

    def _encode_streams(
        self,
        features: Mapping[str, Tensor | None],
        speaker_ids: Tensor,
        positions: Tensor,
        present: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor | None]]:
        """Project every stream, denoise audio and visual, relate utterances inside and across streams."""
        streams: dict[str, Tensor] = {}
        states: dict[str, Tensor] = {}
        attentions: dict[str, Tensor | None] = {}
        for name in self.config.modalities:
            here = present[name]
            streams[name] = states[f"{name}_projected"] = self._project(name, features[name], here)
            if name in self.encoders:
                speakers = self.speaker_embedding(speaker_ids.clamp(max=self.config.num_speakers))
                streams[name], encoded, weights = self.encoders[name](
                    streams[name], speakers, positions=positions, present=here
                )
                states |= {f"{name}_encoded": encoded, f"{name}_gated": streams[name]}
                attentions[f"{name}_encoded"] = weights
            if name in self.relations:
                related, by_step = self.relations[name](
                    streams[name], speaker_ids, positions=positions, present=here
                )
                streams[name] = related["intra_speaker"]
                states |= {f"{name}_{step}": hidden for step, hidden in related.items()}
                attentions |= {f"{name}_{step}": weight for step, weight in by_step.items()}
        if self.config.cross_modal_relations:
            streams, attentions["cross_modal"] = self.cross_modal_relations(
                streams, speaker_ids, positions=positions, present=present
            )
            states |= {f"{name}_cross_modal": hidden for name, hidden in streams.items()}
        return streams, states, attentions

    def _project(self, name: str, features: Tensor | None, present: Tensor) -> Tensor:
        """Project a stream to (batch, utterances, hidden), zero where it is missing, whatever stood there."""
        if features is None:
            return torch.zeros(*present.shape, self.config.hidden_size, dtype=self.dtype, device=self.device)
        given = features.to(self.dtype).masked_fill(~present[..., None], 0.0)
        projected = self.projections[name](given)
        return projected.masked_fill(~present[..., None], 0.0)

    def text_embeddings(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embed texts by the text backbone, (texts, tokens) to (texts, text size).

        As `text_features`, embeddings give what their texts give as `input_ids`: each need be made only once.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        embed = partial(embed_texts, self.text_backbone)
        return embed_by_length(embed, input_ids, mask.bool(), chunk_tokens=TEXT_CHUNK_TOKENS)

    def _encode_text(
        self, input_ids: Tensor, attention_mask: Tensor | None, present: Tensor
    ) -> Tensor | None:
        """Encode the texts and set them into (batch, utterances, text size); None without any text."""
        places = present.flatten().nonzero().squeeze(-1)
        if len(places) != len(input_ids):
            raise ValueError(
                f"input_ids must have a row for each of {len(places)} texts, got {len(input_ids)}"
            )
        if not len(places):
            return None
        pooled = self.text_embeddings(input_ids, attention_mask)
        grid = pooled.new_zeros(present.numel(), pooled.shape[-1]).index_copy(0, places, pooled)
        return grid.unflatten(0, present.shape)


class ReDiFuForEmotionRecognition(ReDiFuPreTrainedModel):
    """ReDiFu with heads for the emotion of every utterance."""

    def __init__(self, config: ReDiFuConfig):
        """Build from a configuration; touches no file."""
        super().__init__(config)
        self.redifu = ReDiFuModel(config)
        self.classifier = build_head(config)
        self.post_init()

    @classmethod
    def from_text_backbone(
        cls, name_or_path: str, *, text_config: dict[str, Any] | None = None, **config_fields: Any
    ) -> "ReDiFuForEmotionRecognition":
        """Build an untrained fusion on a pretrained text backbone.

        Args:
            name_or_path: a folder or Hub id that AutoModel loads.
            text_config: fields of the backbone's configuration to set otherwise, its dropout for instance.
            config_fields: fields of `ReDiFuConfig`.
        """
        backbone_config = read_backbone_config(name_or_path, text_config or {})
        model = cls(ReDiFuConfig(text_config=backbone_config, **config_fields))
        load_backbone_weights(model.redifu.text_backbone, name_or_path)
        return model

    @can_return_tuple
    def forward(
        self,
        text_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        visual_features: Tensor | None = None,
        *,
        utterance_mask: Tensor | None = None,
        modality_mask: Tensor | None = None,
        speaker_ids: Tensor | None = None,
        labels: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        quality_features: Tensor | None = None,
        class_weights: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ReDiFuEmotionRecognitionOutput:
        """Recognise the emotion of every utterance.

        Args:
            text_features: (batch, utterances, text size) float, or None.
            audio_features: (batch, utterances, audio size) float, or None.
            visual_features: (batch, utterances, visual size) float, or None.
            utterance_mask: as of `ReDiFuModel.forward`, like all that is not described here.
            modality_mask: (batch, utterances, 3) bool or 0/1.
            speaker_ids: (batch, utterances) int.
            labels: (batch, utterances) int, -100 ignored.
            input_ids: (real utterances with text, tokens) int.
            attention_mask: (real utterances with text, tokens).
            quality_features: (batch, utterances, 2, measures) float.
            class_weights: (labels,) float, weights of the classes in the loss.
            output_hidden_states: whether to return the states of every step.
            output_attentions: whether to return attention weights.

        Raises:
            ValueError: for inputs that do not fit the model or each other.
        """
        base = self.redifu(
            text_features,
            audio_features,
            visual_features,
            utterance_mask=utterance_mask,
            modality_mask=modality_mask,
            speaker_ids=speaker_ids,
            input_ids=input_ids,
            attention_mask=attention_mask,
            quality_features=quality_features,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits, stream_logits = self.classifier(base.last_hidden_state, base.present)
        loss = None
        if labels is not None:
            loss = self._loss(
                logits, stream_logits, labels=labels, present=base.present, class_weights=class_weights
            )
        return ReDiFuEmotionRecognitionOutput(
            loss=loss,
            logits=logits,
            **{f"{name}_logits": value for name, value in stream_logits.items()},
            reliability=base.reliability,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )

    def _loss(
        self,
        logits: Tensor,
        stream_logits: Mapping[str, Tensor],
        *,
        labels: Tensor,
        present: Tensor,
        class_weights: Tensor | None,
    ) -> Tensor:
        check_labels(labels, class_weights, shape=tuple(logits.shape[:2]), num_labels=logits.shape[2])
        return emotion_loss(
            logits,
            labels.masked_fill(~present.any(dim=-1), IGNORED_LABEL),
            stream_logits=stream_logits,
            present=dict(zip(self.config.modalities, present.unbind(-1), strict=True)),
            stream_weight=self.config.stream_loss_weight,
            class_weights=class_weights,
        )
