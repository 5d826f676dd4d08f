"""ReDiFu: the emotion of every utterance of a conversation from its text, sound and picture."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from redifu.model import (
    ReDiFuConfig,
    ReDiFuFeatureExtractor,
    ReDiFuForEmotionRecognition,
    ReDiFuModel,
    ReDiFuProcessor,
)

__version__ = "0.1.0"

AutoConfig.register("redifu", ReDiFuConfig)
AutoModel.register(ReDiFuConfig, ReDiFuModel)
AutoModelForSequenceClassification.register(ReDiFuConfig, ReDiFuForEmotionRecognition)
AutoFeatureExtractor.register(ReDiFuConfig, ReDiFuFeatureExtractor)
AutoProcessor.register(ReDiFuConfig, ReDiFuProcessor)

__all__ = [
    "ReDiFuConfig",
    "ReDiFuFeatureExtractor",
    "ReDiFuForEmotionRecognition",
    "ReDiFuModel",
    "ReDiFuProcessor",
]
