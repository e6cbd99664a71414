"""Segmentation data: what is read, from which layouts, and what is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rfaconv.data import EpochSampler
from rfaconv.data.segmentation import IGNORE, MaskedImages, build_mask_transform, load_segmentation, voc_palette
from rfaconv.data.segmentation.cityscapes import CITYSCAPES_CLASSES, TRAIN_IDS
from rfaconv.errors import UserError

SIZE = (9, 7)  # width, height


def ids(seed: int, classes: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (size[1], size[0])).astype(np.uint8)


def save_mask(path: Path, values: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("L")
        image.putpalette([channel for colour in voc_palette(256) for channel in colour])
    image.save(path)


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """images/ and masks/ of ten pairs with the ids 0, 1, 2."""
    root = tmp_path / "set"
    for i in range(10):
        save_image(root / "images" / f"{i}.png", i)
        save_mask(root / "masks" / f"{i}.png", ids(i))
    return root


def all_of(source: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {source.name(i): (source.image(i), source.mask(i)) for i in range(len(source))}


def test_the_embedded_scenes() -> None:
    data = load_segmentation()
    assert (len(data.train), len(data.val), len(data.classes), data.image_size) == (1600, 400, 11, (96, 96))
    assert data.classes[0] == "background"
    assert data.train.image(0).shape == (3, 96, 96)
    assert data.train.mask(0).shape == (96, 96)
    assert data.fingerprint == "acd84b5949c63f80"


def test_pairs_are_split_by_the_seed_alone(pairs: Path) -> None:
    data = load_segmentation(pairs)
    assert data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.val)) == (8, 2)
    found = {**all_of(data.train), **all_of(data.val)}
    for i in range(10):
        assert torch.equal(found[f"images/{i}.png"][1], torch.from_numpy(ids(i)))
    assert load_segmentation(pairs).fingerprint == data.fingerprint
    assert {load_segmentation(pairs, seed=seed).val.name(0) for seed in range(8)} != {data.val.name(0)}


@pytest.mark.parametrize("style", ["inside", "outside"])
def test_train_and_val_folders(tmp_path: Path, style: str) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for i in range(count):
            for kind in ("images", "masks"):
                folder = f"{kind}/{part}" if style == "inside" else f"{part}/{kind}"
                path = tmp_path / folder / "deep" / f"{i}.png"
                save_image(path, i) if kind == "images" else save_mask(path, ids(i))
    data = load_segmentation(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 2)


def test_palettes_greys_sixteen_bits_and_grey_colours_are_ids(pairs: Path) -> None:
    wanted = ids(0)
    for name, image in {
        "P": None,
        "I;16": Image.fromarray(wanted.astype(np.uint16)),
        "RGB": Image.fromarray(wanted).convert("RGB"),
        "LA": Image.fromarray(wanted).convert("LA"),
        "RGBA": Image.fromarray(wanted).convert("RGBA"),
    }.items():
        if image is None:
            save_mask(pairs / "masks" / "0.png", wanted, palette=True)
        else:
            image.save(pairs / "masks" / "0.png")
        data = load_segmentation(pairs)
        assert torch.equal({**all_of(data.train), **all_of(data.val)}["images/0.png"][1], torch.from_numpy(wanted)), (
            name
        )


def test_colour_masks_with_a_palette(pairs: Path) -> None:
    (pairs / "classes.txt").write_text("sky 0 0 255\nold tree 0 128 0\nroad 90 90 90\n")
    colours = np.array([(0, 0, 255), (0, 128, 0), (90, 90, 90)], np.uint8)
    for i in range(10):
        Image.fromarray(colours[ids(i)]).save(pairs / "masks" / f"{i}.png")
    data = load_segmentation(pairs)
    assert data.classes == ("sky", "old tree", "road")
    assert data.palette == ((0, 0, 255), (0, 128, 0), (90, 90, 90))
    found = {**all_of(data.train), **all_of(data.val)}
    assert torch.equal(found["images/4.png"][1], torch.from_numpy(ids(4)))


def voc(root: Path, train: list[str], val: list[str]) -> Path:
    for i, name in enumerate([*train, *val]):
        path = root / "JPEGImages" / f"{name}.jpg"
        save_image(path, i)
        mask = ids(i, 21)
        mask[0] = IGNORE
        save_mask(root / "SegmentationClass" / f"{name}.png", mask, palette=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(train) + "\n")
    (lists / "val.txt").write_text("\n".join(val) + "\n")
    return root


def test_voc(tmp_path: Path) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2012", ["2007_000032", "2007_000039"], ["2007_000033"])
    data = load_segmentation(tmp_path)
    assert len(data.classes) == 21
    assert data.classes[15] == "person"
    assert (len(data.train), len(data.val)) == (2, 1)
    assert data.val.name(0) == "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg"
    assert (data.val.mask(0)[0] == IGNORE).all()
    assert data.palette[15] == (192, 128, 128)


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
def test_voc_with_the_trainaug_list(tmp_path: Path, line: str) -> None:
    voc(tmp_path, ["a"], ["v"])
    for name in ("a", "b", "c"):
        save_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        save_mask(tmp_path / "SegmentationClassAug" / f"{name}.png", ids(5, 21))
    lines = "\n".join(line.format(name, name) for name in ("a", "b", "c"))
    (tmp_path / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(lines)
    data = load_segmentation(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 1)
    assert torch.equal(data.train.mask(0), torch.from_numpy(ids(5, 21)))


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path: Path, kind: str) -> None:
    for part in ("train", "val"):
        for i in range(2):
            save_image(tmp_path / "leftImg8bit" / part / "ulm" / f"ulm_{i}_leftImg8bit.png", i)
            for extra in ("color", "instanceIds"):
                save_mask(tmp_path / "gtFine" / part / "ulm" / f"ulm_{i}_gtFine_{extra}.png", ids(9, 200))
            save_mask(tmp_path / "gtFine" / part / "ulm" / f"ulm_{i}_gtFine_{kind}.png", ids(i, 19))
    data = load_segmentation(tmp_path)
    assert data.classes == CITYSCAPES_CLASSES
    wanted = ids(0, 19) if kind == "labelTrainIds" else np.array(TRAIN_IDS, np.uint8)[ids(0, 19)]
    assert torch.equal(data.val.mask(0), torch.from_numpy(wanted))
    assert (TRAIN_IDS[7], TRAIN_IDS[33], TRAIN_IDS[0], TRAIN_IDS[9]) == (0, 18, 255, 255)


def coco_file(path: Path, annotations: list[dict[str, Any]], **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [{"id": 1, "file_name": "one.png", "width": 12, "height": 10}],
        "annotations": annotations,
    }
    path.write_text(json.dumps({**record, **changes}))


def square(left: int, top: int, side: int, category: int, **more: Any) -> dict[str, Any]:
    right, bottom = left + side, top + side
    outline = [left, top, right, top, right, bottom, left, bottom]
    return {"image_id": 1, "category_id": category, "segmentation": [outline], "area": side * side, **more}


@pytest.mark.parametrize("style", ["coco", "roboflow"])
def test_coco(tmp_path: Path, style: str) -> None:
    runs = [0, 2, 12 * 10 - 2]  # two pixels of the first column
    for part in ("train", "val"):
        folder = {"coco": f"{part}2017", "roboflow": {"train": "train", "val": "valid"}[part]}[style]
        name = f"annotations/instances_{part}2017.json" if style == "coco" else f"{folder}/_annotations.coco.json"
        save_image(tmp_path / folder / "one.png", size=(12, 10))
        crowd = {"image_id": 1, "category_id": 3, "segmentation": {"counts": runs, "size": [10, 12]}, "iscrowd": 1}
        # The small cat lies over the large dog, whichever comes first in the file.
        coco_file(tmp_path / name, [square(4, 4, 2, 3), square(2, 2, 6, 7), crowd])
    data = load_segmentation(tmp_path)
    assert data.classes == ("background", "cat", "dog")
    mask = data.train.mask(0)
    assert mask.shape == (10, 12)
    assert mask[5, 5] == 1
    assert mask[3, 3] == 2
    assert mask[9, 11] == 0
    assert mask[:2, 0].tolist() == [IGNORE, IGNORE]
    assert [(mask == target).sum() for target in (1, 2)] == [4, 36 - 4]


def broken(root: Path, what: str) -> str:
    """Break one thing under `root`; returns what the message must say."""
    images, masks = root / "images", root / "masks"
    match what:
        case "another size":
            save_mask(masks / "3.png", ids(3, 3, (5, 7)))
            return r"'images/3.png' \(its mask 'masks/3.png' has 5 x 7 pixels, the image 9 x 7\)"
        case "an id beyond":
            (root / "classes.txt").write_text("a\nb\n")
            return r"its mask 'masks/\d.png': the id 2 at row \d, column \d, and there are 2 classes"
        case "colours without a palette":
            Image.fromarray(np.random.default_rng(0).integers(0, 9, (7, 9, 3)).astype(np.uint8)).save(masks / "3.png")
            return "a colour mask without a palette: add classes.txt"
        case "an unknown colour":
            (root / "classes.txt").write_text("a 1 2 3\nb 4 5 6\nc 7 8 9\n")
            Image.fromarray(np.full((7, 9, 3), 9, np.uint8)).save(masks / "3.png")
            return r"the colour \(9, 9, 9\) at row 0, column 0 is no class's"
        case "a mask without an image":
            (images / "3.png").unlink()
            return "No image for the mask 'masks/3.png'"
        case "an image without a mask":
            (masks / "3.png").unlink()
            return "No mask for the image 'images/3.png'"
        case "two masks":
            shutil.copy(masks / "3.png", masks / "3.bmp")
            return r"Image 'images/3.png' .* has two masks, 'masks/3.bmp', 'masks/3.png'"
        case "two images":
            shutil.copy(images / "3.png", images / "3_img.png")
            return "would share a mask"
        case "a truncated mask":
            (masks / "3.png").write_bytes((masks / "3.png").read_bytes()[:60])
            return r"1 of 10 images .* 'images/3.png' \(its mask 'masks/3.png': "
        case "a truncated image":
            (images / "3.png").write_bytes((images / "3.png").read_bytes()[:60])
            return r"1 of 10 images .* 'images/3.png' \("
        case "a JPEG mask":
            (masks / "3.png").unlink()
            Image.fromarray(ids(3)).save(masks / "3.jpg")
            return "a mask in JPEG, whose ids are not exact"
        case "a float mask":
            (masks / "3.png").unlink()
            Image.fromarray(ids(3).astype(np.float32)).save(masks / "3.tiff")
            return "a mask of mode F: ids are expected"
        case "an id beyond a byte":
            Image.fromarray(np.full((7, 9), 700, np.uint16)).save(masks / "3.png")
            return "the id 700, and ids are 0 to 255"
        case "one pixel of another id":
            for path in masks.iterdir():
                save_mask(path, np.where(ids(0) > 0, 255, 0).astype(np.uint8))
            (masks / "3.png").unlink()
            save_mask(masks / "3.png", np.full((7, 9), 200, np.uint8))
            return r"hold 2 ids \(0, 200\), of which 200 would make 201 classes; it is in 'masks/3.png'"
        case "nothing but 0":
            for path in masks.iterdir():
                save_mask(path, np.zeros((7, 9), np.uint8))
            return "hold no class but 0"
        case "nothing but 255":
            for path in masks.iterdir():
                save_mask(path, np.full((7, 9), 255, np.uint8))
            return "hold no class but 255, which counts for nothing"
        case "a fifo for an image":
            (images / "3.png").unlink()
            os.mkfifo(images / "3.png")
            return r"'images/3.png' \(not a regular file\)"
        case "a fifo for a mask":
            (masks / "3.png").unlink()
            os.mkfifo(masks / "3.png")
            return r"its mask 'masks/3.png' is not a regular file"
        case "one class":
            (root / "classes.txt").write_text("a\n")
            return "fewer than two classes"
        case "some colours":
            (root / "classes.txt").write_text("a 1 2 3\nb\n")
            return "gives some classes a colour and some none"
        case "a class twice":
            (root / "classes.txt").write_text("a\na\nb\n")
            return "has the class 'a' twice"
        case "no masks":
            shutil.rmtree(masks)
            return "in no known layout"
        case "empty masks":
            shutil.rmtree(masks)
            masks.mkdir()
            return "has 10 images and 0 masks"
    raise AssertionError(what)


WRONG = [
    "another size", "an id beyond", "colours without a palette", "an unknown colour", "a mask without an image",
    "an image without a mask", "two masks", "two images", "a truncated mask", "a truncated image", "a JPEG mask",
    "a float mask", "an id beyond a byte", "one pixel of another id", "nothing but 0",
    "nothing but 255", "a fifo for an image", "a fifo for a mask", "one class", "some colours", "a class twice",
    "no masks", "empty masks",
]  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_in_one_sentence(pairs: Path, what: str) -> None:
    words = broken(pairs, what)
    with pytest.raises(UserError, match=words) as caught:
        load_segmentation(pairs)
    assert "\n" not in str(caught.value)


def test_broken_pairs_can_be_left_out(pairs: Path) -> None:
    broken(pairs, "another size")
    data = load_segmentation(pairs, skip_broken=True)
    assert data.skipped == ("images/3.png",)
    assert len(data.train) + len(data.val) == 9


def test_files_are_checked_once(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    load_segmentation(pairs, progress=lambda done, total: calls.append((done, total)))
    assert (10, 10) in calls
    calls.clear()
    load_segmentation(pairs, progress=lambda done, total: calls.append((done, total)))
    assert not calls
    broken(pairs, "another size")
    with pytest.raises(UserError):
        load_segmentation(pairs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a[0].pop("segmentation"), "annotation 0: it has no bbox"),
        (lambda a: a[0].update(category_id=99), "annotation 0: its category 99 is not listed"),
        (lambda a: a[0].update(segmentation=[[1, 2, 3, 4]]), "a polygon needs three points or more"),
        (lambda a: a[0].update(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "annotation 0: 'nan' is no coordinate"),
        (lambda a: a[0].update(image_id=5), "annotation 0: it is for image 5, which is not listed"),
        (
            lambda a: a[0].update(segmentation={"counts": "abc"}),
            "annotation 0: its compressed run lengths are cut short",
        ),
        (lambda a: a[0].update(segmentation={"counts": [5, 115, 1]}), "give 121 pixels, and 12 x 10 has 120"),
        (lambda a: a[0].update(segmentation={"counts": [130, -10]}), "a run length is no number of pixels"),
        (lambda a: a[0].update(segmentation={"counts": [10**30]}), "a run length is no number of pixels"),
        (
            lambda a: a[0].update(segmentation={"counts": [120], "size": [12, 10]}),
            "are for 10 x 12 pixels, its image has",
        ),
        (lambda a: a[0].update(segmentation={"counts": [1], "size": [10**9, 10**9]}), "its image has 12 x 10"),
        (lambda a: a.append({**a[0], "id": 1, "segmentation": [], "bbox": [1, 1, 2, 2]}), "is a box alone"),
        (lambda a: a[0].update(segmentation=[[float("inf")] * 6]), "'inf' is no coordinate"),
        (lambda a: a[0].update(segmentation=[[10**400] * 6]), "is no coordinate"),
        (lambda a: a[0].update(segmentation=[[50, 50, 60, 50, 60, 60]]), "wholly outside of 12 x 10"),
    ],
)
def test_wrong_annotations_are_named(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    annotations = [square(1, 1, 3, 3)]
    change(annotations)
    for part, entries in (("train", annotations), ("val", [square(1, 1, 3, 3)])):
        save_image(tmp_path / part / "one.png", size=(12, 10))
        coco_file(tmp_path / "annotations" / f"instances_{part}.json", entries)
    with pytest.raises(UserError, match=words) as caught:
        load_segmentation(tmp_path)
    assert "\n" not in str(caught.value)


def test_coco_files_and_images_that_do_not_fit(tmp_path: Path) -> None:
    for part in ("train", "val"):
        save_image(tmp_path / part / "one.png", size=(12, 9))
        coco_file(tmp_path / "annotations" / f"instances_{part}.json", [square(1, 1, 3, 3)])
    with pytest.raises(UserError, match=r"it is for 12 x 10 pixels and the image has 12 x 9"):
        load_segmentation(tmp_path)
    (tmp_path / "train" / "one.png").unlink()
    with pytest.raises(UserError, match=r"the image 'one.png' is not there"):
        load_segmentation(tmp_path)
    (tmp_path / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_segmentation(tmp_path)
    (tmp_path / "annotations" / "instances_val.json").unlink()
    save_image(tmp_path / "train" / "one.png", size=(12, 10))
    with pytest.raises(UserError, match="has a single image"):
        load_segmentation(tmp_path)


Record = dict[str, Any]

# (what is done to a COCO file of two images, a word of the message)
WRONG_FILES: list[tuple[Callable[[Record], Any], str]] = [
    (lambda r: r["images"].append({**r["images"][0], "file_name": "two.png"}), "its id 1 is that of 'one.png' and of"),
    (lambda r: r["images"].append({**r["images"][0], "id": 2}), "its file 'one.png' is there twice"),
    (lambda r: r["images"][0].update(file_name="../../../outside.png"), "'../../../outside.png' is not there"),
    (lambda r: r["images"][0].update(width=float("inf")), "'inf' is no coordinate"),
    (lambda r: r["images"][0].update(height=-10), "it is of 12 x -10 pixels"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WRONG_FILES)
def test_images_that_a_coco_file_gets_wrong_are_refused(
    tmp_path: Path, change: Callable[[Record], Any], words: str
) -> None:
    root = tmp_path / "a" / "b" / "set"
    save_image(tmp_path / "outside.png", size=(12, 10))
    for part in ("train", "val"):
        save_image(root / part / "one.png", size=(12, 10))
        save_image(root / part / "two.png", size=(12, 10))
        coco_file(root / "annotations" / f"instances_{part}.json", [square(1, 1, 3, 3)])
    path = root / "annotations" / "instances_train.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=words) as caught:
        load_segmentation(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' * 5000])
def test_deep_nesting_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_segmentation(tmp_path)


@pytest.mark.parametrize("preset", ["scale", "crop", "none"])
@pytest.mark.parametrize("size", [32, 100])
def test_image_and_mask_stay_together(preset: str, size: int) -> None:
    """An image that says its own class in every pixel: wherever the mask counts, the two agree afterwards."""
    values = np.kron(ids(0, 3, (6, 6)), np.ones((12, 12), np.uint8))

    class Source:
        def __len__(self) -> int:
            return 1

        def image(self, i: int) -> torch.Tensor:
            return torch.from_numpy(100 * values).expand(3, -1, -1)

        def mask(self, i: int) -> torch.Tensor:
            return torch.from_numpy(values)

        def name(self, i: int) -> str:
            return "it"

    images = MaskedImages(Source(), build_mask_transform(preset, image_size=size), seed=1)
    moved = 0
    for epoch in range(20):
        image, mask = images[epoch, 0]
        assert image.shape == (3, size, size)
        assert mask.shape == (size, size)
        counts = mask != IGNORE
        said = ((image[0] * 0.229 + 0.485) * 255 / 100).round().long()
        # Scaling mixes neighbours along the edges of the classes; nothing else changes a value.
        assert (said == mask)[counts].float().mean() >= (0.7 if preset == "scale" else 1)
        assert counts.all() if size < 72 and preset != "scale" else counts.any()
        moved += not torch.equal(mask, images[0, 0][1])
    assert moved > 3


def test_batches_are_the_same_with_workers_and_after_other_random_numbers() -> None:
    data = load_segmentation()
    images = MaskedImages(data.train, build_mask_transform("scale", image_size=48), seed=3)
    torch.manual_seed(1)
    first = [images[key] for key, _ in zip(EpochSampler(len(images), 3), range(4), strict=False)]
    torch.manual_seed(2)
    second = [images[key] for key, _ in zip(EpochSampler(len(images), 3), range(4), strict=False)]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
