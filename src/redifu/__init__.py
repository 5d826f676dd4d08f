"""ReDiFu recognises the emotion of every utterance of a conversation from text, audio and video.

Importing the package is cheap: names are imported when they are first used, and the classes are registered
with transformers when its Auto classes are first imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from redifu.registration import register_when_loaded

if TYPE_CHECKING:
    from redifu.conversation import Conversation, Prediction, Utterance
    from redifu.data.readers import conversations_from_text, read_conversations
    from redifu.data.recordings import prepare_recording
    from redifu.data.writers import prediction_writer
    from redifu.inference.recogniser import Recogniser, load
    from redifu.inference.session import ConversationSession
    from redifu.model import (
        ReDiFuConfig,
        ReDiFuFeatureExtractor,
        ReDiFuForEmotionRecognition,
        ReDiFuModel,
        ReDiFuProcessor,
    )
    from redifu.reports.html_report import model_notice, render_report

__version__ = "0.1.0"

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
    "conversations_from_text",
    "load",
    "model_notice",
    "prediction_writer",
    "prepare_recording",
    "read_conversations",
    "render_report",
]

# The module of each public name; all others are in redifu.model.
_MODULES = {
    **dict.fromkeys(("Conversation", "Prediction", "Utterance"), "redifu.conversation"),
    **dict.fromkeys(("conversations_from_text", "read_conversations"), "redifu.data.readers"),
    "prepare_recording": "redifu.data.recordings",
    "prediction_writer": "redifu.data.writers",
    **dict.fromkeys(("Recogniser", "load"), "redifu.inference.recogniser"),
    "ConversationSession": "redifu.inference.session",
    **dict.fromkeys(("model_notice", "render_report"), "redifu.reports.html_report"),
}

register_when_loaded()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'redifu' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "redifu.model")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
