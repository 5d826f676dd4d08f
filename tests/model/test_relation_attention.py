"""Who is related to whom, and attention over it."""

from typing import Any

import pytest
import torch
from torch import Tensor

import paper_reference
import released_reference
from model.tiny_models import (
    assert_gradients_close,
    gradients,
    random_labels,
    random_modality_mask,
    tiny_batch,
    tiny_config,
    tiny_model,
)
from redifu.model import MODALITIES
from redifu.model.relation_attention import RelationalAttention, SpeakerSubgraphs, Subgraphs
from redifu.model.relation_subgraphs import (
    KINDS,
    NUM_RELATIONS,
    RelationEdges,
    cross_modal_edges,
    cross_modal_relation_ids,
    speaker_edges,
    speaker_relation_ids,
)


def relations(
    speakers: list[int], *, window: int = 10, present: list[bool] | None = None
) -> tuple[Tensor, Tensor]:
    """Intra- and inter-speaker ids of one dialogue, (utterances, utterances)."""
    mask = torch.tensor([present or [True] * len(speakers)])
    positions = torch.arange(len(speakers))[None]
    intra, inter = speaker_relation_ids(torch.tensor([speakers]), positions, present=mask, window=window)
    return intra[0], inter[0]


def test_hand_made_relations() -> None:
    intra, inter = relations([0, 1, 0, 0], window=2)
    assert intra.tolist() == [[1, 0, 3, 0], [0, 1, 0, 0], [2, 0, 1, 3], [0, 0, 2, 1]]
    assert inter.tolist() == [[1, 4, 0, 0], [5, 1, 4, 4], [0, 5, 1, 0], [0, 5, 0, 1]]


@pytest.mark.parametrize("window", [0, 1, 4, 100])
def test_relations_equal_the_reference(window: int) -> None:
    speakers = torch.randint(0, 4, (3, 12), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(12).expand(3, -1)
    present = torch.ones_like(speakers, dtype=torch.bool)
    ours = speaker_relation_ids(speakers, positions, present=present, window=window)
    for actual, expected in zip(ours, released_reference.speaker_relations(speakers, window), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("names", [[1, 0, 2], [7, 100, 3], [2, 1, 0]])
def test_renaming_speakers_changes_no_relation(names: list[int]) -> None:
    speakers = [0, 1, 1, 2, 0, 2, 1]
    before = relations(speakers)
    after = relations([names[speaker] for speaker in speakers])
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def test_every_pair_is_of_one_kind_and_missing_utterances_of_none() -> None:
    present = [True, False, True, True, True]
    intra, inter = relations([0, 0, 1, 0, 2], present=present)
    off_diagonal = ~torch.eye(5, dtype=torch.bool)
    pairs = torch.tensor(present)[:, None] & torch.tensor(present) & off_diagonal
    assert torch.equal((intra > 0) & off_diagonal, pairs & (inter == 0))
    assert torch.equal((inter > 0) & off_diagonal, pairs & (intra == 0))
    assert (intra.diagonal() == 1).all() and (inter.diagonal() == 1).all()


def test_the_window_counts_places_of_the_dialogue() -> None:
    positions = torch.tensor([[0, 5, 6]])
    intra, _ = speaker_relation_ids(
        torch.zeros(1, 3), positions, present=torch.ones(1, 3, dtype=bool), window=1
    )
    assert intra[0].tolist() == [[1, 0, 0], [0, 1, 3], [0, 2, 1]]


def test_speakers_beyond_the_embedding_share_a_row_but_not_their_relations() -> None:
    model = tiny_model(num_speakers=2)
    batch = tiny_batch(4)
    logits = {}
    for speakers in ([0, 2, 0, 2], [0, 9, 0, 9], [0, 2, 0, 9]):
        batch["speaker_ids"] = torch.tensor([speakers])
        logits[str(speakers)] = model(**batch).logits
    shared, renamed, told_apart = logits.values()
    assert torch.equal(shared, renamed)
    assert not torch.allclose(shared, told_apart, atol=1e-4)
    without_text = {**batch, "text_features": None}
    alone = model(**{**without_text, "speaker_ids": torch.tensor([[0, 2, 0, 2]])}).logits
    assert torch.equal(model(**without_text).logits, alone)


def test_relational_attention_equals_the_reference_over_pairs() -> None:
    torch.manual_seed(0)
    layer = RelationalAttention(6, tiny_config()).eval()
    embedding = torch.nn.Embedding(NUM_RELATIONS, 10)
    reference = released_reference.RelationalAttention(6, 16, embedding).eval()
    reference.load_state_dict(
        {"W": layer.weight, "a": layer.attention, "relation_embedding.weight": embedding.weight}, strict=False
    )
    states = torch.randn(2, 7, 6)
    ids = torch.randint(0, NUM_RELATIONS, (2, 7, 7)).masked_fill(torch.eye(7, dtype=torch.bool), 1)
    output, weights = layer(states, ids, embedding=embedding.weight)
    torch.testing.assert_close(output, reference(states, ids), rtol=0, atol=1e-5)
    assert not weights[ids == 0].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7))


def test_a_far_utterance_has_no_influence() -> None:
    torch.manual_seed(0)
    graph = SpeakerSubgraphs(tiny_config(relation_window=1)).eval()
    speakers = torch.zeros(1, 9, dtype=torch.long)
    present = torch.ones(1, 9, dtype=torch.bool)
    positions = torch.arange(9)[None]
    states = torch.randn(1, 9, 16)
    before = graph(states, speakers, positions=positions, present=present)
    states[:, 8] += 1.0
    after = graph(states, speakers, positions=positions, present=present)
    # Each of the two subgraphs has two layers one after the other: four steps of one utterance.
    changed = (before != after).any(-1)[0]
    assert not changed[:4].any()
    assert changed[7:].all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 2, 100])
def test_cross_modal_relations_equal_the_literal_ids(window: int, causal: bool) -> None:
    speakers = [0, 1, 0, 2, 1]
    present = {"text": [1, 1, 0, 1, 1], "audio": [1, 0, 1, 1, 1], "visual": [1, 1, 1, 1, 0]}
    masks = {name: torch.tensor([here]).bool() for name, here in present.items()}
    actual = cross_modal_relation_ids(
        torch.tensor([speakers]), torch.arange(5)[None], present=masks, window=window, causal=causal
    )
    alone = {name: mask[0] for name, mask in masks.items()}
    expected = paper_reference.cross_modal_ids(speakers, alone, window=window, causal=causal)
    assert torch.equal(actual[0], expected)
    assert actual.max() < NUM_RELATIONS + KINDS * 6


def test_the_cross_modal_subgraph_equals_the_reference_over_pairs() -> None:
    module = tiny_model(cross_modal_relations=True).redifu.cross_modal_relations
    reference = released_reference.RelationalGraph(16, module.embedding).eval()
    names = {"inputs.": "attentions.", "joint.": "out_att.", "projection.": "fc."}
    for layer in ("", "attentions.0.", "attentions.1.", "out_att."):
        names[f"{layer}norm."] = f"{layer}layer_norm."
    weights = {}
    for key, value in module.graph.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs) if key.startswith(ours) else key
        key = key.replace(".weight", ".W") if value.shape[0] in (16, 32) and value.dim() == 2 else key
        weights[key.replace("fc.W", "fc.weight").replace(".attention", ".a")] = value
    reference.load_state_dict(weights, strict=False)
    speakers = torch.tensor([[0, 1, 0, 1]])
    present = {name: torch.ones(1, 4, dtype=torch.bool) for name in MODALITIES}
    streams = {name: torch.randn(1, 4, 16) for name in MODALITIES}
    fused = module(streams, speakers, positions=torch.arange(4)[None], present=present)
    ids = cross_modal_relation_ids(speakers, torch.arange(4)[None], present=present, window=3)
    expected = reference(torch.cat(list(streams.values()), dim=1), ids)
    torch.testing.assert_close(torch.cat(list(fused.values()), dim=1), expected, rtol=0, atol=1e-5)


def dense(edges: RelationEdges) -> Tensor:
    """The edges as ids (nodes, nodes)."""
    size = len(edges.pointers) - 1
    ids = torch.zeros(size, size, dtype=torch.long)
    ids[edges.index[0], edges.index[1]] = edges.ids
    assert (ids > 0).sum() == len(edges.ids), "an edge twice"
    assert torch.equal((ids > 0).sum(1).cumsum(0), edges.pointers[1:])
    # What a CSR matrix asks for: its product is right without, its gradient is not.
    assert ((edges.index[0] * size + edges.index[1]).diff() > 0).all()
    return ids


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 1, 3, 100])
def test_edges_say_what_dense_ids_say(window: int, causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    speakers = torch.randint(0, 3, (3, 9), generator=generator)
    present = {name: torch.rand(3, 9, generator=generator) < 0.7 for name in MODALITIES}
    present["visual"][1] = False
    given = {"window": window, "causal": causal}
    positions = torch.arange(9).expand(3, -1) + torch.tensor([[0], [2], [5]])
    for ids, edges in zip(
        speaker_relation_ids(speakers, positions, present=present["text"], **given),
        speaker_edges(speakers, positions, present=present["text"], **given),
        strict=True,
    ):
        here = present["text"]
        expected = torch.block_diag(*(each[mask][:, mask] for each, mask in zip(ids, here, strict=True)))
        assert torch.equal(dense(edges), expected)
    ids = cross_modal_relation_ids(speakers, positions, present=present, **given)
    edges = cross_modal_edges(speakers, positions, present=present, **given)
    # From stream by stream in each dialogue to stream by stream in all of them.
    nodes = torch.cat(list(present.values()))
    whole = torch.zeros(3 * 3 * 9, 3 * 3 * 9, dtype=torch.long)
    for row in range(3):
        places = torch.cat([torch.arange(9) + 27 * stream + 9 * row for stream in range(3)])
        whole[places[:, None], places] = ids[row]
    kept = nodes.flatten()
    assert torch.equal(dense(edges), whole[kept][:, kept])


@pytest.mark.parametrize("fields", [{}, {"cross_modal_relations": True}, {"causal": True}], ids=str)
def test_sparse_equals_dense_in_values_and_gradients(fields: dict[str, bool]) -> None:
    batch = tiny_batch(9, 1, 5)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    labels = random_labels(batch)
    everywhere = {"relation_modalities": list(MODALITIES), **fields}
    models = [tiny_model(edges=edges, **everywhere) for edges in (False, True)]
    expected, actual = (model(**batch, labels=labels) for model in models)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=0, atol=1e-5)
    assert_gradients_close(
        gradients(models[1], actual.loss), gradients(models[0], expected.loss), tolerance=1e-5
    )


def test_long_dialogues_are_related_by_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subgraphs, "_edges_above", 4)
    model = tiny_model()
    for length, sparse in ((4, False), (5, True)):
        attentions = model(**tiny_batch(length), output_attentions=True).attentions
        assert ("text_intra_speaker" not in attentions) == sparse


def test_the_graph_of_a_conversation_holds_every_subgraph() -> None:
    model = tiny_model(cross_modal_relations=True, relation_modalities=["text", "audio"]).redifu
    utterances: list[dict[str, Any]] = [
        {"speaker": "Ana", "text": "Hi", "video": "0.mp4"},
        {"speaker": "Bo", "text": " ", "audio_features": [1.0] * 5, "visual_features": None},
        {"speaker": "Ana", "text": "Yes?", "audio": "2.wav"},
    ]
    graph = model.relation_graph({"id": "d", "utterances": utterances})
    assert {name: graph[name].turn.tolist() for name in MODALITIES} == {
        "text": [0, 2],
        "audio": [1, 2],
        "visual": [0],
    }
    edges = {kind: graph[kind].edge_index.T.tolist() for kind in graph.edge_types}
    assert edges["text", "intra_speaker", "text"] == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert graph["text", "intra_speaker", "text"].edge_attr.tolist() == [1, 3, 2, 1]
    assert edges["audio", "inter_speaker", "audio"] == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert graph["audio", "inter_speaker", "audio"].edge_attr.tolist() == [1, 4, 5, 1]
    assert ("visual", "intra_speaker", "visual") not in edges
    # To the visual stream of turn 0 from the audio of turns 1 and 2.
    assert edges["audio", "cross_modal", "visual"] == [[0, 0], [1, 0]]
    graph.validate(raise_on_error=True)
