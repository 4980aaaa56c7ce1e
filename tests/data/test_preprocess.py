import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import data
from drawjax.data import ArraySource, ClutterDataConfig, GenerationDataConfig, ImageSet

CONFIGS = {
    "static": GenerationDataConfig(),
    "dynamic": GenerationDataConfig(binarization="dynamic"),
    "crop": GenerationDataConfig(binarization="none", crop=5),
    "pairs": GenerationDataConfig(binarization="dynamic", pair_size=16),
    "clutter": ClutterDataConfig(clutter_size=20, pieces=3),
}


def _images(count=12, side=9):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, side, side, 1), np.uint8)


def _set(images):
    source = ArraySource(images, np.zeros(len(images), np.int32))
    return ImageSet("mine", source, source, source, images.shape[1:], ())


def _seen(config, indices, training=False):
    images = _images()
    source = ArraySource(images, np.zeros(len(images), np.int32))
    keys = data.image_keys(jax.random.key(3), np.asarray(indices))
    pool = data.pool(config, source)
    function = jax.jit(lambda *args: data.preprocess(config, *args, pool, training=training))
    return np.asarray(function(images[indices], keys))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "training"), [*((name, False) for name in CONFIGS), ("crop", True)]
)
def test_an_image_is_the_same_in_whatever_batch(name, training):
    whole = _seen(CONFIGS[name], np.arange(12), training)
    for batch in ([0, 1, 2, 3, 4], [11, 3]):
        np.testing.assert_array_equal(_seen(CONFIGS[name], batch, training), whole[batch])
    assert whole.shape[1:] == data.seen_shape(CONFIGS[name], _set(_images()))
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic", "pairs", "clutter"])
def test_images_differ_from_each_other_by_their_keys(name):
    config, same = CONFIGS[name], jnp.repeat(_images(1), 6, axis=0)
    pool = {"image": jnp.asarray(_images()), "label": jnp.zeros(12, jnp.int32)}
    keys = data.image_keys(jax.random.key(0), np.arange(6))
    seen = np.asarray(data.preprocess(config, same, keys, pool, training=False))
    assert len({image.tobytes() for image in seen}) == 6


@pytest.mark.slow
def test_crops_are_random_in_training_alone():
    images = jnp.repeat(_images(1), 40, axis=0)
    keys = data.image_keys(jax.random.key(0), np.arange(40))
    config = CONFIGS["crop"]
    none = data.pool(config, _set(_images()).train)
    training = np.asarray(data.preprocess(config, images, keys, none, training=True))
    assert len({image.tobytes() for image in training}) > 10
    middle = np.asarray(data.preprocess(config, images, keys, none, training=False))
    np.testing.assert_allclose(middle, images[:, 2:7, 2:7] / 255, rtol=1e-6)


def test_pieces_of_clutter_lie_inside_of_the_digits_they_are_cut_from():
    small = _set(_images()[:, :7])
    with pytest.raises(ValueError, match=r"pieces of clutter are 8x8 .*; give data\.pieces 0"):
        data.seen_shape(ClutterDataConfig(clutter_size=20), small)
    assert data.seen_shape(ClutterDataConfig(clutter_size=20, pieces=0), small)[:2] == (20, 20)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GenerationDataConfig(crop=10), "data.crop must be at most 9, .*, got 10"),
        (GenerationDataConfig(pair_size=8), "data.pair_size must be at least 9, .*, got 8"),
        (ClutterDataConfig(clutter_size=8), "data.clutter_size must be at least 9, .*, got 8"),
    ],
)
def test_what_does_not_fit_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        data.seen_shape(config, _set(_images()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationDataConfig(crop=4, pair_size=9), "do not go together"),
        (lambda: GenerationDataConfig(crop=0), "data.crop must be at least 1, got 0"),
        (lambda: ClutterDataConfig(pieces=128), r"data.pieces must lie in 0..127, got 128"),
        (lambda: ClutterDataConfig(pieces=-1), r"data.pieces must lie in 0..127, got -1"),
    ],
)
def test_settings_without_sense_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_partners_need_a_set_in_memory():
    class Disk:
        labels = np.zeros(3, np.int32)

        def digest(self):
            return "disk"

        def __len__(self):
            return 3

        def __getitems__(self, indices):
            raise AssertionError("read")

    with pytest.raises(ValueError, match="this set is too large"):
        data.pool(CONFIGS["pairs"], Disk())
    assert len(data.pool(CONFIGS["static"], Disk())["image"]) == 0
