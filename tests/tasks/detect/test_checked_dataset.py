"""The images and boxes a training gets are those that were checked, whatever lies beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fitted_detector  # noqa: F401 - Ultralytics' settings in a folder of their own
import numpy as np
import pytest
from PIL import Image

from rfaconv.data.detection import DetectionData, load_detection
from rfaconv.data.detection.boxes import BoxedImage
from rfaconv.errors import UserError
from rfaconv.tasks.detect.dataset import CheckedDataset


def dataset(images: Any, data: DetectionData, **kwargs: Any) -> CheckedDataset:
    from ultralytics.cfg import get_cfg

    record = {"names": dict(enumerate(data.classes)), "nc": len(data.classes), "channels": 3}
    settings = get_cfg(overrides={"imgsz": 64, "task": "detect"})
    return CheckedDataset(
        images, record, settings, **{"batch_size": 4, "augment": False, "rect": False, "stride": 32, **kwargs}
    )


def test_the_boxes_are_those_that_ultralytics_reads_itself(scenes: DetectionData, tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset

    ours = dataset(scenes.train, scenes)
    record = {"names": dict(enumerate(scenes.classes)), "nc": len(scenes.classes), "channels": 3}
    scenes.write(tmp_path)
    theirs = YOLODataset(img_path=str(tmp_path / "train.txt"), data=record, task="detect", imgsz=64, augment=False)
    assert ours.im_files == theirs.im_files
    assert len(ours.labels) == 16
    for one, two in zip(ours.labels, theirs.labels, strict=True):
        assert set(one) == set(two)
        assert one["shape"] == tuple(two["shape"])
        assert np.array_equal(one["cls"], two["cls"])
        assert np.allclose(one["bboxes"], two["bboxes"], atol=1e-6)
        assert (one["cls"].dtype, one["bboxes"].dtype) == (two["cls"].dtype, two["bboxes"].dtype)
    assert np.array_equal(ours[3]["img"], theirs[3]["img"])


def test_no_pickle_beside_the_labels_is_read_or_written(scenes: DetectionData, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 32)).save(tmp_path / "images" / "a.ppm")
    (tmp_path / "labels.cache").write_bytes(b"cos\nabort\n(tR.")  # would end the process
    one = replace(scenes, train=(BoxedImage(tmp_path / "images" / "a.ppm", 64, 32, ()),))
    for rect in (False, True):
        found = dataset(one.train, one, rect=rect)
        assert len(found) == 1
        assert found[0]["cls"].shape == (0, 1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.ppm", "images", "labels", "labels.cache"]


def test_an_image_cut_short_is_named_before_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for name in "ab":
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / part / f"{name}.png")
            (tmp_path / "labels" / part / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [thing]\n")
    assert len(load_detection(tmp_path).train) == 2
    broken = tmp_path / "images" / "train" / "b.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"1 of 4 images .* cannot be read: .*b\.png.*put whole files there"):
        load_detection(tmp_path)
    assert len(load_detection(tmp_path, verify=False).train) == 2
