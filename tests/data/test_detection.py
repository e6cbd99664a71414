"""Annotations with boxes: every form is read alike, and what is wrong with them is refused or repaired, and counted."""

# The tables below are tables.
# ruff: noqa: E501
from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from forms import (
    BOXES,
    CLASSES,
    PARTS,
    SIZE,
    TRAIN,
    WRITERS,
    image,
    lines,
    write_coco,
    write_devkit,
    write_voc,
    write_yolo,
    xml,
)
from PIL import Image

from rfaconv.cli import main
from rfaconv.data.detection import Converted, RefusedError, convert_detection, load_detection
from rfaconv.data.detection.convert import told
from rfaconv.data.detection.pointers import load_pointer, local_copy, pointer_names
from rfaconv.data.scenes import load_scenes
from rfaconv.errors import UserError


def written(done: Converted, part: str) -> dict[str, list[tuple[str, int, int, int, int]]]:
    """The boxes of a converted part in pixels, by image."""
    root = done.path.parent
    found = {}
    for path in sorted((root / "images" / part).iterdir()):
        with Image.open(path) as file:
            width, height = file.size
        boxes = []
        for line in (root / "labels" / part / f"{path.stem}.txt").read_text().splitlines():
            words = line.split()
            x, y, w, h = (float(word) for word in words[1:])
            corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
            boxes.append((done.classes[int(words[0])], *(round(value) for value in corners)))
            assert all(abs(value - round(value)) < 1e-3 for value in corners)
        found[path.stem] = boxes
    return found


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_boxes(form: str, tmp_path: Path) -> None:
    root = WRITERS[form](tmp_path / "source")
    classes = CLASSES if form == "devkit" else ()
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    done = convert_detection(root, tmp_path / "out", classes=classes)
    assert done.classes == CLASSES
    assert written(done, "train") == PARTS["train"]
    assert written(done, "val") == PARTS["valid"]
    assert done.images == {"train": 4, "val": 2}
    assert done.boxes == {"train": 6, "val": 2}
    assert done.per_class == {"cat": 4, "dog": 4}
    assert done.issues.found == BOXES
    assert not done.issues.items
    record = yaml.safe_load(done.path.read_text())
    assert record == {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}}
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    first = convert_detection(write_coco(tmp_path / "source"), tmp_path / "out")
    second = convert_detection(tmp_path / "out", tmp_path / "again")
    assert written(second, "train") == written(first, "train")
    assert second.path.read_text() == first.path.read_text()


def test_images_are_linked_or_copied(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "source")
    convert_detection(root, tmp_path / "linked")
    convert_detection(root, tmp_path / "copied", copy=True)
    source = (root / "train" / "images" / "a.jpg").stat()
    assert (tmp_path / "linked" / "images" / "train" / "a.jpg").stat().st_ino == source.st_ino
    assert (tmp_path / "copied" / "images" / "train" / "a.jpg").stat().st_ino != source.st_ino


def _coco(root: Path, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    path = root / "train" / "_annotations.coco.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


# (form, what is done to the files, kind, boxes found, boxes kept, images kept, a word of the message)
BROKEN: list[tuple[str, Callable[[Path], object], str, int, int, int, str]] = [
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "1 0.9 0.5 0.4 0.2\n"), "outside the image", 9, 9, 6, "line 2"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "1 1.9 0.5 0.4 0.2\n"), "outside the image", 9, 8, 6, "line 2"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "1 0.5 0.5 0 0.2\n"), "no area", 9, 8, 6, "line 2"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "2 0.5 0.5 0.1 0.2\n"), "unknown class", 9, 8, 6, "class 2"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "1 0.5 0.5 0.1\n"), "malformed box", 9, 8, 6, "4 numbers"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", "1 0.5 nan 0.1 0.1\n"), "malformed box", 9, 8, 6, "'nan'"),
    ("yolo", lambda r: _append(r / "train/labels/b.txt", lines(TRAIN["b"])), "duplicate", 9, 8, 6, "line 2"),
    ("yolo", lambda r: (r / "train/images/b.jpg").unlink(), "missing image", 8, 7, 5, "b.txt"),
    ("yolo", lambda r: (r / "train/images/b.jpg").write_bytes(b"no image"), "missing image", 8, 7, 5, "cannot be read"),
    ("yolo", lambda r: image(r / "train/images/b.png"), "duplicate", 8, 8, 6, "same labels"),
    ("yolo", lambda r: (r / "train/labels/b.txt").write_bytes(b"\xff\xfe\x00"), "unreadable file", 7, 7, 5, "b.txt"),
    ("coco", lambda r: (r / "train/b.jpg").unlink(), "missing image", 8, 7, 5, "'b.jpg' is not there"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].update(bbox=[60, 40, 10, 10])), "outside the image", 8, 8, 6, "annotation 2"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].update(bbox=[6, 4, 0, 10])), "no area", 8, 7, 6, "annotation 2"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].update(category_id=7)), "unknown class", 8, 7, 6, "category 7"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].update(image_id=77)), "missing image", 8, 7, 6, "image 77"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].update(id=0)), "duplicate", 8, 7, 6, "its id 0"),
    ("coco", lambda r: _coco(r, lambda c: c["annotations"][2].pop("bbox")), "malformed box", 8, 7, 6, "no bbox"),
    ("coco", lambda r: _coco(r, lambda c: c["images"].append(dict(c["images"][1]))), "duplicate", 8, 8, 6, "its id 1"),
    ("coco", lambda r: _coco(r, lambda c: c["images"].append({**c["images"][1], "id": 9})), "duplicate", 8, 8, 6, "its file"),
    ("coco", lambda r: _coco(r, lambda c: c["images"][1].update(file_name="../valid/e.jpg")), "missing image", 8, 7, 5, "not there"),
    ("voc", lambda r: (r / "train/b.xml").write_text(xml("b", [("dog", 0, 0, 80, 24)])), "outside the image", 8, 8, 6, "object 1"),
    ("voc", lambda r: (r / "train/b.xml").write_text(xml("b", [("dog", 9, 0, 9, 24)])), "no area", 8, 7, 6, "object 1"),
    ("voc", lambda r: (r / "valid/e.xml").write_text(xml("e", [("cow", 0, 0, 9, 24)])), "unknown class", 8, 7, 6, "'cow'"),
    ("voc", lambda r: (r / "train/b.xml").write_text("<annotation><object>"), "unreadable file", 7, 7, 5, "no XML"),
    ("voc", lambda r: (r / "train/b.xml").unlink(), "missing annotations", 7, 7, 5, "b.jpg"),
    ("voc", lambda r: (r / "train/b.jpg").unlink(), "missing image", 8, 7, 5, "'b.jpg' is not there"),
    ("voc", lambda r: image(r / "train/b.jpg", (32, 48)), "wrong size", 8, 8, 6, "has 32 x 48"),
    ("devkit", lambda r: _append(r / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "b\n"), "duplicate", 8, 8, 6, "twice"),
    ("devkit", lambda r: _append(r / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "g\n"), "missing annotations", 8, 8, 6, "'g'"),
    ("devkit", lambda r: _append(r / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "e\n"), "duplicate", 9, 8, 6, "in train"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "damage", "kind", "found", "kept", "images", "words"),
    BROKEN,
    ids=[f"{i}-{row[0]}-{row[2].replace(' ', '-')}" for i, row in enumerate(BROKEN)],
)
def test_what_is_wrong_is_refused_by_file_or_repaired_and_counted(
    form: str,
    damage: Callable[[Path], object],
    kind: str,
    found: int,
    kept: int,
    images: int,
    words: str,
    tmp_path: Path,
) -> None:
    root = WRITERS[form](tmp_path / "source")
    damage(root)
    classes = CLASSES if form == "devkit" else ()
    with pytest.raises(RefusedError) as refused:
        convert_detection(root, tmp_path / "out", classes=classes)
    assert not (tmp_path / "out").exists()
    assert [issue.kind for issue in refused.value.issues.items] == [kind]
    assert words in str(refused.value)
    assert kind in str(refused.value)
    done = convert_detection(root, tmp_path / "out", classes=classes, lenient=True)
    assert done.issues.counts() == {kind: 1}
    assert done.issues.found == found
    assert sum(done.boxes.values()) == kept == found - sum(done.issues.dropped.values())
    assert sum(done.images.values()) == images
    assert any(kind in line for line in told(done))
    rows = list(csv.DictReader((tmp_path / "out" / "issues.csv").open()))
    assert [row["kind"] for row in rows] == [kind]


# (form, what is done to the files, a word of the message): no repair can mend these
BEYOND_REPAIR: list[tuple[str, Callable[[Path], object], str]] = [
    ("coco", lambda r: (r / "train/_annotations.coco.json").write_text('{"images": [], "images": []}'), "twice"),
    ("coco", lambda r: (r / "train/_annotations.coco.json").write_text("[" * 100_000), "cannot be read as JSON"),
    ("coco", lambda r: (r / "train/_annotations.coco.json").write_text("{}"), "no list 'images'"),
    ("coco", lambda r: _coco(r, lambda c: c["categories"][1].pop("name")), "has no name"),
    ("yolo", lambda r: (r / "train").rename(r / "elsewhere"), "neither there"),
    ("yolo", lambda r: (r / "data.yaml").write_text("train: train/images\nnames: [a, a]\n"), "named twice"),
    ("yolo", lambda r: (r / "data.yaml").write_text("train: train/images\nnc: 3\nnames: [a, b]\n"), "nc: 3"),
    ("yolo", lambda r: (r / "data.yaml").write_text("train: train/images\nnames: {0: a, 2: b}\n"), "not numbered"),
    ("yolo", lambda r: (r / "data.yaml").write_text("a: [b"), "no valid YAML"),
    ("yolo", lambda r: write_voc(r), "several forms"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "damage", "words"), BEYOND_REPAIR, ids=[row[2] for row in BEYOND_REPAIR])
def test_what_no_repair_can_mend_is_one_sentence(
    form: str, damage: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    root = WRITERS[form](tmp_path / "source")
    damage(root)
    with pytest.raises(UserError, match=words):
        convert_detection(root, tmp_path / "out", lenient=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize("head", [ENTITIES, '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">'])
def test_xml_with_a_document_type_is_not_expanded(head: str, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "source")
    (root / "train" / "b.xml").write_text(head + xml("b", TRAIN["b"]).replace("dog", "&c;"))
    with pytest.raises(RefusedError, match="document type"):
        convert_detection(root, tmp_path / "out")


def test_an_xml_named_after_another_image_keeps_its_own(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "source")
    (root / "train" / "b.xml").write_text(xml("a", TRAIN["b"]))  # copied from a.xml, the name left as it was
    assert written(convert_detection(root, tmp_path / "out"), "train") == TRAIN


def test_difficult_objects_and_crowds_are_left_out_and_told(tmp_path: Path) -> None:
    root = write_devkit(tmp_path / "voc")
    path = root / "VOCdevkit" / "VOC2007" / "Annotations" / "c.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    done = convert_detection(root, tmp_path / "out", classes=CLASSES)
    assert (done.issues.found, sum(done.boxes.values()), done.issues.notes) == (8, 7, {"difficult": 1})
    kept = convert_detection(root, tmp_path / "all", classes=CLASSES, keep_difficult=True)
    assert sum(kept.boxes.values()) == 8
    root = write_coco(tmp_path / "coco")
    _coco(root, lambda c: c["annotations"][0].update(iscrowd=1))
    done = convert_detection(root, tmp_path / "out2")
    assert (done.issues.found, sum(done.boxes.values()), done.issues.dropped) == (8, 7, {"crowd": 1})
    assert done.issues.notes == {"crowd": 1, "group": 2}
    assert any("1 crowds (iscrowd 1), left out" in line for line in told(done))


def test_both_years_of_voc_are_trained_on_and_2007_tested(tmp_path: Path) -> None:
    root = write_devkit(tmp_path / "source")
    year = root / "VOCdevkit" / "VOC2012"
    image(year / "JPEGImages" / "2008_1.jpg")
    for name, text in {
        "Annotations/2008_1.xml": xml("2008_1", [("cat", 1, 1, 9, 9)], 1),
        "ImageSets/Main/trainval.txt": "2008_1\n",
        "ImageSets/Main/val.txt": "2008_1\n",
    }.items():
        (year / name).parent.mkdir(parents=True, exist_ok=True)
        (year / name).write_text(text)
    done = convert_detection(root, tmp_path / "out")
    assert done.images == {"train": 5, "val": 2}
    assert len(done.classes) == 20


def test_polygons_become_boxes_and_a_missing_label_file_means_no_box(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "source")
    (root / "train" / "labels" / "b.txt").write_text("1 0 0 0.5 0 0.5 0.5\n")
    (root / "train" / "labels" / "d.txt").unlink()
    assert written(convert_detection(root, tmp_path / "out"), "train") == TRAIN


def test_a_part_is_held_out_where_there_is_none(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "source")
    (root / "data.yaml").write_text("train: train/images\nnames: [cat, dog]\n")
    done = convert_detection(root, tmp_path / "out", val_fraction=0.5)
    assert done.images == {"train": 2, "val": 2}
    again = convert_detection(root, tmp_path / "again", val_fraction=0.5)
    assert written(again, "val") == written(done, "val")
    other = [convert_detection(root, tmp_path / f"{seed}", val_fraction=0.5, seed=seed) for seed in range(1, 6)]
    assert any(written(found, "val") != written(done, "val") for found in other)


def test_test_serves_as_validation_where_there_is_no_other(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "source")
    (root / "valid").rename(root / "test")
    done = convert_detection(root, tmp_path / "out")
    assert done.images == {"train": 4, "val": 2}
    assert done.issues.notes["test as val"] == 1


def test_the_size_is_that_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "source")
    turned = Image.new("RGB", SIZE[::-1])
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(root / "train" / "b.jpg", exif=exif)
    convert_detection(root, tmp_path / "out")  # a wrong size would be refused


def test_two_images_of_one_name_are_both_kept(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "source")
    image(root / "more" / "images" / "a.jpg")
    (root / "more" / "labels").mkdir()
    (root / "more" / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: [train/images, more/images]\nval: valid/images\nnames: [cat, dog]\n")
    found = written(convert_detection(root, tmp_path / "out"), "train")
    assert found["a-2"] == [("cat", 16, 12, 48, 36)]
    assert len(found) == 5


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        convert_detection(root, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_unknown_folder_names_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match=r"no known layout; there are: VOC .* Found here: nothing. The nearest is YOLO"):
        convert_detection(tmp_path / "source", tmp_path / "out")


def test_pointers_say_how_to_get_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RFACONV_DATA", raising=False)
    assert pointer_names() == ["coco", "voc"]
    for name in pointer_names():
        with pytest.raises(UserError, match="unpack all three"):
            local_copy(name)
    (tmp_path / "elsewhere" / "coco").mkdir(parents=True)
    monkeypatch.setenv("RFACONV_DATA", "elsewhere")
    assert local_copy("coco") == Path("elsewhere/coco")
    assert load_pointer("coco").format == "coco"
    with pytest.raises(UserError, match="coco' has annotations in no known layout"):
        load_detection("coco.yaml")
    with pytest.raises(UserError, match=r"VOC 07.12 is not here .* unpack all three"):
        load_detection("VOC.yaml")


def test_the_embedded_scenes_are_written_once_and_exactly(cache: Path) -> None:
    data = load_detection(scenes=(6, 3, 64, 0))
    scenes = load_scenes(train=6, test=3, size=64)
    assert (len(data.train), len(data.val), data.image_size) == (6, 3, (64, 64))
    for part, images in ((scenes.train, data.train), (scenes.test, data.val)):
        for index, found in enumerate(images):
            boxes, labels = part.items(index)
            with Image.open(found.path) as file:
                assert np.array_equal(np.asarray(file), part.images[index])
            assert [box.target for box in found.boxes] == labels.tolist()
            assert np.allclose([box[1:] for box in found.boxes], boxes, atol=1e-5)
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")}
    assert load_detection(scenes=(6, 3, 64, 0)) == data
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.png")} == files
    assert load_detection(scenes=(6, 3, 64, 1)).fingerprint != data.fingerprint


def test_a_data_yaml_is_loaded_and_checked(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "pets")
    data = load_detection(root)
    assert (data.name, data.classes, len(data.train), len(data.val)) == ("pets", CLASSES, 4, 2)
    assert load_detection(root / "data.yaml") == data
    lists = yaml.safe_load(data.write(tmp_path / "run").read_text())
    assert (lists["path"], lists["names"]) == (str(tmp_path / "run"), {0: "cat", 1: "dog"})
    names = [Path(line).name for line in (tmp_path / "run" / lists["train"]).read_text().splitlines()]
    assert names == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    _append(root / "train/labels/b.txt", "1 0.2 0.2 0.1 0.1\n")
    assert load_detection(root).fingerprint != data.fingerprint
    _append(root / "train/labels/b.txt", "1 0.9 0.5 0.4 0.2\n")
    with pytest.raises(UserError, match="line 3"):
        load_detection(root)
    other = load_detection(write_coco(tmp_path / "coco"))  # any layout is read as it is
    assert (other.classes, len(other.train), len(other.val)) == (CLASSES, 4, 2)


@pytest.mark.parametrize(("lenient", "code"), [(False, 2), (True, 0)])
def test_the_command_tells_file_by_file(
    lenient: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_yolo(tmp_path / "source")
    _append(root / "train/labels/b.txt", "1 0.9 0.5 0.4 0.2\n")
    arguments = ["data", "convert", str(root), str(tmp_path / "out"), "--report", str(tmp_path / "report.csv")]
    monkeypatch.setattr(sys, "argv", ["rfaconv", *arguments, *(["--lenient"] if lenient else [])])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert (stopped.value.code or 0) == code
    assert [row["file"] for row in csv.DictReader((tmp_path / "report.csv").open())] == ["train/labels/b.txt"]
    if lenient:
        assert "9 found, 9 kept, 0 left out" in said.out
        assert "1 x outside the image: cut at the edge" in said.out
    else:
        assert "outside the image: 'train/labels/b.txt', line 2: the box" in said.out
        assert len(said.err.strip().splitlines()) == 1
