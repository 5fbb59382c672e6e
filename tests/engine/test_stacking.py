"""The surface model scores as it says it does, survives being saved, and a damaged head file is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from quality_judge.engine.stacking import SurfaceModel, clipped, stacked, weighted
from quality_judge.engine.surface import (
    COUNT_NAMES,
    FEATURE_BITS,
    LONG,
    SHORT,
    NgramOrder,
    surface_counts,
    surface_features,
)
from quality_judge.errors import JudgeError
from quality_judge.judge_spec import Stack

TEXTS = ["Water boils on a mountain.", "", "click here click here", "水在高山上沸腾", "!!!", "a" * 5000]


@pytest.fixture(scope="module", params=[LONG, SHORT], ids=["long", "short"])
def model(request):
    dice = np.random.default_rng(3)
    wide, narrow = 1 << FEATURE_BITS, len(COUNT_NAMES)
    return SurfaceModel(
        idf=dice.uniform(1, 8, wide).astype(np.float32), ngram_weight=dice.normal(size=wide).astype(np.float32),
        mean=dice.normal(size=narrow), scale=dice.uniform(0.1, 2, narrow), count_weight=dice.normal(size=narrow),
        bias=np.array([0.5]), ngram_order=np.array(request.param),
    )  # fmt: skip


def test_the_raw_score_is_what_the_formula_says(model):
    features = surface_features(TEXTS, NgramOrder(*model.ngram_order)).toarray().astype(np.float64) * model.idf
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    counts = np.clip((surface_counts(TEXTS) - model.mean) / model.scale, -4, 4)
    expected = 0.5 + features @ model.ngram_weight.astype(np.float64) + counts @ model.count_weight
    np.testing.assert_allclose(model.raw(TEXTS), expected, rtol=1e-4, atol=1e-4)


def test_a_raw_score_is_the_same_bits_alone_and_among_others(model):
    texts = TEXTS * 50
    together = model.raw(texts)
    for at in (0, 1, 2, 3, 4, 5, 299):
        assert model.raw([texts[at]]).tobytes() == together[at : at + 1].tobytes()
    assert model.raw(texts[::-1])[::-1].tobytes() == together.tobytes()


def test_no_texts_have_no_scores(model):
    assert model.raw([]).shape == (0,)


def test_a_saved_surface_model_scores_the_same_bits(model):
    tensors = {name: torch.from_numpy(array) for name, array in model.tensors().items()}
    back = SurfaceModel.from_tensors(load(save({**tensors, "head.weight": torch.zeros(1, 2)})))
    for name in SurfaceModel.__dataclass_fields__:
        assert getattr(back, name).dtype == getattr(model, name).dtype
    assert back.raw(TEXTS).tobytes() == model.raw(TEXTS).tobytes()


@pytest.mark.parametrize("name", sorted(SurfaceModel.__dataclass_fields__))
def test_a_missing_or_misshapen_tensor_is_refused(model, name):
    tensors = {key: torch.from_numpy(array) for key, array in model.tensors().items()}
    for wrong in ({}, {f"surface.{name}": torch.zeros(3)}):
        with pytest.raises(JudgeError, match=name):
            SurfaceModel.from_tensors({**{key: t for key, t in tensors.items() if key != f"surface.{name}"}, **wrong})


@pytest.mark.parametrize("ngram_order", [torch.tensor([0, 1]), torch.tensor([5, 10**9]), torch.tensor([2.0, 1.0])])
def test_ngrams_longer_than_there_are_or_none_at_all_are_refused(model, ngram_order):
    tensors = {key: torch.from_numpy(array) for key, array in model.tensors().items()}
    with pytest.raises(JudgeError, match="ngram_order"):
        SurfaceModel.from_tensors({**tensors, "surface.ngram_order": ngram_order})


def test_weighting_leaves_its_argument_alone_and_gives_rows_of_length_one():
    features = surface_features(TEXTS)
    before = features.data.copy()
    rows = weighted(features, np.full(1 << FEATURE_BITS, 2.0, np.float32))
    assert (features.data == before).all()
    np.testing.assert_allclose(np.sqrt(rows.multiply(rows).sum(axis=1)), 1, atol=1e-5)


def test_no_count_outweighs_everything_else():
    assert np.abs(clipped(np.array([[1e9, -1e9]]), np.zeros(2), np.ones(2))).max() == 4


def test_parts_add_up():
    stack, model_output, surface = Stack(bias=1, model=2, surface=3), np.array([1.0, -1.0]), np.array([10.0, 0.0])
    assert stacked(stack, model_output, surface).tolist() == [33, -1]
    assert stacked(stack, model_output, None).tolist() == [3, -1]
