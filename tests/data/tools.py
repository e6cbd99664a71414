"""Small sets written exactly as annotation tools write them: the same images and objects as in forms.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from forms import CLASSES, PARTS, SIZE, TRAIN, VAL, coco, image, lines, xml
from PIL import Image

ALL = {**TRAIN, **VAL}


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


# Boxes.


def label_img(root: Path) -> Path:
    """labelImg's YOLO: a .txt beside each image that has objects, and classes.txt."""
    for name, boxes in ALL.items():
        image(root / f"{name}.jpg")
        if boxes:
            text(root / f"{name}.txt", lines(boxes))
    text(root / "classes.txt", "cat\ndog\n")
    return root


def label_studio_yolo(root: Path) -> Path:
    """Label Studio's YOLO: images/, labels/, classes.txt, notes.json; no end of line after the last class."""
    for name, boxes in ALL.items():
        image(root / "images" / f"a1b2c3d4-{name}.jpg")
        text(root / "labels" / f"a1b2c3d4-{name}.txt", lines(boxes))
    text(root / "classes.txt", "cat\ndog")
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    info = {"year": 2026, "version": "1.0", "contributor": "Label Studio"}
    text(root / "notes.json", json.dumps({"categories": categories, "info": info}))
    return root


def cvat_yolo(root: Path) -> Path:
    """CVAT's YOLO 1.1."""
    for name, boxes in ALL.items():
        image(root / "obj_train_data" / f"{name}.jpg")
        text(root / "obj_train_data" / f"{name}.txt", lines(boxes))
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(root / "obj.names", "cat\ndog\n")
    text(root / "train.txt", "".join(f"data/obj_train_data/{name}.jpg\n" for name in ALL))
    return root


def one_coco(root: Path) -> Path:
    """One COCO JSON beside images/."""
    for name in ALL:
        image(root / "images" / f"{name}.jpg")
    text(root / "labels_my-project_2026-01-01.json", json.dumps(coco(ALL)))
    return root


def label_studio_coco(root: Path) -> Path:
    """Label Studio's COCO: result.json with a server's paths, ids from 0, null sizes where there are no objects."""
    record: Any = coco(ALL)
    for entry in record["images"]:
        entry["file_name"] = f"/data/upload/1/a1b2c3d4-{entry['file_name']}"
        if not any(found["image_id"] == entry["id"] for found in record["annotations"]):
            entry["width"] = entry["height"] = None
    for entry in record["annotations"]:
        entry.update(category_id=entry["category_id"] - 1, segmentation=[], ignore=0)
    record["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    for name in ALL:
        image(root / "images" / f"a1b2c3d4-{name}.jpg")
    text(root / "result.json", json.dumps(record, indent=2))
    return root


def roboflow_csv(root: Path) -> Path:
    for part, images in PARTS.items():
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for name, boxes in images.items():
            image(root / part / f"{name}.jpg")
            rows += [f"{name}.jpg,{SIZE[0]},{SIZE[1]},{label},{a},{b},{c},{d}" for label, a, b, c, d in boxes]
        text(root / part / "_annotations.csv", "\n".join(rows) + "\n")
    return root


def createml(root: Path) -> Path:
    for part, images in PARTS.items():
        found = []
        for name, boxes in images.items():
            image(root / part / f"{name}.jpg")
            annotations = [
                {"label": label, "coordinates": {"x": (a + c) / 2, "y": (b + d) / 2, "width": c - a, "height": d - b}}
                for label, a, b, c, d in boxes
            ]
            found.append({"image": f"{name}.jpg", "annotations": annotations})
        text(root / part / "_annotations.createml.json", json.dumps(found))
    return root


def cvat_xml(root: Path) -> Path:
    """CVAT for images 1.1."""
    labels = "".join(f"<label><name>{name}</name><attributes></attributes></label>" for name in CLASSES)
    images = ""
    for i, (name, boxes) in enumerate(ALL.items()):
        image(root / "images" / f"{name}.jpg")
        inner = "".join(
            f'<box label="{label}" source="manual" occluded="0" xtl="{a}.00" ytl="{b}.00" xbr="{c}.00" ybr="{d}.00" '
            'z_order="0"></box>'
            for label, a, b, c, d in boxes
        )
        images += f'<image id="{i}" name="{name}.jpg" width="{SIZE[0]}" height="{SIZE[1]}">{inner}</image>\n'
    meta = f"<meta><job><labels>{labels}</labels></job></meta>"
    text(
        root / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{images}</annotations>',
    )
    return root


def _rectangle(box: tuple[str, int, int, int, int]) -> dict[str, Any]:
    label, left, top, right, bottom = box
    width, height = SIZE
    return {
        "x": 100 * left / width, "y": 100 * top / height, "width": 100 * (right - left) / width,
        "height": 100 * (bottom - top) / height, "rotation": 0, "rectanglelabels": [label],
    }  # fmt: skip


def label_studio_json(root: Path) -> Path:
    size = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
    tasks = []
    for i, (name, boxes) in enumerate(ALL.items(), 1):
        image(root / "images" / f"a1b2c3d4-{name}.jpg")
        results = [
            {**size, "value": _rectangle(box), "id": f"r{j}", "from_name": "label", "to_name": "image",
             "type": "rectanglelabels", "origin": "manual"}
            for j, box in enumerate(boxes)
        ]  # fmt: skip
        annotation = {"id": i, "completed_by": 1, "result": results, "was_cancelled": False, "lead_time": 3.5}
        tasks.append({
            "id": i, "annotations": [annotation], "file_upload": f"a1b2c3d4-{name}.jpg", "drafts": [],
            "predictions": [], "data": {"image": f"/data/upload/1/a1b2c3d4-{name}.jpg"}, "meta": {}, "project": 1,
        })  # fmt: skip
    text(root / "project-1-at-2026-01-01-00-00-abcdef01.json", json.dumps(tasks))
    return root


def label_studio_json_min(root: Path) -> Path:
    size = {"original_width": SIZE[0], "original_height": SIZE[1]}
    tasks = []
    for i, (name, boxes) in enumerate(ALL.items(), 1):
        image(root / "images" / f"a1b2c3d4-{name}.jpg")
        task = {
            "image": f"/data/upload/1/a1b2c3d4-{name}.jpg",
            "id": i,
            "annotator": 1,
            "annotation_id": i,
            "lead_time": 1.5,
        }
        tasks.append({**task, **({"label": [{**_rectangle(box), **size} for box in boxes]} if boxes else {})})
    text(root / "project-1-min.json", json.dumps(tasks))
    return root


def voc_of_tools(root: Path) -> Path:
    """datumaro's and CVAT's VOC: an image without objects has no XML; names may have spaces."""
    for name, boxes in ALL.items():
        image(root / "JPEGImages" / f"two words {name}.jpg")
        if boxes:
            text(root / "Annotations" / f"two words {name}.xml", xml(f"two words {name}", boxes))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n")
    text(root / "ImageSets" / "Main" / "default.txt", "".join(f"two words {name}\n" for name in ALL))
    return root


def label_studio_voc(root: Path) -> Path:
    """Label Studio's VOC: Annotations/ beside images/, no file for an image without objects."""
    for name, boxes in ALL.items():
        image(root / "images" / f"a1b2c3d4-{name}.jpg")
        if boxes:
            text(root / "Annotations" / f"a1b2c3d4-{name}.xml", xml(f"a1b2c3d4-{name}", boxes))
    return root


def labelme_json(root: Path) -> Path:
    """wkentaro's labelme: a JSON file beside each image."""
    for name, boxes in ALL.items():
        image(root / f"{name}.jpg")
        shapes = [
            {"label": label, "points": [[c, d], [a, b]], "group_id": None, "shape_type": "rectangle", "flags": {}}
            for label, a, b, c, d in boxes
        ]
        record = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None,
            "imageHeight": SIZE[1], "imageWidth": SIZE[0],
        }  # fmt: skip
        text(root / f"{name}.json", json.dumps(record, indent=2))
    return root


def labelme_xml(root: Path) -> Path:
    """MIT's LabelMe, as datumaro writes it: Annotations/train/ and Images/train/."""
    for name, boxes in ALL.items():
        image(root / "Images" / "train" / f"{name}.jpg")
        objects = ""
        for label, a, b, c, d in boxes:
            points = "".join(f"<pt><x>{x}.00</x><y>{y}.00</y></pt>" for x, y in ((a, b), (c, b), (c, d), (a, d)))
            objects += (
                f"<object><name>{label}</name><deleted>0</deleted><type>bounding_box</type>"
                f"<polygon>{points}<username></username></polygon></object>"
            )
        size = f"<imagesize><nrows>{SIZE[1]}</nrows><ncols>{SIZE[0]}</ncols></imagesize>"
        head = f"<filename>{name}.jpg</filename><folder>train</folder>{size}"
        text(root / "Annotations" / "train" / f"{name}.xml", f"<annotation>{head}{objects}</annotation>")
    return root


def kitti(root: Path) -> Path:
    for name, boxes in ALL.items():
        image(root / "training" / "image_2" / f"{name}.jpg")
        rows = [f"{label} 0.0 0 -1 {a} {b} {c} {d} -1 -1 -1 -1 -1 -1 -1\n" for label, a, b, c, d in boxes]
        text(root / "training" / "label_2" / f"{name}.txt", "".join(rows))
    return root


BOXES_OF_TOOLS: dict[str, Callable[[Path], Path]] = {
    writer.__name__: writer
    for writer in (
        label_img, label_studio_yolo, cvat_yolo, one_coco, label_studio_coco, roboflow_csv, createml, cvat_xml,
        label_studio_json, label_studio_json_min, voc_of_tools, label_studio_voc, labelme_json, labelme_xml, kitti,
    )
}  # fmt: skip

# Masks: nine images of 16 x 12 px; each mask has the ids 0, 1 and 2 in it.

MASK_SIZE = (16, 12)
COLOURS = np.array([(0, 0, 0), (250, 50, 83), (50, 183, 250)], np.uint8)
NAMES = ("background", "cat", "dog")


def ids(i: int, classes: int = 3) -> np.ndarray:
    found = np.random.default_rng(i).integers(0, classes, MASK_SIZE[::-1]).astype(np.uint8)
    found.reshape(-1)[:classes] = range(classes)
    return found


def grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _images(root: Path, pattern: str) -> None:
    for part, numbers in (("train", range(5)), ("val", range(5, 7)), ("test", range(7, 9))):
        for i in numbers:
            image(root / pattern.format(part=part, i=i), MASK_SIZE)


def _masks(root: Path, pattern: str, write: Callable[[Path, int], None]) -> None:
    for part, numbers in (("train", range(5)), ("val", range(5, 7)), ("test", range(7, 9))):
        for i in numbers:
            write(root / pattern.format(part=part, i=i), i)


def roboflow_masks(root: Path) -> Path:
    """Roboflow's semantic masks: image and *_mask.png side by side, _classes.csv in each part."""
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for i in {"train": range(5), "val": range(5, 7), "test": range(7, 9)}[part]:
            image(root / folder / f"{i}_jpg.rf.0a1b.jpg", MASK_SIZE)
            grey(root / folder / f"{i}_jpg.rf.0a1b_mask.png", ids(i))
        text(root / folder / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    return root


def cvat_masks(root: Path) -> Path:
    """CVAT's segmentation mask 1.1: colours by labelmap.txt, one list called default."""
    for i in range(9):
        image(root / "JPEGImages" / f"{i}.jpg", MASK_SIZE)
        grey(root / "SegmentationClass" / f"{i}.png", COLOURS[ids(i)])
        grey(root / "SegmentationObject" / f"{i}.png", COLOURS[ids(i)])
    text(root / "ImageSets" / "Segmentation" / "default.txt", "".join(f"{i}\n" for i in range(9)))
    head = "# label:color_rgb:parts:actions\n"
    rows = (f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(NAMES, COLOURS.tolist(), strict=True))
    text(root / "labelmap.txt", head + "".join(rows))
    return root


def camvid(root: Path) -> Path:
    """SegNet's CamVid: ids 0 to 10, 11 is unlabelled."""
    _images(root, "{part}/{i}.png")
    _masks(root, "{part}annot/{i}.png", lambda path, i: grey(path, ids(i, 12)))
    return root


def mmsegmentation(root: Path) -> Path:
    _images(root, "img_dir/{part}/{i}.jpg")
    _masks(root, "ann_dir/{part}/{i}.png", lambda path, i: grey(path, ids(i)))
    return root


def carvana(root: Path) -> Path:
    """Kaggle's Carvana: train/, train_masks/*_mask.gif in black and white, test/ without masks."""
    _images(root, "{part}/{i}.jpg")
    (root / "val").rename(root / "test_hq")
    for i in range(5):
        (root / "train_masks").mkdir(exist_ok=True)
        Image.fromarray(ids(i, 2) * 255).convert("1").save(root / "train_masks" / f"{i}_mask.gif")
    return root


def black_and_white(root: Path) -> Path:
    for i in range(9):
        image(root / "images" / f"{i}.jpg", MASK_SIZE)
        grey(root / "masks" / f"{i}.png", ids(i, 2) * 255)
    return root


def ultralytics_polygons(root: Path) -> Path:
    """A -seg data.yaml: the left half a cat, the lower right quarter a dog."""
    for part in ("train", "val"):
        for i in range(3):
            image(root / "images" / part / f"{i}.jpg", MASK_SIZE)
            text(root / "labels" / part / f"{i}.txt", "0 0 0 0.5 0 0.5 1 0 1\n1 0.5 0.5 1 0.5 1 1 0.5 1\n")
    text(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return root
