"""Export models to ONNX, in float32 or with int8 weights, for batches of any size."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redifu.atomic_files import check_output, replacing
from redifu.inference.onnx_runtime import CONFIG, TEXT_EMBEDDINGS, OnnxModel
from redifu.model import MODALITIES, ReDiFuConfig, ReDiFuForEmotionRecognition
from redifu.model.backbones import embed_texts
from redifu.optional_packages import optional_package

# (dialogues, utterances, tokens) of the batches that compare an export with the model.
CHECKED_SHAPES = ((1, 1, 3), (1, 12, 9), (2, 5, 14), (5, 33, 12), (1, 150, 6))
TOLERANCE = 1e-4
# No size is 1, which the tracer would treat as a constant, and no two are equal.
_TRACED_SHAPE = (3, 4, 7)
_TEXTS = ("input_ids", "attention_mask")


class _Exported(nn.Module):
    """Wraps a model without loops or branches that depend on input values."""

    def __init__(self, model: ReDiFuForEmotionRecognition):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the logits and, if there are texts, their embeddings; the inputs are the model's."""
        if "input_ids" not in inputs:
            return (self.model(**inputs).logits,)
        # All texts at once: the groups in which the model itself embeds them depend on their lengths.
        rest = {name: value for name, value in inputs.items() if name not in _TEXTS}
        input_ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        embeddings = embed_texts(self.model.redifu.text_backbone, input_ids, mask)
        written = inputs["utterance_mask"] & inputs["modality_mask"][..., MODALITIES.index("text")]
        # The index of each utterance's text; utterances without text get any index and are masked.
        rows = (written.flatten().long().cumsum(0) - 1).clamp_min(0)
        grid = embeddings.index_select(0, rows).unflatten(0, written.shape)
        return self.model(text_features=grid, **rest).logits, embeddings


def export_onnx(
    model: ReDiFuForEmotionRecognition, output: str | Path, *, features: bool = False, int8: bool = False
) -> float:
    """Write a model as one ONNX file and compare the two on batches of `CHECKED_SHAPES`.

    The file has the model's inputs, all required: utterance_mask and modality_mask bool, speaker_ids int64,
    NAME_features float32, input_ids and attention_mask int64. Pass zeros for a stream that a batch lacks; the
    modality mask hides them. The outputs are calibrated logits and, with texts, text_embeddings (texts, text
    size).

    Args:
        model: the model to export; it is not changed.
        output: the .onnx file, written only if everything succeeds.
        features: whether the export takes text_features instead of texts and omits the text backbone.
        int8: whether matrix products use int8 weights and activations quantised at run time. The result for
            an utterance then depends slightly on the rest of its batch.

    Returns:
        The largest absolute difference between a logit of the export and of the model.

    Raises:
        ValueError: `output` does not end in .onnx, or its folder does not exist.
        ImportError: the extra `onnx` is not installed.
        ArithmeticError: a float32 export differs from the model by more than `TOLERANCE`.
    """
    check_output(output, (".onnx",))
    onnx = optional_package("onnx", extra="onnx")
    traced = copy.deepcopy(model).float().eval()
    traced.config.name_or_path = ""  # a folder of this machine does not belong in an export
    with replacing(Path(output)) as file:
        graph = _translate(traced, features=features)
        if int8:
            _quantize(graph, file)
        else:
            onnx.save(graph, file)
        difference = largest_difference(traced, file, features=features)
        if not int8 and not difference <= TOLERANCE:
            raise ArithmeticError(f"the export's logits differ by {difference:.1e}, more than {TOLERANCE}")
    return difference


def largest_difference(model: ReDiFuForEmotionRecognition, file: Path, *, features: bool) -> float:
    """Return the largest difference between a logit of the file and of the model on `CHECKED_SHAPES`."""
    exported = OnnxModel(file)
    differences = []
    for seed, shape in enumerate(CHECKED_SHAPES):
        inputs = sample_inputs(model.config, shape, features=features, seed=seed)
        usable = (inputs["utterance_mask"][..., None] & inputs["modality_mask"]).any(-1)
        with torch.no_grad():
            difference = exported(**inputs).logits - model(**inputs).logits
        differences.append(difference[usable].abs().max())
    return torch.stack(differences).max().item()


def sample_inputs(
    config: ReDiFuConfig, shape: tuple[int, int, int], *, features: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """Make a random batch: dialogues of different lengths, missing streams, several speakers.

    Args:
        config: configuration of the model.
        shape: number of dialogues, utterances in the longest dialogue, tokens in the longest text.
        features: whether the batch holds text_features instead of texts.
        seed: random seed.
    """
    random = torch.Generator().manual_seed(seed)
    batch, utterances, tokens = shape
    lengths = torch.randint(1, utterances + 1, (batch,), generator=random)
    lengths[0] = utterances
    real = torch.arange(utterances) < lengths[:, None]
    modality_mask = torch.rand(batch, utterances, len(MODALITIES), generator=random) < 0.8
    modality_mask[:, 0] = True
    has = torch.tensor([name in config.modalities for name in MODALITIES])
    modality_mask = modality_mask & has & real[..., None]
    speaker_ids = torch.randint(0, config.num_speakers + 1, (batch, utterances), generator=random)
    inputs = {"utterance_mask": real, "modality_mask": modality_mask, "speaker_ids": speaker_ids}
    as_texts = config.text_config is not None and not features
    for name in config.modalities:
        if name != "text" or not as_texts:
            size = getattr(config, f"{name}_size")
            inputs[f"{name}_features"] = torch.randn(batch, utterances, size, generator=random)
    if as_texts:
        written = int(modality_mask[..., MODALITIES.index("text")].sum())
        inputs |= _sample_texts(config, written, tokens, random)
    return inputs


def _sample_texts(
    config: ReDiFuConfig, texts: int, tokens: int, random: torch.Generator
) -> dict[str, Tensor]:
    backbone: Any = config.text_config
    widths = torch.randint(1, tokens + 1, (texts, 1), generator=random)
    widths[0] = tokens
    mask = torch.arange(tokens) < widths
    input_ids = torch.randint(0, backbone.vocab_size, (texts, tokens), generator=random)
    padding = backbone.pad_token_id or 0
    # Some backbones count positions by the tokens other than padding.
    input_ids = input_ids.where(input_ids != padding, backbone.vocab_size - 1)
    return {"input_ids": input_ids.where(mask, padding), "attention_mask": mask.long()}


def _translate(model: ReDiFuForEmotionRecognition, *, features: bool) -> Any:
    """Trace a model and return its ONNX graph, whose only metadata is the configuration."""
    optional_package("onnxscript", extra="onnx")
    onnx = optional_package("onnx", extra="onnx")
    inputs = sample_inputs(model.config, _TRACED_SHAPE, features=features)
    grids, texts = (
        {0: torch.export.Dim(first), 1: torch.export.Dim(second)}
        for first, second in (("batch", "utterances"), ("texts", "tokens"))
    )
    shapes = {name: texts if name in _TEXTS else grids for name in inputs}
    with _quiet():
        program: Any = torch.onnx.export(
            _Exported(model).eval(),
            kwargs={"inputs": inputs},
            dynamo=True,
            dynamic_shapes={"inputs": shapes},
            input_names=list(inputs),
            output_names=["logits", TEXT_EMBEDDINGS] if "input_ids" in inputs else ["logits"],
            verbose=False,
        )
    graph = program.model_proto
    for node in graph.graph.node:
        # The metadata of a node names source files of this machine.
        node.ClearField("metadata_props")
    # The graph divides by the temperature itself; exports of earlier versions do not. The temperature in an
    # export's configuration is the factor that remains.
    configuration = model.config.to_dict() | {"temperature": 1.0}
    onnx.helper.set_model_props(graph, {CONFIG: json.dumps(configuration)})
    return graph


def _quantize(graph: Any, file: Path) -> None:
    """Write a graph with int8 weights."""
    quantization = optional_package("onnxruntime.quantization", extra="onnx")
    with _quiet():
        quantization.quantize_dynamic(graph, file, per_channel=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log messages and warnings of the exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
