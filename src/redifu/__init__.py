"""ReDiFu: the emotion of every utterance of a conversation from its text, sound and picture."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from redifu.conversation import Conversation, Prediction, Utterance
from redifu.data.readers import read_conversations
from redifu.inference.pipeline import (
    TASK,
    ConversationEmotionRecognitionPipeline,
    TextClassification,
)
from redifu.inference.recogniser import Recogniser, load
from redifu.inference.session import ConversationSession
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
AutoModelForTokenClassification.register(ReDiFuConfig, ReDiFuForEmotionRecognition)
AutoFeatureExtractor.register(ReDiFuConfig, ReDiFuFeatureExtractor)
AutoProcessor.register(ReDiFuConfig, ReDiFuProcessor)
PIPELINE_REGISTRY.register_pipeline(
    TASK, ConversationEmotionRecognitionPipeline, pt_model=AutoModelForSequenceClassification
)
# Not registered anew: that would warn, and drop the task's default model.
PIPELINE_REGISTRY.supported_tasks["text-classification"]["impl"] = TextClassification

__all__ = [
    "Conversation",
    "ConversationSession",
    "Prediction",
    "ReDiFuConfig",
    "ReDiFuFeatureExtractor",
    "ReDiFuForEmotionRecognition",
    "ReDiFuModel",
    "ReDiFuProcessor",
    "Recogniser",
    "Utterance",
    "load",
    "read_conversations",
]
