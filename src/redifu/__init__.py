"""ReDiFu: the emotion of every utterance of a conversation from its text, sound and picture.

Importing the package is cheap: a name is imported when it is first used, and the classes are registered with
transformers when transformers' Auto classes are first imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from redifu.registration import register_when_loaded

if TYPE_CHECKING:
    from redifu.inference.session import ConversationSession
    from redifu.model import (
        ReDiFuConfig,
        ReDiFuFeatureExtractor,
        ReDiFuForEmotionRecognition,
        ReDiFuModel,
        ReDiFuProcessor,
    )

__version__ = "0.1.0"

__all__ = [
    "ConversationSession",
    "ReDiFuConfig",
    "ReDiFuFeatureExtractor",
    "ReDiFuForEmotionRecognition",
    "ReDiFuModel",
    "ReDiFuProcessor",
]

# The module of each name that is not in redifu.model.
_MODULES = {"ConversationSession": "redifu.inference.session"}

register_when_loaded()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'redifu' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "redifu.model")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
