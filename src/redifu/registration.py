"""Registers the classes of this package with transformers, once transformers is used.

transformers loads its Auto classes and its pipelines when they are first used. An import hook waits for that,
so `import redifu` alone loads neither transformers nor torch.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import local
from types import ModuleType


def _register_auto_classes() -> None:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoProcessor,
    )

    from redifu.model import (
        ReDiFuConfig,
        ReDiFuFeatureExtractor,
        ReDiFuForEmotionRecognition,
        ReDiFuModel,
        ReDiFuProcessor,
    )

    AutoConfig.register("redifu", ReDiFuConfig)
    AutoModel.register(ReDiFuConfig, ReDiFuModel)
    AutoModelForSequenceClassification.register(ReDiFuConfig, ReDiFuForEmotionRecognition)
    AutoModelForTokenClassification.register(ReDiFuConfig, ReDiFuForEmotionRecognition)
    AutoFeatureExtractor.register(ReDiFuConfig, ReDiFuFeatureExtractor)
    AutoProcessor.register(ReDiFuConfig, ReDiFuProcessor)


def _register_pipeline() -> None:
    from transformers import AutoModelForSequenceClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    from redifu.inference.pipeline import TASK, ConversationEmotionRecognitionPipeline, TextClassification

    PIPELINE_REGISTRY.register_pipeline(
        TASK, ConversationEmotionRecognitionPipeline, pt_model=AutoModelForSequenceClassification
    )
    # Replaced in place, because registering it again would warn and drop the task's default model.
    PIPELINE_REGISTRY.supported_tasks["text-classification"]["impl"] = TextClassification


class _Registration(MetaPathFinder):
    """Registers the classes once the modules of transformers that hold the registries are loaded.

    Modules of transformers and of this package import the Auto classes while they are only partly imported
    themselves. Registration imports both packages, so it waits until no import of either is in progress.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {
            "transformers.models.auto.configuration_auto": _register_auto_classes,
            "transformers.pipelines": _register_pipeline,
        }
        self._imports = local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module with the other finders, and count its import while it runs."""
        if fullname.partition(".")[0] not in ("transformers", "redifu"):
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                self._count(spec)
                return spec
        return None

    def register(self) -> None:
        """Register with the modules that are loaded, unless an import is in progress."""
        while ready := [name for name in self._waiting if name in sys.modules and not self._depth]:
            with self._under_way():
                self._waiting.pop(ready[0])()
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)

    @property
    def _depth(self) -> int:
        return getattr(self._imports, "depth", 0)

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        self._imports.depth = self._depth + 1
        try:
            yield
        finally:
            self._imports.depth -= 1

    def _count(self, spec: ModuleSpec) -> None:
        loader = spec.loader
        # The loader is None for a folder without __init__.py; a shared loader is wrapped only once.
        if loader is None or hasattr(loader.exec_module, "__wrapped__"):
            return
        run = loader.exec_module

        @wraps(run)
        def exec_module(module: ModuleType) -> None:
            with self._under_way():
                run(module)
            self.register()

        # Patch this loader only and keep its class, because others ask it for source and data files.
        loader.exec_module = exec_module  # type: ignore[method-assign]


def register_when_loaded() -> None:
    """Register the classes of this package now, or as soon as transformers' registries are loaded."""
    registration = _Registration()
    sys.meta_path.insert(0, registration)
    registration.register()
