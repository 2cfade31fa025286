"""Forms of training data, what is dropped of it, mining, scores, and RAGTrainer's files."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("datasets", reason="the train extra is not installed")

from colbert_vespa.training import (
    Example,
    MiningSettings,
    QualitySettings,
    RAGTrainer,
    TrainingData,
    clean,
    examples_of,
    read_training_data,
    synthetic_examples,
)
from colbert_vespa.training.data import split_by_query
from colbert_vespa.training.measuring import MeasuredModel, compare, held_out_of
from colbert_vespa.training.mining import Bm25Ranker, mine, mined_once
from colbert_vespa.training.scorers import CachedScorer, Ensemble, cross_encoder
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
CORPUS = [f"apple pear {' '.join(['apple'] * n)} tree number{n} grows" for n in range(30)]


def test_all_forms_become_examples():
    assert examples_of([("q", "a"), ("q", ["b"])]) == [Example("q", "a"), Example("q", "b")]
    assert examples_of([("q", "a", 1), ("q", "b", 0)], labelled=True) == [Example("q", "a", ("b",))]
    assert examples_of([("q", ["a", "b"], ["c", "a"])]) == [Example("q", "a", ("c",)), Example("q", "b", ("c",))]


@pytest.mark.parametrize("bad", [("q",), ("q", 3), ("q", []), (1, "a")])
def test_another_form_is_named(bad):
    with pytest.raises(CollectionError, match="training example 1"):
        examples_of([("q", "a"), bad])


def test_lines_of_examples_are_read(tmp_path):
    lines = [{"query": "q", "positive": "a", "negative": ["b"]}, {"query": "r", "passage": "c", "label": 1},
             {"query": "s", "documents": ["d", "e"], "scores": [2, 1]}]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_training_data(tmp_path / "data.jsonl").examples == [
        Example("q", "a", ("b",)), Example("r", "c"), Example("s", "d", ("e",), (2.0, 1.0))]  # fmt: skip
    (tmp_path / "bad.jsonl").write_text('{"query": "s", "documents": ["d", "e"], "scores": [2]}\n')
    with pytest.raises(CollectionError, match=r"bad.jsonl:1: expected a number in scores"):
        read_training_data(tmp_path / "bad.jsonl")


def test_queries_are_made_of_titles_headings_and_sentences():
    document = Document("d", "The title", f"# First part\n{LONG}. And here is another sentence of it. {LONG}.")
    made = synthetic_examples([document], per_document=3)
    assert [example.query for example in made[:2]] == ["The title", "First part"]
    assert {example.whole for example in made} == {f"The title {document.text}"}
    assert made == synthetic_examples([document], per_document=3)
    cropped = synthetic_examples(
        [Document("d", "", f"{LONG.title()} alpha. {LONG.title()} beta. {LONG.title()} gamma.")], per_document=1
    )[0]
    assert cropped.query.split()[-1] in ("alpha.", "beta.", "gamma.")


def test_duplicates_near_ones_contradictions_and_noise_are_dropped():
    examples = [Example("what", LONG, (LONG + " more", "other text here")), Example("What?", LONG.upper()),
                Example("what", LONG + "."), Example("", LONG), Example("who", "a b")]  # fmt: skip
    data, report = clean(TrainingData(examples), QualitySettings(near=0.9))
    assert report.dropped["duplicate"] == 2
    assert report.dropped["blank"] == report.dropped["document too short"] == 1
    assert len(data.examples) == report.kept == 1
    near = TrainingData([Example("a", " ".join([LONG] * 6)), Example("b", " ".join([LONG] * 6) + " end")])
    assert clean(near)[1].merged == 1
    negative = clean(TrainingData([Example("a", LONG, ("some other text",)), Example("a", "some other text")]))[0]
    assert negative.examples[0].negatives == ()


def test_what_is_in_the_test_set_is_not_trained_on():
    test = TrainingData([Example("tested query", LONG)])
    data = TrainingData(
        [Example("Tested  Query", "another text of it"), Example("x y", LONG), Example("free", "a free text")], [LONG]
    )
    kept, report = clean(data, test=test)
    assert [example.query for example in kept.examples] == ["free"]
    assert report.dropped["leak: in the test set"] == 2
    assert LONG not in kept.pool


def test_negatives_come_from_the_window_and_below_the_margin():
    ranker = Bm25Ranker(CORPUS)
    ranking = [CORPUS[place] for place, _ in ranker.search("apple", 30)]
    data = TrainingData([Example("apple", ranking[4])], CORPUS)
    settings = MiningSettings(first_rank=3, last_rank=8)
    negatives = mine(data, [Bm25Ranker(data.pool)], settings, 5)[0].negatives
    assert set(negatives) == set(ranking[2:8]) - {ranking[4]}
    scores = dict(ranker.search("apple", 30))
    ratio = MiningSettings(last_rank=30, ratio=0.999)
    found = mine(data, [Bm25Ranker(data.pool)], ratio, 3)[0].negatives
    assert all(scores[CORPUS.index(text)] <= 0.999 * scores[CORPUS.index(ranking[4])] for text in found)


def test_what_was_made_of_a_document_is_neither_its_negative_nor_divided_from_it():
    documents = [Document(f"d{n}", "", f"{LONG.title()} alpha{n}. {LONG.title()} beta{n}. {LONG.title()} gamma{n}.")
                 for n in range(6)]  # fmt: skip
    data = TrainingData(synthetic_examples(documents), [document.text for document in documents])
    assert data.pool == [document.text for document in documents]
    for example in mine(data, [Bm25Ranker(data.pool)], MiningSettings(), 3):
        assert len(example.negatives) == 3 and example.source not in example.negatives
    inside, outside = split_by_query(data, 0.3, 0)
    assert not {example.source for example in inside.examples} & {example.source for example in outside.examples}
    judged = held_out_of("held", outside, data.documents)
    parts = {example.positive for example in outside.examples}
    assert parts <= {document.text for document in judged.documents}
    assert not ({example.source for example in outside.examples} - parts) & {document.text for document in judged.documents}
    assert all(len(found) == 2 for found in judged.qrels.values())


def test_a_teacher_filters_false_negatives():
    data = TrainingData([Example("apple", CORPUS[0])], CORPUS)
    teacher = lambda pairs: [0.0 if "number7 " in d else 2.0 if d != CORPUS[0] else 1.0 for _, d in pairs]  # noqa: E731
    mined = mine(data, [Bm25Ranker(CORPUS)], MiningSettings(), 1, teacher=teacher)
    assert "number7 " in mined[0].negatives[0]


def test_what_was_mined_is_read_again_unless_something_changed(tmp_path):
    data, calls = TrainingData([Example("apple", CORPUS[0])], CORPUS), []

    def make():
        calls.append(1)
        return [Example("apple", CORPUS[0], (CORPUS[1],))]

    arguments = (tmp_path / "mined" / "start.jsonl", data, MiningSettings(), 1)
    assert mined_once(*arguments, "a model", make) == mined_once(*arguments, "a model", make)
    assert len(calls) == 1
    mined_once(*arguments, "another model", make)
    assert len(calls) == 2


def test_scores_are_kept_and_a_torn_line_is_not(tmp_path):
    asked = []

    def scorer(pairs):
        asked.extend(pairs)
        return [1.0] * len(pairs)

    path = tmp_path / "scores.jsonl"
    CachedScorer(scorer, path, name="t")([("q", "a"), ("q", "b")])
    path.write_bytes(path.read_bytes() + b'["torn')
    assert CachedScorer(scorer, path, name="t")([("q", "a"), ("q", "c")]) == [1.0, 1.0]
    assert asked == [("q", "a"), ("q", "b"), ("q", "c")]
    with pytest.raises(UsageError, match="not finite"):
        CachedScorer(lambda pairs: [float("nan")] * len(pairs), tmp_path / "other", name="t")([("q", "a")])


def test_a_cross_encoder_is_a_teacher(tmp_path):
    import checkpoints
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    plain = checkpoints.plain(tmp_path / "plain")
    config = AutoConfig.from_pretrained(plain, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "teacher")
    AutoTokenizer.from_pretrained(plain).save_pretrained(tmp_path / "teacher")
    pairs = [("late interaction", "one vector per token"), ("late interaction", "the lazy dog")]
    scores = cross_encoder(tmp_path / "teacher")(pairs)
    assert len(scores) == 2 and scores[0] != scores[1]
    assert cross_encoder(tmp_path / "teacher")(pairs[1:]) == pytest.approx(scores[1:], abs=1e-5)


def test_an_ensemble_weighs_scorers_on_one_scale():
    large, small = (lambda pairs: [1000.0 * len(d) for _, d in pairs]), (lambda pairs: [-1.0 * len(d) for _, d in pairs])
    pairs = [("q", "a"), ("q", "aaa")]
    assert Ensemble([(large, 1.0), (small, 1.0)], pairs)(pairs) == pytest.approx([0, 0])


def test_differences_are_paired():
    gained = compare(MeasuredModel("new", {}, [0.5, 0.6, 0.9, 1.0]), MeasuredModel("old", {}, [0.4, 0.4, 0.8, 0.8]))
    assert gained.difference == pytest.approx(0.15)
    assert gained.low < 0.15 < gained.high and gained.t_test < 0.05


def test_defect_15_negatives_keep_to_the_minimum_rank(tmp_path):
    """RAGatouille's miner sliced a tuple, so that near-positives became negatives."""
    ranking = [CORPUS[place] for place, _ in Bm25Ranker(CORPUS).search("apple", 30)]
    trainer = RAGTrainer("tiny", "unused")
    trainer.prepare_training_data([("apple", ranking[0])], CORPUS, tmp_path, num_new_negatives=5, hard_negative_minimum_rank=12)
    corpus = dict(line.split("\t") for line in (tmp_path / "corpus.train.colbert.tsv").read_text().splitlines())
    triples = [json.loads(line) for line in (tmp_path / "triples.train.colbert.jsonl").read_text().splitlines()]
    assert len(triples) == 5
    assert all(ranking.index(corpus[str(negative)]) >= 11 for _, _, negative in triples)


def test_defect_16_the_corpus_keeps_its_order(tmp_path):
    """RAGatouille's corpus went through a set, so that every run numbered it anew."""
    trainer = RAGTrainer("tiny", "unused")
    trainer.prepare_training_data([("apple", CORPUS[3], CORPUS[4])], [*CORPUS, *CORPUS], tmp_path, mine_hard_negatives=False)
    lines = (tmp_path / "corpus.train.colbert.tsv").read_text().splitlines()
    assert lines == [f"{n}\t{' '.join(text.split())}" for n, text in enumerate(CORPUS)]
    assert (tmp_path / "queries.train.colbert.tsv").read_text() == "0\tapple\n"


def test_at_most_twenty_triplets_of_a_query_with_several_positives(tmp_path):
    trainer = RAGTrainer("tiny", "unused")
    trainer.prepare_training_data([("apple", CORPUS[:3], CORPUS[3:])], None, tmp_path, mine_hard_negatives=False)
    assert 0 < len((tmp_path / "triples.train.colbert.jsonl").read_text().splitlines()) <= 20


def test_rag_trainer_trains_a_checkpoint(tmp_path, monkeypatch):
    import checkpoints

    from exporter.layouts.scanning import scan_checkpoint
    from exporter.loading import load_checkpoint

    monkeypatch.chdir(tmp_path)
    start = checkpoints.stanford(tmp_path / "start")
    trainer = RAGTrainer("mine", str(start))
    with pytest.raises(UsageError, match="prepare_training_data first"):
        trainer.train()
    trainer.prepare_training_data([("apple", CORPUS[0])], CORPUS, tmp_path / "data", num_new_negatives=4)
    assert (
        load_checkpoint(scan_checkpoint(tmp_path / trainer.train(batch_size=2, maxsteps=2))).model.get_embedding_dimension()
        == 16
    )


def test_texts_are_cleaned(tmp_path):
    assert examples_of([("q\x00", "p\ud800", "n\x1f")])[0] == Example("q ", "p ", ("n ",))
    assert examples_of([("q\x00", "p\x07", 1)], labelled=True)[0] == Example("q ", "p ")
    path = tmp_path / "scored.jsonl"
    path.write_text('{"query": "q\\u0000\\u2028", "documents": ["a\\u0001", "b"], "scores": [1, 0.5]}\n')
    assert read_training_data(path).examples == [Example("q \u2028", "a ", ("b",), (1.0, 0.5))]
