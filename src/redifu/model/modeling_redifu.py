"""ReDiFu: recognises the emotion of every utterance of a conversation from text, audio and video.

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
from .conversation_graph import conversation_graph
from .differential_attention import DifferentialEncoder
from .emotion_heads import build_head
from .fusion import FusedStreams, build_fusion
from .input_checks import check_ids, check_inputs, check_labels, stream_presence
from .losses import IGNORED_LABEL, emotion_loss
from .model_inputs import RAW_INPUTS, Dialogues, ReDiFuInputs, takes_inputs
from .model_outputs import ReDiFuEmotionRecognitionOutput, ReDiFuModelOutput
from .recorder import Recorder
from .relation_attention import CrossModalSubgraph, SpeakerSubgraphs
from .remote_code import CarriesCode
from .speaker_consistency import SpeakerConsistency
from .weight_files import check_weight_files


class ReDiFuPreTrainedModel(CarriesCode, PreTrainedModel):
    """Loading, saving and initialisation of ReDiFu models."""

    config: ReDiFuConfig
    config_class = ReDiFuConfig
    base_model_prefix = "redifu"
    main_input_name = "text_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # For transformers' Trainer: the loss is a mean over the batch, although forward takes **kwargs.
    accepts_loss_kwargs = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load like any transformers model, but only from safetensors; pickled weights are never opened.

        Raises:
            ValueError: `use_safetensors=False` requests pickled weights, or an index names other files than
                safetensors of its folder.
            OSError: there are no safetensors weights.
        """
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError("weights can be loaded only from safetensors, got use_safetensors=False")
        check_weight_files(pretrained_model_name_or_path, kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        # torch's defaults, as in the released recipe; the base class would draw Linear weights from a normal.
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


class ReDiFuModel(ReDiFuPreTrainedModel):
    """ReDiFu without a head: differential encoders, relation subgraphs and fusion."""

    def __init__(self, config: ReDiFuConfig):
        """Build from a configuration, without reading files."""
        super().__init__(config)
        for name, field in BACKBONE_CONFIGS.items():
            if (backbone_config := getattr(config, field)) is not None:
                layers = config.audio_layers if name == "audio" else None
                self.add_module(f"{name}_backbone", build_backbone(backbone_config, layers))
        sizes = {name: getattr(config, f"{name}_size") for name in config.modalities}
        self.projections = nn.ModuleDict(
            {name: nn.Linear(size, config.hidden_size) for name, size in sizes.items()}
        )
        relation_modalities = [name for name in config.relation_modalities if name in sizes]
        self.relations = nn.ModuleDict({name: SpeakerSubgraphs(config) for name in relation_modalities})
        if config.cross_modal_relations:
            self.cross_modal_relations = CrossModalSubgraph(config)
        encoded = [name for name in ("audio", "visual") if name in sizes]
        self.encoders = nn.ModuleDict({name: DifferentialEncoder(config) for name in encoded})
        if encoded:
            self.speaker_embedding = nn.Embedding(config.num_speakers + 1, config.hidden_size)
        self.fusion = build_fusion(config)
        if config.consistency_size is not None:
            self.consistency = SpeakerConsistency(config)
        self.post_init()

    @can_return_tuple
    @takes_inputs
    def forward(self, *features: Tensor | None, **inputs: Any) -> ReDiFuModelOutput:
        """Encode dialogues.

        Args:
            features: text, audio and visual features, in this order or by name.
            inputs: fields of `ReDiFuInputs`.

        Raises:
            ValueError: inputs are inconsistent with the model or with each other.
        """
        given = ReDiFuInputs(*features, **inputs)
        check_inputs(self.config, given)
        batch = self._read(given)
        streams = {}
        for name in self.config.modalities:
            states = self._denoise(name, self._project(name, batch), batch)
            streams[name] = self._relate_speakers(name, states, batch)
        fused = self._fuse(self._relate_streams(streams, batch), batch)
        record = batch.record
        return ReDiFuModelOutput(
            last_hidden_state=torch.cat(list(fused.streams.values()), dim=-1),
            present=torch.stack([fused.present[name] for name in fused.streams], dim=-1),
            reliability=fused.reliability,
            consistency=batch.consistency,
            # Copy the dicts: activation checkpointing records again in the backward pass.
            hidden_states=record.hidden_states and dict(record.hidden_states),
            attentions=record.attentions and dict(record.attentions),
        )

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the text backbone; NotImplementedError without one."""
        return text_backbone_of(self).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text backbone; NotImplementedError without one."""
        text_backbone_of(self).set_input_embeddings(value)

    def relation_graph(self, conversation: Mapping[str, Any]) -> Any:
        """Return the relation subgraphs of a conversation as a HeteroData; see `conversation_graph`."""
        return conversation_graph(conversation, self.config)

    def _read(self, given: ReDiFuInputs) -> Dialogues:
        """Embed backbone inputs, and determine speakers, positions and the streams to use."""
        real, present = stream_presence(given)
        features = given.features
        for name, values in given.raw.items():
            if values is not None:
                features[name] = self._encode_raw(name, values, given.raw_masks.get(name), present[name])
        speaker_ids = real.long() * 0 if given.speaker_ids is None else given.speaker_ids
        check_ids("speaker_ids", speaker_ids, counted=real)
        consistency = None
        if self.config.consistency_size is not None:
            consistency = self.consistency(features, speaker_ids, present).sigmoid()
            present = self.consistency.kept(consistency, present)
        wanted = [
            getattr(self.config if getattr(given, option) is None else given, option)
            for option in ("output_hidden_states", "output_attentions")
        ]
        return Dialogues(
            features=features,
            present={name: present[name] for name in self.config.modalities},
            speaker_ids=speaker_ids.masked_fill(~real, 0),
            positions=(real.long().cumsum(-1) - 1).masked_fill(~real, real.shape[1]),
            consistency=consistency,
            record=Recorder({} if wanted[0] else None, {} if wanted[1] else None),
        )

    def _project(self, name: str, batch: Dialogues) -> Tensor:
        """Project a stream to (batch, utterances, hidden), zero where it is missing."""
        features, missing = batch.features[name], ~batch.present[name][..., None]
        if features is None:
            size = (*batch.speaker_ids.shape, self.config.hidden_size)
            projected = torch.zeros(size, dtype=self.dtype, device=self.device)
        else:
            projected = self.projections[name](features.to(self.dtype).masked_fill(missing, 0.0))
        return batch.record.state(f"{name}_projected", projected.masked_fill(missing, 0.0))

    def _denoise(self, name: str, states: Tensor, batch: Dialogues) -> Tensor:
        """Pass audio and visual through their differential encoders."""
        if name not in self.encoders:
            return states
        speakers = self.speaker_embedding(batch.speaker_ids.clamp(max=self.config.num_speakers))
        return self.encoders[name](states, speakers, **batch.of(name))

    def _relate_speakers(self, name: str, states: Tensor, batch: Dialogues) -> Tensor:
        """Relate the utterances of a stream by who speaks when."""
        if name not in self.relations:
            return states
        return self.relations[name](states, batch.speaker_ids, **batch.of(name))

    def _relate_streams(self, streams: dict[str, Tensor], batch: Dialogues) -> dict[str, Tensor]:
        """Relate utterances across streams."""
        if not self.config.cross_modal_relations:
            return streams
        return self.cross_modal_relations(streams, batch.speaker_ids, **batch.of_all())

    def _fuse(self, streams: dict[str, Tensor], batch: Dialogues) -> FusedStreams:
        """Fuse the streams; with `head_residual`, add them to the result."""
        fused = self.fusion(streams, **batch.of_all())
        for name, states in fused.streams.items():
            batch.record.state(f"{name}_fused", states)
            if self.config.head_residual:
                fused.streams[name] = states + streams[name]
        return fused

    def embed(self, name: str, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed texts, waveforms or pictures with the backbone of their stream.

        Passing the embeddings as features gives the same output as passing the inputs, so they can be cached.

        Args:
            name: "text", "audio" or "visual".
            values: (rows, ...), as input_ids, audio_values or pixel_values of `forward`.
            mask: (rows, tokens or samples), True for real ones; None for all. Pictures have no mask.

        Returns:
            (rows, size of the stream).
        """
        backbone = self.get_submodule(f"{name}_backbone")
        if name == "visual":
            return encode_pictures(backbone, values)
        encode = encode_texts if name == "text" else encode_waveforms
        return encode(backbone, values, torch.ones_like(values).bool() if mask is None else mask.bool())

    def _encode_raw(self, name: str, values: Tensor, mask: Tensor | None, present: Tensor) -> Tensor | None:
        """Embed backbone inputs as (batch, utterances, size); None if no utterance has the stream."""
        places = present.flatten().nonzero().squeeze(-1)
        if len(places) != len(values):
            raise ValueError(
                f"{RAW_INPUTS[name]} must have one row for each of the {len(places)} utterances with {name}, "
                f"got {len(values)}"
            )
        if not len(places):
            return None
        rows = self.embed(name, values, mask)
        grid = rows.new_zeros(present.numel(), rows.shape[-1]).index_copy(0, places, rows)
        return grid.unflatten(0, present.shape)


class ReDiFuForEmotionRecognition(ReDiFuPreTrainedModel):
    """ReDiFu with classification heads for the emotion of every utterance."""

    def __init__(self, config: ReDiFuConfig):
        """Build from a configuration, without reading files."""
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
        """Build an untrained model on pretrained backbones, at most one per stream.

        Args:
            text: folder or Hub id of a text backbone for AutoModel; None reads precomputed features.
            audio: the same for a waveform backbone; only the encoder of Whisper is used.
            visual: the same for an image backbone.
            text_config: fields of the text backbone's configuration to override, such as its dropout.
            audio_config: the same for audio.
            vision_config: the same for visual.
            config_fields: fields of `ReDiFuConfig`.

        Raises:
            ValueError: a backbone is unsuitable or lacks weights, or fields are given without a backbone.
        """
        places = {"text": text, "audio": audio, "visual": visual}
        changes = {"text": text_config, "audio": audio_config, "visual": vision_config}
        configs: dict[str, Any] = read_backbone_configs(places, changes)
        model = cls(ReDiFuConfig(**configs, **config_fields))
        load_backbones(model.redifu, places)
        return model

    @can_return_tuple
    @takes_inputs
    def forward(
        self,
        *features: Tensor | None,
        labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        **inputs: Any,
    ) -> ReDiFuEmotionRecognitionOutput:
        """Recognise the emotion of every utterance.

        Args:
            features: text, audio and visual features, in this order or by name.
            labels: (batch, utterances) int, -100 where ignored.
            class_weights: (labels,) float, weight of each class in the loss.
            inputs: fields of `ReDiFuInputs`.

        Raises:
            ValueError: inputs are inconsistent with the model or with each other.
        """
        base = self.redifu(*features, **inputs, return_dict=True)
        logits, stream_logits = self.classifier(base.last_hidden_state, base.present)
        loss = None
        if labels is not None:
            check_labels(labels, class_weights, shape=tuple(logits.shape[:2]), num_labels=logits.shape[2])
            # The loss uses the logits before division by the temperature.
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
            logits=logits / self.config.temperature,
            **{f"{name}_logits": value for name, value in stream_logits.items()},
            present=base.present,
            reliability=base.reliability,
            consistency=base.consistency,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
