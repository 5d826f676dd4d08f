"""ReDiFu: the emotion of every utterance of a conversation from its text, sound and picture.

Source: arXiv 2603.25752; `ReDiFuConfig.released` reproduces the authors' released model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import can_return_tuple

from .backbones import (
    build_backbone,
    encode_pictures,
    encode_texts,
    encode_waveforms,
    load_backbones,
    read_backbone_configs,
    text_backbone_of,
)
from .configuration_redifu import BACKBONE_CONFIGS, ReDiFuConfig
from .differential_attention import DifferentialEncoder
from .emotion_heads import build_head
from .fusion import build_fusion
from .input_checks import RAW_INPUTS, check_ids, check_inputs, check_labels, stream_presence
from .losses import IGNORED_LABEL, emotion_loss
from .model_outputs import ReDiFuEmotionRecognitionOutput, ReDiFuModelOutput
from .relation_subgraphs import conversation_graph
from .remote_code import CarriesCode
from .speaker_consistency import SpeakerConsistency
from .speaker_relations import CrossModalRelations, SpeakerRelations


class ReDiFuPreTrainedModel(CarriesCode, PreTrainedModel):
    """Loading, saving and initialisation of ReDiFu models."""

    config: ReDiFuConfig
    config_class = ReDiFuConfig
    base_model_prefix = "redifu"
    main_input_name = "text_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    accepts_loss_kwargs = False  # transformers' Trainer must not pass it a number of items

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
        for name, field in BACKBONE_CONFIGS.items():
            if (backbone_config := getattr(config, field)) is not None:
                self.add_module(f"{name}_backbone", build_backbone(backbone_config))
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
        if config.consistency_size is not None:
            self.consistency = SpeakerConsistency(config)
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
        audio_values: Tensor | None = None,
        audio_values_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
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
            audio_values: (real utterances with audio, samples) float, in place of `audio_features`.
            audio_values_mask: (real utterances with audio, samples), 1 for real samples; None for all.
            pixel_values: (real utterances with visual, pictures, channels, height, width) float, in place of
                `visual_features`.
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
        raw = {"text": input_ids, "audio": audio_values, "visual": pixel_values}
        raw_masks = {"text": attention_mask, "audio": audio_values_mask}
        check_inputs(
            config,
            features,
            raw=raw,
            raw_masks=raw_masks,
            utterance_mask=utterance_mask,
            modality_mask=modality_mask,
            speaker_ids=speaker_ids,
            quality_features=quality_features,
        )
        real, present = stream_presence(features, raw, utterance_mask, modality_mask, speaker_ids)
        for name, values in raw.items():
            if values is not None:
                features[name] = self._encode_raw(name, values, raw_masks.get(name), present[name])
        speaker_ids = torch.zeros_like(real, dtype=torch.long) if speaker_ids is None else speaker_ids
        check_ids("speaker_ids", speaker_ids, counted=real)
        consistency = None
        if config.consistency_size is not None:
            consistency = self.consistency(features, speaker_ids, present).sigmoid()
            present = self.consistency.kept(consistency, present)
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
            consistency=consistency,
            hidden_states=states if want_states else None,
            attentions={name: w for name, w in attentions.items() if w is not None}
            if want_attentions
            else None,
        )

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the text backbone; NotImplementedError without one."""
        return text_backbone_of(self).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text backbone; NotImplementedError without one."""
        text_backbone_of(self).set_input_embeddings(value)

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

    def embed(self, name: str, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed texts, waveforms or pictures by the backbone of their stream.

        As features of the stream, embeddings give what these give themselves: each need be made only once.

        Args:
            name: "text", "audio" or "visual".
            values: (rows, ...), as input_ids, audio_values or pixel_values of `forward`.
            mask: (rows, tokens or samples), True for real ones; None for all. Pictures have none.

        Returns:
            (rows, size of the stream).
        """
        backbone = self.get_submodule(f"{name}_backbone")
        if name == "visual":
            return encode_pictures(backbone, values)
        encode = encode_texts if name == "text" else encode_waveforms
        return encode(backbone, values, torch.ones_like(values).bool() if mask is None else mask.bool())

    def _encode_raw(self, name: str, values: Tensor, mask: Tensor | None, present: Tensor) -> Tensor | None:
        """Embed what a backbone reads, and set it into (batch, utterances, size); None without any."""
        places = present.flatten().nonzero().squeeze(-1)
        if len(places) != len(values):
            raise ValueError(
                f"{RAW_INPUTS[name]} must have a row for each of {len(places)} utterances with {name}, "
                f"got {len(values)}"
            )
        if not len(places):
            return None
        rows = self.embed(name, values, mask)
        grid = rows.new_zeros(present.numel(), rows.shape[-1]).index_copy(0, places, rows)
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
    def from_backbones(
        cls,
        *,
        text: str | None = None,
        audio: str | None = None,
        visual: str | None = None,
        text_config: dict[str, Any] | None = None,
        audio_config: dict[str, Any] | None = None,
        vision_config: dict[str, Any] | None = None,
        **config_fields: Any,
    ) -> "ReDiFuForEmotionRecognition":
        """Build an untrained fusion on pretrained backbones, one for each stream at most.

        Args:
            text: a folder or Hub id that AutoModel loads, or None for ready features of the stream.
            audio: the same of a backbone on waveforms; of a whole Whisper, its encoder is taken.
            visual: the same of a backbone on pictures.
            text_config: fields of the backbone's configuration to set otherwise, its dropout for instance.
            audio_config: the same for audio.
            vision_config: the same for visual.
            config_fields: fields of `ReDiFuConfig`.

        Raises:
            ValueError: a backbone can not be used, lacks weights, or is not there and its fields are.
        """
        places = {"text": text, "audio": audio, "visual": visual}
        changes = {"text": text_config, "audio": audio_config, "visual": vision_config}
        configs: dict[str, Any] = read_backbone_configs(places, changes)
        model = cls(ReDiFuConfig(**configs, **config_fields))
        load_backbones(model.redifu, places)
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
        audio_values: Tensor | None = None,
        audio_values_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
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
            audio_values: (real utterances with audio, samples) float.
            audio_values_mask: (real utterances with audio, samples).
            pixel_values: (real utterances with visual, pictures, channels, height, width) float.
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
            audio_values=audio_values,
            audio_values_mask=audio_values_mask,
            pixel_values=pixel_values,
            quality_features=quality_features,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits, stream_logits = self.classifier(base.last_hidden_state, base.present)
        loss = None
        if labels is not None:
            check_labels(labels, class_weights, shape=tuple(logits.shape[:2]), num_labels=logits.shape[2])
            loss = emotion_loss(
                logits,
                labels.masked_fill(~base.present.any(dim=-1), IGNORED_LABEL),
                stream_logits=stream_logits,
                present=dict(zip(self.config.modalities, base.present.unbind(-1), strict=True)),
                stream_weight=self.config.stream_loss_weight,
                class_weights=class_weights,
            )
        return ReDiFuEmotionRecognitionOutput(
            loss=loss,
            logits=logits,
            **{f"{name}_logits": value for name, value in stream_logits.items()},
            reliability=base.reliability,
            consistency=base.consistency,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
