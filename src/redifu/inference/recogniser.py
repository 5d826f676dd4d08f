"""The way from a file, or a conversation, to the emotions in it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from redifu.conversation import Conversation, Prediction
from redifu.data.readers import checked, conversations_from_dataset, read_conversations
from redifu.inference.explanation import explain_conversations
from redifu.inference.loading import load_pretrained
from redifu.inference.onnx_runtime import load_onnx
from redifu.inference.predictions import predict_conversations
from redifu.inference.session import ConversationSession
from redifu.inference.stdin_predictions import answer_lines

RUNTIMES = {"torch": load_pretrained, "onnx": load_onnx}


def load(name_or_path: str | Path, *, runtime: str = "torch") -> "Recogniser":
    """Load a model to predict with.

    Args:
        name_or_path: a folder, or ORG/NAME on the Hugging Face Hub.
        runtime: "torch", or "onnx" to run the export model.onnx in the folder.

    Raises:
        FileNotFoundError: there is no such folder, and no such model on the Hub.
        ImportError: the extra `onnx` is not installed.
        ValueError: it is no ReDiFu model, or a broken one; or there is no such runtime.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}")
    return Recogniser(*RUNTIMES[runtime](name_or_path), name=Path(name_or_path).resolve().name)


class Recogniser:
    """Gives every utterance of conversations the label of an emotion and how probable it is."""

    def __init__(self, model: Any, processor: Any, *, name: str = "redifu"):
        """Join a model and its processor; `load` does it for a folder.

        Args:
            model: a ReDiFuForEmotionRecognition, or an `OnnxModel`.
            processor: its ReDiFuProcessor.
            name: shown where predictions are.
        """
        self.model = model
        self.processor = processor
        self.name = name

    @property
    def labels(self) -> list[str]:
        """The names of the emotions, in the order of probabilities."""
        return self.model.config.labels

    @property
    def folder(self) -> str:
        """Where the model was loaded from, "" where it was not."""
        return self.model.config.name_or_path

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the model reads, some of "text", "audio" and "visual"."""
        return self.model.config.modalities

    def __call__(self, given: Any, *, explain: bool = False) -> list[Prediction] | list[list[Prediction]]:
        """Predict conversations.

        Args:
            given: the path of a conversation file, a conversation, a list of them, or a datasets Dataset of
                one utterance a row; see `read`.
            explain: whether predictions say what they were made from; see `explain_conversations`.

        Returns:
            A prediction for each utterance; for a list, or a file or Dataset of several dialogues, a list of
            these.

        Raises:
            FileNotFoundError: there is no such file.
            ImportError: media cannot be read without the extra `media`.
            ValueError: naming file, dialogue and utterance, for what is no conversation or does not fit the
                model.
            FloatingPointError: the model gave a logit that is not a number.
        """
        answers = [predictions for _, predictions in self.predict(self.read(given), explain=explain)]
        several = isinstance(given, Sequence) and not isinstance(given, str)
        return answers if several or len(answers) != 1 else answers[0]

    def read(
        self, given: Any, *, split: str | None = None, columns: Mapping[str, str] | None = None
    ) -> Iterator[Conversation]:
        """Read and validate conversations, lazily.

        Args:
            given: a path, see `read_conversations`; a dict {"utterances": [...]} as a conversation file holds
                it, in which audio and video may be arrays, too; a list of such dicts; a datasets Dataset; or
                conversations that were read before.
            split: the split to read of a file or Dataset with several.
            columns: names of a table's columns by ours, {"text": "Utterance"}.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: naming file, dialogue and utterance, for what is no conversation or does not fit the
                model.
        """
        if isinstance(given, str | Path):
            return read_conversations(given, split=split, columns=columns, check=self.check)
        if hasattr(given, "with_format"):
            return conversations_from_dataset(given, split=split, columns=columns, check=self.check)
        if isinstance(given, Mapping | Conversation):
            given = [given]
        if not isinstance(given, Iterable):
            raise ValueError(f"expected a path, a conversation or a list of them, got {type(given).__name__}")
        return (self._conversation(value, index) for index, value in enumerate(given))

    def check(self, conversation: Conversation) -> None:
        """Reject a conversation that does not fit the model, by ValueError."""
        self.processor.check(conversation.to_inputs())

    def predict(
        self, conversations: Iterable[Conversation], *, explain: bool = False, **limits: int
    ) -> Iterator[tuple[Conversation, list[Prediction]]]:
        """Predict lazily, in the order of the input and in bounded memory.

        Args:
            conversations: as `read` gives them.
            explain: whether predictions say what they were made from; one more pass for each stream.
            limits: batch_utterances and lookahead_utterances of `predict_conversations`.

        Yields:
            The conversations, their media read, each with the predictions of its utterances.

        Raises:
            ImportError: media cannot be read without the extra `media`.
            ValueError: an export cannot be explained.
            FloatingPointError: the model gave a logit that is not a number.
        """
        predict = explain_conversations if explain else predict_conversations
        return predict(self.model, self.processor, conversations, **limits)

    def answer_lines(
        self, lines: Iterable[str | bytes], *, refuse: Callable[[str], None], explain: bool = False
    ) -> Iterator[tuple[Conversation, list[Prediction]]]:
        """Predict JSON lines from stdin one by one; see `stdin_predictions.answer_lines`."""
        predict = partial(self.predict, explain=explain)
        return answer_lines(predict, lines, check=self.check, source="stdin", refuse=refuse)

    def session(self, window: int = 50) -> ConversationSession:
        """Start a live conversation, whose utterances come one by one."""
        return ConversationSession(self.model, self.processor, window=window)

    def _conversation(self, value: Any, index: int) -> Conversation:
        if not isinstance(value, Conversation):
            value = Conversation.from_dict(value, index=index, allow_media_objects=True)
        return checked(value, self.check, source="conversation")
