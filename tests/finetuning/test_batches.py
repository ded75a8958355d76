import numpy as np

from rakuten.finetuning.batches import plan_batches

LENGTHS = np.random.default_rng(0).integers(5, 100, 250)


def test_every_epoch_has_every_row_once_in_another_order() -> None:
    batches, per_epoch = plan_batches(LENGTHS, 32, 3, seed=1)
    assert per_epoch == 8 and len(batches) == 24
    epochs = [np.concatenate(batches[start : start + 8]) for start in (0, 8, 16)]
    assert all(sorted(epoch) == list(range(250)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_rows_of_a_batch_have_similar_lengths() -> None:
    batches, _ = plan_batches(LENGTHS, 10, 1, seed=1)
    spread = np.mean([np.ptp(LENGTHS[rows]) for rows in batches])
    assert spread < 8 < np.ptp(LENGTHS)


def test_short_batches_do_not_come_first_or_last_always() -> None:
    batches, per_epoch = plan_batches(LENGTHS, 10, 20, seed=1)
    means = [LENGTHS[batches[start]].mean() for start in range(0, 20 * per_epoch, per_epoch)]
    assert min(means) < 40 and max(means) > 65


def test_the_same_seed_gives_the_same_batches() -> None:
    first, second, other = (plan_batches(LENGTHS, 32, 2, seed).rows for seed in (1, 1, 2))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
