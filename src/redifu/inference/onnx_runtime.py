"""Exported models, run by ONNX Runtime instead of PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redifu.inference.loading import BROKEN, check_processor, model_folder
from redifu.model import MODALITIES, ReDiFuConfig, ReDiFuProcessor
from redifu.model.backbones import embed_by_length
from redifu.model.model_outputs import ReDiFuEmotionRecognitionOutput
from redifu.optional_packages import optional_package

# Names of the output with text embeddings and of the metadata entry with the model's configuration.
TEXT_EMBEDDINGS, CONFIG = "text_embeddings", "redifu_config"
FILE = "model.onnx"


class OnnxModel:
    """Replaces the exported ReDiFuForEmotionRecognition wherever it is only used to predict.

    Texts and fusion run separately: texts are grouped by length, and a `ConversationSession` encodes each
    text once. ONNX Runtime uses as many threads as torch.

    Attributes:
        config: configuration of the exported model. Its temperature is 1 because the graph divides the logits
            itself; in exports of earlier versions, this class still divides by it.
        device: the device of the inputs, always the CPU.
    """

    def __init__(self, file: str | Path):
        """Read an export.

        Raises:
            ImportError: the extra `onnx` is not installed.
            ValueError: the file is not an export of this package.
        """
        onnx = optional_package("onnx", extra="onnx")
        undecodable = optional_package("google.protobuf.message", extra="onnx").DecodeError
        # The last two: weight files outside the folder, and a configuration that is no longer supported.
        broken = (undecodable, KeyError, onnx.checker.ValidationError, ValueError)
        try:
            graph = onnx.load(file)
            said = {entry.key: entry.value for entry in graph.metadata_props}
            self.config = ReDiFuConfig.from_dict(json.loads(said[CONFIG]))
        except broken as error:
            raise ValueError(f"{file}: not an exported ReDiFu model: {error}") from error
        self.device = torch.device("cpu")
        inputs = [each.name for each in graph.graph.input]
        self._texts = None
        if "input_ids" in inputs:
            texts = ["input_ids", "attention_mask"]
            rest = [TEXT_EMBEDDINGS, *(name for name in inputs if name not in texts)]
            cut = onnx.utils.Extractor(graph)
            self._texts = _session(cut.extract_model(texts, [TEXT_EMBEDDINGS]))
            graph = cut.extract_model(rest, ["logits"])
        self._fusion = _session(graph)

    @property
    def redifu(self) -> "OnnxModel":
        """The object that embeds texts; in a PyTorch model this is the base model."""
        return self

    def eval(self) -> "OnnxModel":
        """Do nothing: an export is always in evaluation mode."""
        return self

    def embed(self, name: str, values: Tensor, mask: Tensor) -> Tensor:
        """Embed texts, (texts, tokens) to (texts, text size); an export has only a text backbone."""
        return embed_by_length(self._embed, values, mask.bool())

    def __call__(self, **given: Tensor) -> ReDiFuEmotionRecognitionOutput:
        """Recognise the emotion of every utterance.

        Args:
            given: the model's inputs, with utterance_mask, modality_mask and speaker_ids; inputs that the
                export does not use are ignored.

        Returns:
            An output with only the calibrated logits (batch, utterances, labels).
        """
        shape = given["utterance_mask"].shape
        feed = {}
        for each in self._fusion.get_inputs():
            if each.name == TEXT_EMBEDDINGS:
                value = self._embeddings_of(given)
            elif each.name in given:
                value = given[each.name]
            else:  # a stream that the whole batch lacks
                value = torch.zeros(*shape, *each.shape[2:])
            feed[each.name] = value.numpy()
        logits = torch.from_numpy(self._fusion.run(["logits"], feed)[0])
        return ReDiFuEmotionRecognitionOutput(logits=logits / self.config.temperature)

    def _embed(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        if self._texts is None:
            raise ValueError("this export has no text backbone: pass text_features instead of input_ids")
        feed = {"input_ids": input_ids.numpy(), "attention_mask": mask.long().numpy()}
        return torch.from_numpy(self._texts.run([TEXT_EMBEDDINGS], feed)[0])

    def _embeddings_of(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return a row for each utterance with text, in order; one unused row if there is none."""
        if "input_ids" in given:
            return self.embed("text", given["input_ids"], given["attention_mask"])
        written = (
            given["utterance_mask"].bool() & given["modality_mask"][..., MODALITIES.index("text")].bool()
        )
        if "text_features" in given and written.any():
            return given["text_features"][written]
        return torch.zeros(1, self.config.text_size or 1)


def load_onnx(name_or_path: str | Path) -> tuple[OnnxModel, ReDiFuProcessor]:
    """Load the export `model.onnx` and the processor of a folder, without PyTorch weights.

    Args:
        name_or_path: a folder, or a Hub id; PyTorch weights are not downloaded.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds no export.
        ValueError: the export or the processor is damaged, or their labels differ.
    """
    folder = model_folder(name_or_path, weights=FILE)
    file = folder / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{name_or_path}: no {FILE}: create it with `redifu export`")
    model = OnnxModel(file)
    model.config.name_or_path = str(folder)
    try:
        processor = ReDiFuProcessor.from_pretrained(folder, local_files_only=True)
    except BROKEN as error:
        raise ValueError(f"{name_or_path}: not a ReDiFu processor: {error}") from error
    if processor.labels != model.config.labels:
        raise ValueError(f"{file} has labels {model.config.labels}, but its processor has {processor.labels}")
    try:
        check_processor(model.config, processor)
    except ValueError as error:
        raise ValueError(f"{name_or_path}: its processor does not fit {FILE}: {error}") from error
    return model, processor


def _session(graph: Any) -> Any:
    """Prepare a graph to run without log messages and on as many threads as torch."""
    runtime = optional_package("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return runtime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
