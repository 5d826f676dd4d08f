"""The model card, made from the user's `card.yaml` and from the model's folder."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from redifu.inference.loading import is_hub_id
from redifu.model import ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition, ReDiFuProcessor

GIVEN, METRICS, RECIPE = "card.yaml", "metrics.json", "recipe.yaml"
_TEMPLATE = Path(__file__).with_name("card_template.md")
_SPLITS = {"dev": "validation", "test": "test"}  # ours, and the Hub's
_SCORES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}
_ERRORS = {"nll": "NLL", "ece": "ECE"}
_TASKS = {
    "text": "text-classification",
    "audio": "audio-classification",
    "visual": "video-classification",
}


@dataclass(frozen=True)
class GivenCardData:
    """Card data from the user, in `card.yaml` in the model's folder.

    Attributes:
        language: language codes, for instance "en".
        license: licence of the weights, as the Hub's identifier.
        datasets: Hub ids of the data sets; scores are reported for the first.
        tags: tags in addition to those of every card.
        description: a paragraph about the model, in Markdown.
    """

    language: list[str] = field(default_factory=list)
    license: str | None = None
    datasets: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    description: str | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> "GivenCardData":
        """Read `card.yaml`; without this file, all fields are empty.

        Raises:
            ValueError: the file has an unknown key or a value of the wrong type.
        """
        path = folder / GIVEN
        if not path.exists():
            return cls()
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {error}") from None
        known = [each.name for each in dataclasses.fields(cls)]
        if not isinstance(values, dict) or not set(values) <= set(known):
            raise ValueError(f"{path}: expected some of the keys {', '.join(known)}, got {values!r:.80}")
        for name, value in values.items():
            several = name in ("language", "datasets", "tags")
            if not (_is_texts(value) if several else isinstance(value, str)):
                expected = "a list of strings" if several else "a string"
                raise ValueError(f"{path}: {name} must be {expected}, got {value!r:.80}")
        return cls(**values)


@dataclass(frozen=True)
class FoundCardData:
    """Card data read from the folder of a model.

    Attributes:
        modalities: the streams the model reads.
        labels: the emotion labels.
        num_parameters: number of weights, including those of a text backbone.
        utterance: Python source of the items of an utterance that the model can read.
        reads_text: whether the model reads texts, not only text features.
        causal: whether no utterance sees a later one.
        temperature: the calibration temperature; 1 if the model was not calibrated.
        base_model: Hub id of the text backbone that the recipe names.
        has_recipe: whether the folder holds the training recipe.
        results: metrics by split, "dev" and "test", as `redifu train` writes them.
    """

    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    num_parameters: int
    utterance: str
    reads_text: bool = False
    causal: bool = False
    temperature: float = 1.0
    base_model: str | None = None
    has_recipe: bool = False
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_folder(
        cls, folder: Path, model: ReDiFuForEmotionRecognition, processor: ReDiFuProcessor
    ) -> "FoundCardData":
        """Collect the data of a model that was loaded from `folder`."""
        metrics, recipe = folder / METRICS, folder / RECIPE
        measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}
        sections = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.exists() else {}
        backbone = str((sections.get("model") or {}).get("text_backbone"))
        text = ['"text": "You came!"'] if processor.tokenizer is not None else []
        sizes = processor.feature_extractor.sizes
        features = [f'"{name}_features": [0.0] * {size}' for name, size in sizes.items()]
        features += [
            _raw_example(name, processor.feature_extractor) for name in processor.feature_extractor.raw
        ]
        return cls(
            modalities=model.config.modalities,
            labels=tuple(model.config.labels),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            utterance=", ".join(text + features),
            reads_text=bool(text),
            causal=model.config.causal,
            temperature=model.config.temperature,
            base_model=backbone if is_hub_id(backbone) and not Path(backbone).exists() else None,
            has_recipe=recipe.exists(),
            results={split: measured[split] for split in _SPLITS if split in measured},
        )


def _raw_example(stream: str, extractor: ReDiFuFeatureExtractor) -> str:
    """Write silence, or black pictures, as the backbone of a stream takes them."""
    if stream == "audio":
        return '"audio": {"array": [0.0] * 16000, "sampling_rate": 16000}'
    count, size = extractor.picture_count, extractor.picture_size
    return f'"pixel_values": torch.zeros({count}, {size}, {size}, 3, dtype=torch.uint8).numpy()'


def render_card(repo_id: str, given: GivenCardData, found: FoundCardData) -> str:
    """Return the card of a model whose repository on the Hub is `repo_id`, as Markdown."""
    name = repo_id.split("/")[-1]
    header = ModelCardData(
        language=given.language or None,
        license=given.license,
        library_name="transformers",
        # The Hub shows code for this pipeline, so it must be one that accepts the model.
        pipeline_tag=_TASKS["text"] if found.reads_text else None,
        base_model=found.base_model,
        datasets=given.datasets or None,
        tags=["redifu", "emotion-recognition", "conversation", *given.tags],
        model_name=name,
        eval_results=_eval_results(given, found) or None,
    )
    card = ModelCard.from_template(
        header,
        template_path=str(_TEMPLATE),
        repo_id=repo_id,
        name=name,
        given=given,
        found=found,
        scores=_score_rows(found.results),
    )
    return f"{str(card).rstrip()}\n"


def _eval_results(given: GivenCardData, found: FoundCardData) -> list[EvalResult]:
    dataset = given.datasets[0] if given.datasets else "unknown"
    return [
        EvalResult(
            task_type=_TASKS[found.modalities[0]],
            task_name="Emotion recognition in conversation",
            dataset_type=dataset,
            dataset_name=dataset.split("/")[-1],
            dataset_split=_SPLITS[split],
            metric_type=metric,
            metric_name=said,
            metric_value=round(metrics[metric], 2),
        )
        for split, metrics in found.results.items()
        for metric, said in _SCORES.items()
    ]


def _score_rows(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return the rows of the score table: a name, then a cell per split, with an interval if known."""
    rows = []
    for metric, said in {**_SCORES, **_ERRORS}.items():
        digits = 2 if metric in _SCORES else 3
        row = [said]
        for metrics in results.values():
            cell = f"{metrics[metric]:.{digits}f}"
            if metric in metrics["intervals"]:
                low, high = metrics["intervals"][metric]
                cell += f" ({low:.{digits}f} to {high:.{digits}f})"
            row.append(cell)
        rows.append(row)
    return rows


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
