"""Damaged annotations by the thousand: a clear sentence or a clean read, never a traceback or a box gone in silence."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tools
from forms import image, write_coco, write_voc, write_yolo

from rfaconv.data.detection import Converted, convert_detection
from rfaconv.data.segmentation import load_segmentation
from rfaconv.errors import UserError

COUNT = 1000
"""Of each form that Ultralytics' users have most."""
FEWER = 300
"""Of each other one."""
WORDS = [
    b"nan", b"-1", b"1e999", b"inf", b"0", b"", b"99999999999999999999999", b"\x00", b"\xff\xfe", b"<object>",
    b"</object>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&lt;", b"&b;", b"]]>", b"null", b"true", b'"x"', b"{}", b"[]",
    b"[[[[", b",", b"\n", b"0 0.5 0.5 0.2 0.2\n", b"\xe2\x80\xa8", b"cat", b"1_0", b"0x10", b"\\ud800",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three damages: bytes turned, cut or doubled, numbers and words exchanged."""
    for _ in range(rng.randint(1, 3)):
        at, until = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        until = min(until, at + rng.choice((1, 4, 20, 200)))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[until:]
        elif kind == 2:
            data = data[:until] + data[at:]
        elif kind == 3:
            data = data[:at] + rng.choice(WORDS) + data[at:]
        elif kind == 4:
            data = data[:at]
        else:
            places = list(re.finditer(rb"-?\d+(\.\d+)?", data)) if kind == 5 else list(re.finditer(rb"[a-z]+", data))
            if places:
                found = rng.choice(places)
                data = data[: found.start()] + rng.choice(WORDS) + data[found.end() :]
        data = data or b" "
    return data


def objects(data: bytes) -> int:
    """Counted in another way than by the reader: opening tags outside of comments and CDATA."""
    text = re.sub(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>", b"", data, flags=re.DOTALL)
    return len(re.findall(rb"<object[\s/>]", text))


def annotations(data: bytes) -> int:
    def count(pairs: list[tuple[str, object]]) -> object:
        return {"n": sum(len(v) for k, v in pairs if k == "annotations" and isinstance(v, list))} | dict(pairs)

    return int(json.loads(data.decode("utf-8-sig"), object_pairs_hook=count)["n"])


def lines(data: bytes) -> int:
    return sum(1 for line in data.decode("utf-8-sig").splitlines() if line.strip())


def attempt(root: Path, out: Path, sentences: list[str], lenient: bool = False) -> Converted | None:
    try:
        return convert_detection(root, out, lenient=lenient)
    except UserError as error:
        sentences.append(str(error))
        return None


Write = Callable[[Path], Path]
Count = Callable[[bytes], int]


def shapes(data: bytes) -> int:
    """What lies in CVAT's images, whatever its name."""
    text = re.sub(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>", b"", data, flags=re.DOTALL)
    inner = re.findall(rb"<image\b[^>]*[^/]>(.*?)</image\s*>", text, flags=re.DOTALL)
    return sum(len(re.findall(rb"<[A-Za-z_:]", part)) for part in inner)


def results(data: bytes) -> int:
    """Objects of Label Studio's tasks; those of a task without a list of results are refused whole."""
    found = 0
    for task in json.loads(data.decode("utf-8-sig")):
        entries = [task] if isinstance(task, dict) and isinstance(task.get("data"), dict) else []
        kept = [entry for task in entries if isinstance(task.get("annotations"), list) for entry in task["annotations"]]
        kept = [entry for entry in kept if not (isinstance(entry, dict) and entry.get("was_cancelled") is True)]
        if all(isinstance(entry, dict) and isinstance(entry.get("result"), list) for entry in kept):
            found += sum(len(entry["result"]) for entry in kept)
    return found + regions(data)


def regions(data: bytes) -> int:
    tasks = [task for task in json.loads(data.decode("utf-8-sig")) if isinstance(task, dict)]
    lists = [value for task in tasks if "data" not in task for value in task.values() if isinstance(value, list)]
    return sum(isinstance(entry, dict) for found in lists for entry in found)


def coordinates(data: bytes) -> int:
    entries = [entry.get("annotations") for entry in json.loads(data.decode("utf-8-sig")) if isinstance(entry, dict)]
    return sum(len(found) for found in entries if isinstance(found, list))


def labelled(data: bytes) -> int:
    return len(json.loads(data.decode("utf-8-sig"))["shapes"])


def rows(data: bytes) -> int:
    found = csv.reader(data.decode("utf-8-sig").replace("\r\n", "\n").splitlines())
    return sum(1 for row in found if any(field.strip() for field in row)) - 1


OTHERS = {
    "cvat": (tools.cvat_xml, "annotations.xml", shapes, 0),
    "labelstudio": (tools.label_studio_json, "project-1-at-2026-01-01-00-00-abcdef01.json", results, 0),
    "json_min": (tools.label_studio_json_min, "project-1-min.json", regions, 0),
    "createml": (tools.createml, "train/_annotations.createml.json", coordinates, 2),
    "csv": (tools.roboflow_csv, "train/_annotations.csv", rows, 2),
    "labelimg": (tools.label_img, "c.txt", lines, 5),
    "voc of tools": (tools.voc_of_tools, "Annotations/two words c.xml", objects, 5),
    "labelme": (tools.labelme_json, "c.json", labelled, 5),
    "kitti": (tools.kitti, "training/label_2/c.txt", lines, 5),
    "label studio's coco": (tools.label_studio_coco, "result.json", annotations, 0),
}


@pytest.mark.parametrize(
    ("write", "file", "count", "others", "tries"),
    [
        (write_voc, "train/c.xml", objects, 5, COUNT),
        (write_coco, "train/_annotations.coco.json", annotations, 2, COUNT),
        (write_yolo, "train/labels/c.txt", lines, 5, COUNT),
        *((*row, FEWER) for row in OTHERS.values()),
    ],
    ids=["voc", "coco", "yolo", *OTHERS],
)
def test_damaged_annotations(write: Write, file: str, count: Count, others: int, tries: int, tmp_path: Path) -> None:
    root = write(tmp_path / "source")
    whole = (root / file).read_bytes()
    rng = random.Random(0)
    clean = refused = repaired = 0
    sentences: list[str] = []
    for index in range(tries):
        data = mutated(whole, rng)
        (root / file).write_bytes(data)
        strict = attempt(root, tmp_path / f"{index}", sentences)
        done = strict or attempt(root, tmp_path / f"{index}", sentences, lenient=True)
        if done is None:
            refused += 1
            continue
        clean += strict is not None
        repaired += strict is None
        kept = sum(done.boxes.values())
        assert done.issues.found == kept + sum(done.issues.dropped.values()), data
        unread = any(issue.kind == "unreadable file" for issue in done.issues.items)
        assert done.issues.found == others + (0 if unread else count(data)), data
        if strict is not None:
            assert set(done.issues.dropped) <= {"difficult", "crowd"}, data
    assert clean > 0
    assert min(clean + repaired, refused + repaired) > 20
    assert clean + refused + repaired == tries
    assert all(sentence.strip() and "\n" not in sentence for sentence in sentences)
    assert len(sentences) >= repaired + refused


OUTLINES = [
    {"segmentation": [[1, 1, 9, 1, 9, 8, 1, 8]], "bbox": [1, 1, 8, 7], "iscrowd": 0},
    {"segmentation": {"counts": [0, 20, 172], "size": [12, 16]}, "bbox": [0, 0, 2, 12], "iscrowd": 1},
    {"segmentation": {"counts": "05k5", "size": [12, 16]}, "bbox": [0, 0, 1, 5], "iscrowd": 0},
]


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_damaged_outlines(form: str, tmp_path: Path) -> None:
    """load_segmentation itself asserts that each object found is kept or counted as left out."""
    root = tmp_path / "source"
    if form == "yolo":
        tools.ultralytics_polygons(root)
        path = root / "labels" / "train" / "1.txt"
    else:
        path = root / "annotations" / "instances_default.json"
        for name in "abc":
            image(root / "images" / f"{name}.jpg", tools.MASK_SIZE)
        record = {
            "images": [
                {"id": i, "file_name": f"{name}.jpg", "width": 16, "height": 12} for i, name in enumerate("abc")
            ],
            "annotations": [{"id": i, "image_id": 0, "category_id": 1, **shape} for i, shape in enumerate(OUTLINES)],
            "categories": [{"id": 1, "name": "cat"}],
        }
        tools.text(path, json.dumps(record))
    whole = path.read_bytes()
    assert load_segmentation(root).train.mask(0).shape == (12, 16)
    rng = random.Random(0)
    clean = 0
    sentences: list[str] = []
    for _ in range(FEWER):
        path.write_bytes(mutated(whole, rng))
        for lenient in (False, True):
            try:
                data = load_segmentation(root, lenient=lenient, skip_broken=lenient, verify=False)
            except UserError as error:
                sentences.append(str(error))
                continue
            masks = [source.mask(i) for source in (data.train, data.val) for i in range(len(source))]
            assert all(mask.shape == (12, 16) for mask in masks)
            clean += not lenient
    assert 0 < clean < FEWER
    assert all(sentence.strip() and "\n" not in sentence for sentence in sentences)
