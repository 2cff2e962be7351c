"""Attention within the items of packed rows equals attention over whole rows with segments."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from programs import COMPUTES, CPU, XLA, batch_loss, init
from t5smith.model.attention.items import ItemLayout, Items
from t5smith.model.attention.masks import SegmentIds
from t5smith.model.attention.multi_head import dot_product_attention
from t5smith.model.config import ModelConfig
from t5smith.model.dropout import Dropout
from t5smith.model.t5 import Segments
from t5smith.objective.batches import Objective, TrainingBatches
from t5smith.objective.packing import plan_rows
from t5smith.objective.row_plan import Item, RowPlan
from t5smith.recipe.objective import ObjectiveSettings
from t5smith.recipe.train import OptimizerSettings, ScheduleSettings
from t5smith.store.token_store import Split
from t5smith.training.optimizer import create_optimizer
from t5smith.training.schedule import create_schedule
from t5smith.training.state import fresh_state
from t5smith.training.step import StepSettings, create_step
from t5smith.vocabulary.vocabulary import Vocabulary

CONFIG = ModelConfig(
    32_128, 32_100, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_decoder_layers=1, num_heads=2
)
OBJECTIVES = {
    "ul2": {"name": "ul2"},
    "prefix_lm": {"name": "prefix_lm", "input_length": 70},
    "one kind": {"name": "span_corruption", "input_length": 50},
    "mixture": {
        "name": "mixture",
        "denoisers": ["0.15 3", "0.5 8 2", "0.25 prefix 3", "0.15 3"],
        "cross_documents": False,
        "eos": False,
    },
}
H, K = 2, 4


@cache
def batches_of(name: str, rows: int) -> TrainingBatches:
    settings = ObjectiveSettings.model_validate({"window_length": 24, **OBJECTIVES[name]})
    objective = Objective.create(settings, Vocabulary.bundled())
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 32_000, 2_000).astype(np.uint16)
    ends = np.append(np.sort(rng.choice(np.arange(1, 2_000), 60, replace=False)), 2_000)
    return TrainingBatches(Split("train", tokens, ends, 0), objective, rows, seed=0)


def layout_of(plan: RowPlan) -> ItemLayout:
    return ItemLayout(plan.item_sizes, plan.rows)


def arrays_of(batches: TrainingBatches, number: int) -> tuple[dict[str, jax.Array], Segments, Segments]:
    """A batch, its segments, and its segments with the items."""
    batch = {key: jnp.asarray(value) for key, value in batches[number].items()}
    sides = batch["input_segments"], batch["target_segments"]
    return batch, Segments(*sides), Segments(*sides, Items(batch["items"], layout_of(batches.objective.plan)))


@partial(jax.jit, static_argnames="compute")
def gradient_of_loss(p, inputs, targets, segments, compute=CPU):
    def loss(p):
        sums = batch_loss(p, CONFIG, inputs, targets, compute, segments)
        return sums.objective / sums.tokens, sums

    return jax.value_and_grad(loss, has_aux=True)(p)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("prefix_lm", 3),
        pytest.param("ul2", 2, marks=pytest.mark.slow),
        *(pytest.param(name, 5, marks=pytest.mark.slow) for name in ("ul2", "one kind", "mixture")),
    ],
)
def test_loss_and_gradients_are_those_of_whole_rows(name, rows):
    p = init(CONFIG, jax.random.key(0))
    batches = batches_of(name, rows)
    for number in range(4):
        batch, whole, by_item = arrays_of(batches, number)
        (want, sums), d_want = gradient_of_loss(p, batch["input_ids"], batch["targets"], whole)
        (got, found), d_got = gradient_of_loss(p, batch["input_ids"], batch["targets"], by_item)
        assert float(got) == pytest.approx(float(want), abs=1e-5)
        assert float(found.nll) == pytest.approx(float(sums.nll), rel=1e-6)
        for ours, theirs in zip(jax.tree.leaves(d_got), jax.tree.leaves(d_want), strict=True):
            assert float(jnp.abs(ours - theirs).max()) <= 2e-5 * float(jnp.abs(theirs).max()) + 1e-7


@pytest.mark.slow
def test_the_same_on_other_devices():
    # Their backend runs on CPU too.
    p = init(CONFIG, jax.random.key(0))
    gradient = partial(gradient_of_loss, compute=XLA)
    for number in range(2):
        batch, whole, by_item = arrays_of(batches_of("ul2", 3), number)
        (want, _), d_want = gradient(p, batch["input_ids"], batch["targets"], whole)
        (got, _), d_got = gradient(p, batch["input_ids"], batch["targets"], by_item)
        assert float(got) == pytest.approx(float(want), abs=1e-5)
        for ours, theirs in zip(jax.tree.leaves(d_got), jax.tree.leaves(d_want), strict=True):
            assert float(jnp.abs(ours - theirs).max()) <= 2e-5 * float(jnp.abs(theirs).max()) + 1e-7


def scores_computed(segments, batch, compute):
    """Whether the program has the bias of whole rows, or their scores: in encoder, decoder, between them."""
    p = jax.eval_shape(lambda: init(CONFIG, jax.random.key(0)))
    ids = batch["input_ids"], batch["targets"]
    gradient = partial(gradient_of_loss.__wrapped__, compute=compute)
    text = jax.jit(lambda p: gradient(p, *ids, segments)).lower(p).as_text()
    S, T = batch["input_ids"].shape[1], batch["targets"].shape[1]
    return [f"x{queries}x{keys}xf32" in text for queries, keys in ((S, S), (T, T), (T, S))]


@pytest.mark.parametrize("compute", [CPU, XLA], ids=str)
def test_no_scores_outside_items_are_computed(compute):
    batch, whole, by_item = arrays_of(batches_of("ul2", 3), 0)
    assert scores_computed(whole, batch, compute) == [True, True, True]
    assert scores_computed(by_item, batch, compute) == [False, False, False]


@pytest.mark.slow
def test_parts_of_a_batch_give_the_step_of_whole_rows():
    batches = batches_of("ul2", 6)
    schedule = create_schedule(ScheduleSettings(name="constant", warmup_steps=4), 0.1, 10)
    optimizer = create_optimizer(OptimizerSettings(name="adamw"), schedule, CONFIG.num_heads, CPU.backend)
    layout, found = layout_of(batches.objective.plan), []
    for settings in (StepSettings(CPU), StepSettings(CPU, layout=layout, accumulation=3)):
        state = jax.jit(lambda: fresh_state(CONFIG, optimizer, jax.random.key(0)))()
        step = create_step(CONFIG, optimizer, schedule, settings)
        losses = []
        for number in range(3):
            state, metrics = step(state, batches[number])
            losses.append(float(metrics.loss))
            # Batches have different numbers of items of each kind, and the program is the same.
            assert step._cache_size() == 1
        found.append(losses)
    assert found[1] == pytest.approx(found[0], abs=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_items_are_where_the_batch_says(name):
    batches = batches_of(name, 5)
    plan = batches.objective.plan
    for number in range(3):
        batch = batches[number]
        for row, kinds in enumerate(batch["items"]):
            at, window = np.zeros(2, int), 0
            for kind in kinds[kinds >= 0]:
                item = plan.items[kind]
                own = {0, *range(window + 1, window + 1 + item.windows)}
                window += item.windows
                for side, size in enumerate((item.inputs, item.targets)):
                    here = batch[("input_segments", "target_segments")[side]][row, at[side] :][:size]
                    assert own - {0} <= {*here.tolist()} <= own
                    at[side] += size
            assert (batch["input_segments"][row, at[0] :] == 0).all()
            assert (batch["target_segments"][row, at[1] :] == 0).all()


@pytest.mark.parametrize(
    "sizes", [[(463, 104), (447, 88), (343, 342)], [(30, 9)], [(7, 3), (4, 4), (5, 1), (6, 2), (2, 2)]]
)
def test_the_room_for_items_is_what_some_rows_need_and_enough_for_all(sizes):
    items = tuple(Item(*size, weight=1.0 + number) for number, size in enumerate(sizes))
    plan = plan_rows(items, input_length=3 * sizes[0][0])
    layout = layout_of(plan)
    for rows in (1, 2, 3, len(plan.rows), len(plan.rows) + 2):
        counts = [
            [(plan.items_of(first, rows) == kind).sum() for kind in range(len(items))]
            for first in range(len(plan.rows))
        ]
        assert layout.most(rows) == np.max(counts, axis=0).tolist()


def example(seed=0):
    """Rows of 13 queries and 13 keys with items of three kinds, and their places."""
    layout = ItemLayout(((6, 4), (4, 3), (3, 5)), ((0, 1), (2, 2, 1), (0, 2)))
    items = Items(jnp.array([[0, 1, -1], [2, 2, 1], [0, 2, -1]]), layout)
    queries = [[1, 1, 0, 0, 2, 2, 2], [1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 3], [1, 1, 2, 2, 3, 3]]
    keys = [[1, 1, 1, 1, 1, 0, 2, 2], [1, 1, 1, 2, 2, 2, 3, 3, 3, 0], [1, 1, 2, 2, 2, 2, 3, 3, 0]]
    ids = [jnp.array([row + [0] * (13 - len(row)) for row in rows]) for rows in (queries, keys)]
    rng = jax.random.split(jax.random.key(seed), 5)
    q, cotangent = (jax.random.normal(key, (3, 13, H * K)) for key in rng[:2])
    k, v = (jax.random.normal(key, (3, 13, H * K)) for key in rng[2:4])
    # Relative to where an item begins, so that it is the same in every item: here it has no positions.
    bias = jnp.broadcast_to(jax.random.normal(rng[4], (H, 1, 1)), (H, 13, 13))
    return q, k, v, bias, cotangent, SegmentIds(*ids), items.places(1, 0)


@COMPUTES
def test_attention_by_item_is_that_by_segments(compute):
    q, k, v, bias, cotangent, ids, places = example()
    # Padding is outside of windows: it has no loss, so no gradient either.
    real = (ids.queries > 0)[..., None]

    def both(segment_ids, bias):
        def attended(q, k, v, bias):
            return jnp.where(real, dot_product_attention(q, k, v, bias, segment_ids, compute), 0.0)

        value, back = jax.vjp(attended, q, k, v, bias)
        return [value, *back(cotangent)[:3]]

    got = jax.jit(lambda: both(ids._replace(places=places), bias[:, :5, :6]))()
    want = jax.jit(lambda: both(ids, bias))()
    for ours, theirs in zip(got, want, strict=True):
        exact = compute.dtype == jnp.float32
        tolerance = 1e-5 if exact else 0.02 * float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-4 if exact else 0.02, atol=tolerance)


@pytest.mark.parametrize("compute", [CPU, XLA], ids=str)
def test_dropout_drops_the_same_weights_in_both_passes_and_others_in_each_item(compute):
    q, k, v, bias, cotangent, ids, places = example()
    cotangent = jnp.where((ids.queries > 0)[..., None], cotangent, 0.0)  # padding has no gradient
    dropout = Dropout(jax.random.key(3), 0.4)

    def of_values(v):
        segment_ids = ids._replace(places=places)
        return dot_product_attention(q, k, v, bias[:, :5, :6], segment_ids, compute, dropout)

    def value_and_gradient(v):
        value, back = jax.vjp(of_values, v)
        return value, back(cotangent)[0]

    value, gradient = jax.jit(value_and_gradient)(v)
    np.testing.assert_allclose(float((gradient * v).sum()), float((value * cotangent).sum()), rtol=1e-4)
    # Row 1 has two items of one kind: of equal scores and values not the same weights are kept.
    alike = jnp.ones_like(q), jnp.ones_like(k), jnp.ones_like(v), jnp.zeros_like(bias)[:, :5, :6]
    ids = SegmentIds(jnp.ones_like(ids.queries), jnp.ones_like(ids.keys), places)
    out = jax.jit(lambda: dot_product_attention(*alike, ids, compute, dropout))()
    assert float(jnp.abs(out[1, :5] - out[1, 5:10]).max()) > 0.1
