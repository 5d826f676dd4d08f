"""All that travels with a checkpoint: configuration, model, processor."""

from .configuration_redifu import MODALITIES, ReDiFuConfig
from .feature_extraction_redifu import ReDiFuFeatureExtractor
from .modeling_redifu import (
    ReDiFuEmotionRecognitionOutput,
    ReDiFuForEmotionRecognition,
    ReDiFuModel,
    ReDiFuModelOutput,
)
from .processing_redifu import ReDiFuProcessor

__all__ = [
    "MODALITIES",
    "ReDiFuConfig",
    "ReDiFuEmotionRecognitionOutput",
    "ReDiFuFeatureExtractor",
    "ReDiFuForEmotionRecognition",
    "ReDiFuModel",
    "ReDiFuModelOutput",
    "ReDiFuProcessor",
]
