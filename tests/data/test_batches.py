"""Order, augmentation and transforms: pure functions of (seed, epoch, index)."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from rfaconv import UserError
from rfaconv.data import EpochSampler, LabelledImages, build_transform, load_classification

PRESETS = ("imagenet", "small", "none", "resize", "resize256")


@pytest.fixture
def images(two_classes) -> LabelledImages:
    source = load_classification(two_classes).train
    return LabelledImages(source, build_transform("imagenet", image_size=8, channels=3), seed=3)


def epoch_batches(images: LabelledImages, epoch: int, workers: int) -> list[torch.Tensor]:
    sampler = EpochSampler(len(images), seed=5)
    sampler.set_epoch(epoch)
    return [batch for batch, _ in DataLoader(images, batch_size=4, sampler=sampler, num_workers=workers)]


def test_workers_change_nothing(images):
    alone, with_workers = epoch_batches(images, 1, 0), epoch_batches(images, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(alone, with_workers, strict=True))
    assert not torch.equal(alone[0], epoch_batches(images, 2, 0)[0])


def test_augmentation_depends_on_seed_epoch_and_index(images):
    assert torch.equal(images[1, 4][0], images[1, 4][0])
    other_seed = LabelledImages(images.source, images.transform, seed=4)
    assert not torch.equal(images[1, 4][0], images[2, 4][0])
    assert not torch.equal(images[1, 4][0], other_seed[1, 4][0])


def test_callers_generator_is_left_alone(images):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    before = images[0, 1][0]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(images[0, 1][0], before)


def test_plain_index_is_for_evaluation(two_classes):
    data = load_classification(two_classes)
    images = LabelledImages(data.val, build_transform("resize", image_size=8, channels=3))
    assert len(images) == len(data.val)
    image, target = images[0]
    assert image.shape == (3, 8, 8)
    assert type(target) is int
    assert target == data.val.targets[0]
    assert torch.equal(image, images[7, 0][0])


def test_sampler_is_a_permutation_per_epoch():
    sampler = EpochSampler(10, seed=1)
    first = list(sampler)
    assert first == list(sampler)
    assert {epoch for epoch, _ in first} == {0}
    assert sorted(index for _, index in first) == list(range(10))
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [i for _, i in second] != [i for _, i in first]
    assert [i for _, i in EpochSampler(10, seed=2)] != [i for _, i in first]


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 2), (10, 3), (2, 5), (0, 2)])
def test_ranks_share_the_images(size, world_size):
    whole = [index for _, index in EpochSampler(size, seed=1)]
    ranks = [EpochSampler(size, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    drawn = [[index for _, index in rank] for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(d) for d in drawn] == [-(-size // world_size)] * world_size
    assert set().union(*map(set, drawn)) == set(range(size))
    # Dealt out in turn: together, the ranks' first batches are the first batch of a single process.
    dealt = [drawn[i % world_size][i // world_size] for i in range(size)]
    assert dealt == whole


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 3), (2, 5), (0, 1)])
def test_evaluation_takes_each_image_once_and_in_order(size, world_size):
    ranks = [EpochSampler(size, rank=rank, world_size=world_size, shuffle=False) for rank in range(world_size)]
    drawn = [[index for _, index in rank] for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(d) for d in drawn]
    assert drawn == [list(range(size))[rank::world_size] for rank in range(world_size)]


@pytest.mark.parametrize("arguments", [(-1,), (1, 0, 1, 1), (1, 0, -1, 1), (1, 0, 0, 0)])
def test_sampler_refuses(arguments):
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(*arguments)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("channels", "shape"), [(1, (28, 28)), (3, (20, 31)), (3, (64, 40))])
def test_transform_gives_its_size(preset, channels, shape):
    transform = build_transform(preset, image_size=28, channels=channels)
    image = torch.randint(0, 256, (channels, *shape), dtype=torch.uint8)
    before = image.clone()
    out = transform(image)
    assert out.shape == (channels, 28, 28)
    assert out.dtype == torch.float32
    assert torch.equal(image, before)
    pickle.loads(pickle.dumps(transform))


def test_normalisation():
    grey = build_transform("resize", image_size=4, channels=1)
    assert grey(torch.full((1, 4, 4), 255, dtype=torch.uint8)).unique().tolist() == [1.0]
    assert grey(torch.zeros(1, 4, 4, dtype=torch.uint8)).unique().tolist() == [-1.0]
    colour = build_transform("resize", image_size=4, channels=3)(torch.zeros(3, 4, 4, dtype=torch.uint8))
    expected = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    torch.testing.assert_close(colour[:, 0, 0], torch.tensor(expected))


def test_presets_do_what_their_names_say():
    ramp = torch.arange(224, dtype=torch.uint8).expand(1, 224, 224).contiguous()
    whole = build_transform("resize", image_size=224, channels=1)(ramp)
    assert (whole[0, 0, 0].item(), whole[0, 0, -1].item()) == (-1.0, pytest.approx(223 / 127.5 - 1))
    part = build_transform("resize256", image_size=224, channels=1)(ramp)
    assert part[0, 0, 0] == pytest.approx(14 / 127.5 - 1, abs=0.02)  # (256 - 224) / 2 px of 256 are cut off
    assert torch.equal(build_transform("none", image_size=224, channels=1)(ramp), whole)


def test_small_shifts_by_up_to_an_eighth_and_flips():
    dot = torch.zeros(1, 32, 32, dtype=torch.uint8)
    dot[0, 16, 10] = 255
    transform = build_transform("small", image_size=32, channels=1)
    torch.manual_seed(0)
    places = {tuple((transform(dot) == 1).nonzero()[0].tolist()) for _ in range(600)}
    rows, columns = {place[1] for place in places}, {place[2] for place in places}
    assert rows == set(range(12, 21))
    assert columns == set(range(6, 15)) | set(range(17, 26))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("imagnet", 8, 3), "Did you mean 'imagenet'"),
        (("none", 0, 3), "image_size"),
        (("none", 8, 4), "channels"),
    ],
)
def test_transform_refuses(arguments, words):
    preset, size, channels = arguments
    with pytest.raises(UserError, match=words):
        build_transform(preset, image_size=size, channels=channels)
