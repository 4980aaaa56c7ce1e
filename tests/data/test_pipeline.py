import json
import threading

import numpy as np
import pytest

from drawjax.data import ArraySource, DataConfig, eval_batches, load, prepared, train_batches
from tests.data.tiny_sets import write_tiny_set


def _source(count=23):
    """Images whose every byte is their number, which is their label too."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 3, 1)
    )
    return ArraySource(np.ascontiguousarray(images), np.arange(count, dtype=np.int32))


def _take(iterator, count):
    return [next(iterator) for _ in range(count)]


def _labels(batches):
    return np.stack([batch["label"] for batch in batches])


def test_batches_are_images_with_their_labels():
    batch = next(train_batches(_source(), batch_size=5, seed=0))
    assert batch["image"].shape == (5, 4, 3, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_every_epoch_has_every_record_once_in_an_order_of_its_own():
    # 23 batches of 5 are five epochs of 23: batches cross the ends of epochs.
    labels = _labels(_take(train_batches(_source(), batch_size=5, seed=0), 23)).reshape(5, 23)
    for epoch in labels:
        assert sorted(epoch) == list(range(23))
    assert len({tuple(epoch) for epoch in labels}) == 5
    assert list(range(23)) not in labels.tolist()


def test_the_seed_alone_sets_the_order():
    first, again, other = (
        _labels(_take(train_batches(_source(), batch_size=5, seed=seed), 9)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", [-1, 2**32 + 5, 2**63])
def test_any_integer_is_a_seed(seed):
    next(train_batches(_source(), batch_size=5, seed=seed))


@pytest.mark.parametrize("steps", [0, 1, 4, 11])
def test_goes_on_from_a_state_bit_for_bit(steps):
    def start():
        return train_batches(_source(), batch_size=5, seed=3)

    iterator = start()
    _take(iterator, steps)
    state = json.loads(json.dumps(iterator.get_state()))  # as a checkpoint keeps it
    expected = _take(iterator, 12)  # more than two epochs

    other = start()
    _take(other, 2)  # a used iterator is set back or forth like a new one
    other.set_state(state)
    for batch, other_batch in zip(expected, _take(other, 12), strict=True):
        assert batch.keys() == other_batch.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other_batch[key])


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_all_processes_are_the_batch_of_one(processes):
    whole = _take(train_batches(_source(), batch_size=6, seed=4), 8)
    shares = [
        _take(
            train_batches(
                _source(), batch_size=6, seed=4, process_index=index, process_count=processes
            ),
            8,
        )
        for index in range(processes)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([part[key] for part in parts]))


@pytest.mark.parametrize("size", [0, 24])
def test_a_batch_that_the_data_cannot_fill_is_named(size):
    with pytest.raises(ValueError, match=rf"1 and the 23 training images, got {size}"):
        train_batches(_source(), batch_size=size, seed=0)


@pytest.mark.parametrize(("index", "count"), [(0, 4), (-1, 2), (2, 2)])
def test_a_share_of_a_batch_that_there_is_not_is_named(index, count):
    with pytest.raises(ValueError, match=f"size 6 must divide over {count} .* got process {index}"):
        train_batches(_source(), batch_size=6, seed=0, process_index=index, process_count=count)


def test_orders_are_uniform():
    # Of 4 records there are 24 orders, each as often as any other.
    labels = _labels(_take(train_batches(_source(4), batch_size=4, seed=0), 4_800))
    _, counts = np.unique(labels, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 50  # 23 degrees of freedom: 49.7 in 1 of 1,000


def test_a_batch_may_be_all_of_the_data():
    batch = next(train_batches(_source(), batch_size=23, seed=0))
    assert sorted(batch["label"]) == list(range(23))


def test_batches_from_disk_equal_those_from_memory(tmp_path, monkeypatch):
    write_tiny_set(tmp_path, "svhn_numbers", train=20, validation=3, test=3)
    config = DataConfig(name="svhn_numbers", dir=str(tmp_path))
    in_memory = load(None, config).train
    monkeypatch.setattr(prepared, "_IN_MEMORY", 0)
    on_disk = load(None, config).train
    assert isinstance(in_memory, ArraySource)
    assert not isinstance(on_disk, ArraySource)

    batches = [train_batches(source, batch_size=6, seed=0) for source in (in_memory, on_disk)]
    for _ in range(8):
        expected, batch = map(next, batches)
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])
    state = batches[1].get_state()
    expected = next(batches[1])
    batches[1].set_state(state)
    np.testing.assert_array_equal(next(batches[1])["image"], expected["image"])


def test_reads_ahead():
    read = threading.Semaphore(0)

    class Slow(ArraySource):
        def __getitems__(self, indices):
            read.release()
            return super().__getitems__(indices)

    source = _source()
    iterator = train_batches(Slow(source.images, source.labels), batch_size=5, seed=0)
    next(iterator)
    for _ in range(4):  # the first batch, and three more nobody has asked for
        assert read.acquire(timeout=30)


@pytest.mark.parametrize(("size", "batches"), [(5, 5), (23, 1), (30, 1), (1, 23)])
def test_evaluation_sees_every_record_once_in_order(size, batches):
    result = list(eval_batches(_source(), batch_size=size))
    assert len(result) == batches
    for batch, weight in result:
        assert len(batch["image"]) == len(batch["label"]) == len(weight) == size
        assert weight.dtype == np.float32
    labels = np.concatenate([batch["label"][weight > 0] for batch, weight in result])
    np.testing.assert_array_equal(labels, np.arange(23))
    filling = np.concatenate([batch["label"][weight == 0] for batch, weight in result])
    np.testing.assert_array_equal(filling, 22)
