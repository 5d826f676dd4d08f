"""Everything that ships with a checkpoint: configuration, model and processor."""

from .configuration_redifu import MODALITIES, ReDiFuConfig
from .feature_extraction_redifu import ReDiFuFeatureExtractor
from .model_outputs import ReDiFuEmotionRecognitionOutput, ReDiFuModelOutput
from .modeling_redifu import ReDiFuForEmotionRecognition, ReDiFuModel
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
