"""The surface of a text: the model scores as its matrix does, and texts that nobody labelled say what goes together."""

import numpy as np
import pytest

from quality_judge.engine.surface import COUNT_NAMES, FEATURE_BITS, LONG, SHORT
from quality_judge.errors import InputError
from quality_judge.samples import Sample
from quality_judge.stats.metrics import roc_auc
from quality_judge.train import surface_fit
from quality_judge.train.examples import build_examples
from quality_judge.train.linear import fit_linear
from quality_judge.train.surface_fit import SurfaceFeatures, distinct_texts, fit_surface, varied_directions

SEA, FOREST = (
    ["reef", "tide", "gull", "harbour", "sailor", "anchor", "mast"],
    ["oak", "moss", "fern", "badger", "acorn", "bark", "owl"],
)
EVERYDAY = ["one", "seen", "near", "again", "other", "day", "place"]


@pytest.fixture
def examples_of(made, encoder):
    """A function from texts and what was said of each to examples; only so much of a text is read."""

    def make(texts, labels):
        rows = [Sample("", text, bool(label)) for text, label in zip(texts, labels, strict=True)]
        return build_examples(made.label_set(rows), encoder(max_tokens=64))

    return make


def about(words, count, dice):
    """Texts of three of the words and two that stand anywhere."""
    return [" ".join([*dice.choice(words, 3, replace=False), *dice.choice(EVERYDAY, 2)]) for _ in range(count)]


@pytest.fixture
def dice():
    return np.random.default_rng(0)


@pytest.mark.parametrize("ngram_order", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("count_scale", [0.0, 0.3])
@pytest.mark.parametrize("unlabelled", [0, 200])
def test_the_surface_model_scores_as_the_linear_model_on_its_matrix(
    made, examples_of, dice, count_scale, ngram_order, unlabelled
):
    texts = [made.text(dice, line % 2 == 0) for line in range(30)] + ["x" * 5_000, "水在高山上沸腾", "…", "A\nB"]
    others = [made.text(dice, line % 2 == 0) for line in range(unlabelled)]
    features = SurfaceFeatures(texts, ngram_order, unlabelled=others)
    matrix = features.matrix(count_scale)
    examples = examples_of(texts, [line % 2 == 0 for line in range(len(texts))])
    linear = fit_linear(matrix, examples, np.ones(len(texts), bool), strength=1.0)
    found = features.model(linear, count_scale).raw(texts)
    np.testing.assert_allclose(found, linear.raw(matrix), atol=1e-4)
    assert np.ptp(found) > 0.1


def test_a_label_speaks_for_words_that_stand_beside_its_own_in_texts_nobody_labelled(examples_of, dice):
    """The labels hold the first three words of each kind, the texts that are asked about the others."""
    labelled = [*about(SEA[:3], 12, dice), *about(FOREST[:3], 12, dice)]
    asked = [*about(SEA[3:], 50, dice), *about(FOREST[3:], 50, dice)]
    others = distinct_texts([*about(SEA, 400, dice), *about(FOREST, 400, dice)])
    examples, sea = examples_of(labelled, [1] * 12 + [0] * 12), np.arange(100) < 50
    folds = np.arange(24) % 3
    alone, _, plain = fit_surface(examples, folds)
    helped, _, note = fit_surface(examples, folds, unlabelled=others)
    assert roc_auc(sea, alone.raw(asked)) < 0.8
    assert roc_auc(sea, helped.raw(asked)) > 0.95
    assert note["unlabelled_texts"] == len(others)
    assert "unlabelled_texts" not in plain


def test_directions_are_orthogonal_as_long_as_texts_vary_and_the_same_on_every_run(dice):
    features = SurfaceFeatures(about(SEA + FOREST, 300, dice)).matrix(0.0)
    found = varied_directions(features)
    assert found.shape == (features.shape[1], 30)  # one for ten texts
    products = found.T @ found
    squares = np.diag(products)
    np.testing.assert_allclose(products, np.diag(squares), atol=1e-4)
    assert squares.mean() == pytest.approx(1, rel=1e-4)
    assert squares.max() > 4 * squares.min()
    varied = np.linalg.norm(features @ found, axis=0) / np.sqrt(squares)  # how far texts vary along each
    np.testing.assert_allclose(varied / np.sqrt(squares), np.full(30, np.sqrt((varied**2).mean())), rtol=1e-3)
    np.testing.assert_array_equal(varied_directions(features), found)


@pytest.mark.parametrize("count", [0, 9])
def test_without_unlabelled_texts_or_with_a_handful_the_features_are_ngrams_and_counts_alone(dice, count):
    features = SurfaceFeatures(about(FOREST, 20, dice), unlabelled=about(SEA, count, dice))
    assert features.matrix(0.3).shape == (20, (1 << FEATURE_BITS) + len(COUNT_NAMES))


def test_a_handful_of_unlabelled_texts_is_refused(examples_of, dice):
    examples = examples_of(about(SEA + FOREST, 20, dice), [1, 0] * 10)
    with pytest.raises(InputError, match="hold 9 different texts; expected 10 or more"):
        fit_surface(examples, np.arange(20) % 4, unlabelled=about(SEA, 9, dice))


def test_repeats_and_empty_texts_are_no_evidence():
    assert distinct_texts(["four", "", "four", "words", "more"]) == ["four", "words", "more"]


def test_of_a_long_corpus_texts_from_all_over_are_taken(monkeypatch):
    """Of 1,000 texts 250, always the same; with chances alike a quarter gives 62.5 of them, with a deviation of 6."""
    monkeypatch.setattr(surface_fit, "MAX_UNLABELLED_CHARACTERS", 1_000)
    taken = [int(text) for text in distinct_texts([f"{at:04}" for at in range(1_000)])]
    assert len(taken) == 250
    assert taken == sorted(taken)
    assert all(38 <= count <= 88 for count in np.bincount(np.array(taken) // 250))
