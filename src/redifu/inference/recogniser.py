"""The public interface: load a model and predict the emotions in conversations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from redifu.conversation import Conversation, Prediction
from redifu.data.media_reading import read_media
from redifu.data.readers import checked, conversations_from_dataset, is_recording, read_conversations
from redifu.data.recordings import Report
from redifu.inference.explanation import explain_conversations
from redifu.inference.loading import load_pretrained
from redifu.inference.onnx_runtime import load_onnx
from redifu.inference.predictions import predict_conversations
from redifu.inference.reasons import NOT_SURE
from redifu.inference.session import ConversationSession
from redifu.inference.stdin_predictions import answer_lines
from redifu.inference.text_notes import with_text_notes

RUNTIMES = {"torch": load_pretrained, "onnx": load_onnx}


def load(name_or_path: str | Path, *, runtime: str = "torch") -> "Recogniser":
    """Load a model to predict with.

    Args:
        name_or_path: a folder, or ORG/NAME on the Hugging Face Hub.
        runtime: "torch", or "onnx" to run the export model.onnx in the folder.

    Raises:
        FileNotFoundError: the folder does not exist, or the model cannot be downloaded.
        ImportError: the extra `onnx` is not installed.
        ValueError: it is not a ReDiFu model, it is damaged, or the runtime is unknown.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    return Recogniser(*RUNTIMES[runtime](name_or_path), name=Path(name_or_path).resolve().name)


class Recogniser:
    """Predicts an emotion label and its probability for every utterance of conversations."""

    def __init__(self, model: Any, processor: Any, *, name: str = "redifu"):
        """Combine a model and its processor; `load` does this for a folder.

        Args:
            model: a ReDiFuForEmotionRecognition, or an `OnnxModel`.
            processor: its ReDiFuProcessor.
            name: shown on the HTML page.
        """
        self.model = model
        self.processor = processor
        self.name = name

    @property
    def labels(self) -> list[str]:
        """The emotion labels, in the order of the probabilities."""
        return self.model.config.labels

    @property
    def folder(self) -> str:
        """The folder the model was loaded from; "" if it was not loaded."""
        return self.model.config.name_or_path

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the model reads: one or more of "text", "audio" and "visual"."""
        return self.model.config.modalities

    def __call__(
        self, given: Any, *, explain: bool = False, abstain_below: float | None = None
    ) -> list[Prediction] | list[list[Prediction]]:
        """Predict conversations.

        Args:
            given: the path of a recording or of a conversation file, a conversation, a list of
                conversations, or a datasets Dataset with one utterance per row; see `read`.
            explain: whether to add explanations to the predictions; see `explain_conversations`.
            abstain_below: see `predict`.

        Returns:
            A list with a prediction for each utterance. For a list of conversations, or a file or Dataset of
            several dialogues: a list of such lists.

        Raises:
            FileNotFoundError: the file does not exist.
            ImportError: the extra `media` is needed to read media files.
            ValueError: a conversation is invalid or does not fit the model; the message names file, dialogue
                and utterance.
            FloatingPointError: a logit of the model is not finite.
        """
        options: dict[str, Any] = {"explain": explain, "abstain_below": abstain_below}
        answers = [predictions for _, predictions in self.predict(self.read(given), **options)]
        several = isinstance(given, Sequence) and not isinstance(given, str)
        return answers if several or len(answers) != 1 else answers[0]

    def read(
        self,
        given: Any,
        *,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        **recording: Any,
    ) -> Iterator[Conversation]:
        """Read and validate conversations, lazily.

        Args:
            given: the path of a recording (its words and speakers are recognised) or of a conversation
                file, see `read_conversations`; a dict {"utterances": [...]} as in such a file, where audio
                and video may also be arrays; a list of such dicts; a datasets Dataset; or
                `Conversation` objects.
            split: the split to read from a file or Dataset with several.
            columns: the table's column name for each of our keys, {"text": "Utterance"}.
            recording: turns, speakers, channels, language, speech_model, speaker_model and report of
                `read_recording`.

        Raises:
            FileNotFoundError: the file does not exist.
            ImportError: recognising speech requires the extras `media` and `speech`.
            ValueError: a conversation is invalid or does not fit the model; the message names file, dialogue
                and utterance.
        """
        if is_recording(given):
            return self._recording(given, **recording)
        if recording:
            raise ValueError(f"{', '.join(recording)}: expected a recording, got {given!s:.80}")
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
        """Raise ValueError for a conversation that does not fit the model."""
        self.processor.check(conversation.to_inputs())

    def predict(
        self,
        conversations: Iterable[Conversation],
        *,
        explain: bool = False,
        abstain_below: float | None = None,
        **limits: int,
    ) -> Iterator[tuple[Conversation, list[Prediction]]]:
        """Predict lazily, in the order of the input and in bounded memory.

        Args:
            conversations: conversations from `read`.
            explain: whether to add explanations; this takes one more pass for each stream.
            abstain_below: an utterance whose highest probability is below this gets no emotion; its scores
                stay, and its reasons say why. `evaluate` reports the accuracy that this gives.
            limits: batch_utterances and lookahead_utterances of `predict_conversations`.

        Yields:
            Each conversation with its media read, and the predictions of its utterances.

        Raises:
            ImportError: the extra `media` is needed to read media files.
            ValueError: `explain` is set for an ONNX export, or `abstain_below` is not between 0 and 1.
            FloatingPointError: a logit of the model is not finite.
        """
        _check_limit(abstain_below)
        predict = explain_conversations if explain else predict_conversations
        answers = predict(self.model, self.processor, conversations, **limits)
        answers = with_text_notes(answers, self.processor)
        return answers if abstain_below is None else _abstaining(answers, abstain_below)

    def answer_lines(
        self,
        lines: Iterable[str | bytes],
        *,
        refuse: Callable[[str], None],
        explain: bool = False,
        abstain_below: float | None = None,
    ) -> Iterator[tuple[Conversation, list[Prediction]]]:
        """Predict JSON lines from stdin one by one; see `stdin_predictions.answer_lines` and `predict`."""
        _check_limit(abstain_below)  # before the first line, which would only be skipped
        predict = partial(self.predict, explain=explain, abstain_below=abstain_below)
        return answer_lines(predict, lines, check=self.check, source="stdin", refuse=refuse)

    def session(self, window: int = 50) -> ConversationSession:
        """Start a live conversation, whose utterances arrive one by one."""
        return ConversationSession(self.model, self.processor, window=window)

    def _recording(
        self, path: str | Path, *, report: Report | None = None, **options: Any
    ) -> Iterator[Conversation]:
        from redifu.transcription.transcribe import read_recording  # brings the models of the extra `speech`

        conversation = read_recording(path, report=report, **options)
        if conversation.utterances:
            conversation = checked(conversation, self.check, source=str(path))
            # Here and not with the prediction, because faces take as long as words.
            conversation = read_media(conversation, self.processor.feature_extractor, report=report)
        if report is not None:
            report("recognising emotions", 0, None)
        yield conversation

    def _conversation(self, value: Any, index: int) -> Conversation:
        if not isinstance(value, Conversation):
            value = Conversation.from_dict(value, index=index, allow_media_objects=True)
        return checked(value, self.check, source="conversation")


def _check_limit(below: float | None) -> None:
    if below is not None and not 0 < below < 1:
        raise ValueError(f"abstain_below must be between 0 and 1, got {below}")


def _abstaining(
    answers: Iterable[tuple[Conversation, list[Prediction]]], below: float
) -> Iterator[tuple[Conversation, list[Prediction]]]:
    for conversation, predictions in answers:
        yield conversation, [_abstain(each, below) for each in predictions]


def _abstain(prediction: Prediction, below: float) -> Prediction:
    """Withhold the emotion if its probability is below a limit."""
    if prediction.probability is None or prediction.probability >= below:
        return prediction
    return replace(prediction, unsure=True, reasons=[NOT_SURE, *prediction.reasons])
