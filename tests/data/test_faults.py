"""Files and folders that are not what they seem: each a sentence, or read as it should be."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from forms import BOXES, write_coco, write_voc, write_yolo
from PIL import Image

from rfaconv.data import build_transform, load_classification
from rfaconv.data.detection import RefusedError, convert_detection, load_detection
from rfaconv.data.segmentation import build_mask_transform
from rfaconv.errors import UserError

Draw = Callable[..., None]


# Special files: opening a fifo would wait for ever, so these tests hang where nothing looks first.


def test_a_fifo_among_the_images_is_named(two_classes: Path) -> None:
    os.mkfifo(two_classes / "cat" / "pipe.png")
    for verify in (True, False):
        with pytest.raises(UserError, match=r"'cat/pipe.png' \(not a regular file\)"):
            load_classification(two_classes, verify=verify)
    assert load_classification(two_classes, skip_broken=True).skipped == ("cat/pipe.png",)


@pytest.mark.parametrize(
    ("write", "name", "words"),
    [
        (write_yolo, "train/images/b.jpg", "a fifo, not a file"),
        (write_yolo, "train/labels/b.txt", "is a fifo, not a file"),
        (write_yolo, "data.yaml", "is a fifo, not a file"),
        (write_voc, "train/b.xml", "is a fifo, not a file"),
        (write_voc, "train/b.jpg", "a fifo, not a file"),
        (write_coco, "train/b.jpg", "is not there"),
    ],
)
def test_a_fifo_among_annotations_is_named(
    write: Callable[[Path], Path], name: str, words: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "source")
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(UserError, match=words):
        convert_detection(root, tmp_path / "out")


@pytest.mark.parametrize("name", ["x.json", "x.xml", "classes.txt", "_annotations.csv", "annotations.xml"])
def test_a_fifo_that_may_be_an_annotation_does_not_hang(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError):
        load_detection(tmp_path)


def test_a_fifo_for_a_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set")
    with pytest.raises(UserError, match="is a fifo: give the folder"):
        load_classification(tmp_path / "set")


@pytest.mark.parametrize("load", [load_classification, load_detection])
@pytest.mark.parametrize("name", ["", "train"])
def test_a_folder_that_cannot_be_read(
    load: Callable[[Path], object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's refusal is played."""
    root = write_coco(tmp_path / "set")
    real = os.scandir

    def refuse(path: str | Path = ".") -> object:
        if Path(path) == root / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        load(root)


@pytest.mark.parametrize(("write", "name"), [(write_voc, "train/b.xml"), (write_yolo, "train/labels/b.txt")])
def test_an_annotation_that_cannot_be_read(
    write: Callable[[Path], Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "set")
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == root / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RefusedError, match="cannot be read: Permission denied"):
        convert_detection(root, tmp_path / "out")


# Names in Latin-1, from old zips.


def test_names_that_are_no_utf8(tmp_path: Path, draw: Draw) -> None:
    root = tmp_path / "set"
    latin = os.fsdecode(b"caf\xe9")
    draw(root, *(f"{latin}/{i}.png" for i in range(4)), *(f"tea/{latin}{i}.png" for i in range(4)))
    data = load_classification(root)
    assert data.classes == ("caf\\xe9", "tea")
    names = [source.name(i) for source in (data.train, data.val) for i in range(len(source))]
    assert "tea/caf\\xe91.png" in names
    assert all(name.encode("utf-8") for name in (*names, *data.classes))
    assert data.train.image(0).shape == (3, 6, 8)


def test_boxes_on_images_whose_names_are_no_utf8(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    for folder, suffix in (("images", "jpg"), ("labels", "txt")):
        os.rename(
            root / "train" / folder / f"b.{suffix}",
            os.fsencode(root / "train" / folder) + f"/\xe9.{suffix}".encode("latin-1"),
        )
    data = load_detection(root)
    listed = (data.write(tmp_path / "run").parent / "train.txt").read_bytes()
    assert b"/\xe9.jpg\n" in listed
    done = convert_detection(root, tmp_path / "out")
    assert sum(done.boxes.values()) == BOXES
    assert (
        sum(len(image.boxes) for image in (*load_detection(done.path).train, *load_detection(done.path).val)) == BOXES
    )


# Sizes.


@pytest.mark.parametrize("size", [-1, 0, 1, 3, 8193, 1_000_000])
def test_an_image_size_out_of_bounds(size: int) -> None:
    with pytest.raises(UserError, match=f"image_size must be between 4 and 8192 pixels, got {size}"):
        build_transform("resize", image_size=size, channels=3)
    with pytest.raises(UserError, match=f"image_size must be between 4 and 8192 pixels, got {size}"):
        build_mask_transform("crop", image_size=size)


def test_small_images_say_their_size(tmp_path: Path, draw: Draw) -> None:
    root = tmp_path / "set"
    draw(root, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)), size=(32, 32))
    assert load_classification(root).image_size == (32, 32)
    draw(root, "cat/0.png", size=(40, 28))
    assert load_classification(root).image_size == (32, 40)
    draw(root, "dog/3.png", size=(113, 20))
    assert load_classification(root).image_size is None
    draw(root, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)), size=(300, 200))
    assert load_classification(root).image_size is None


# Archives.


def zipped(root: Path, path: Path, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, top + file.relative_to(root).as_posix())
    return path


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("top", ["", "my project/"])
def test_archives_are_read_as_they_are(suffix: str, top: str, tmp_path: Path, cache: Path) -> None:
    root, path = write_coco(tmp_path / "set"), tmp_path / f"my-project.v3i.{suffix}"
    if suffix == "zip":
        zipped(root, path, top)
    else:
        with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
            archive.add(root, top.rstrip("/") or ".")
    data = load_detection(path)
    assert sum(len(image.boxes) for image in (*data.train, *data.val)) == BOXES
    assert load_detection(path) == data
    assert data.name == (top.rstrip("/") or "my-project.v3i")
    assert len(list((cache / "rfaconv" / "unpacked").iterdir())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["set", path.name])


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_a_zip_writes_nothing_outside(name: str, tmp_path: Path, cache: Path) -> None:
    path = zipped(write_coco(tmp_path / "set"), tmp_path / "set.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "evil")
    with pytest.raises(UserError, match="leads out of its folder: it is not unpacked"):
        load_detection(path)
    assert not [found for found in (*tmp_path.rglob("*evil*"), *cache.rglob("*")) if found.is_file()]


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "zip symlink"])
def test_links_in_archives_are_refused(kind: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / ("set.zip" if kind == "zip symlink" else "set.tar")
    if kind == "zip symlink":
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo("link")
            member.type = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}[kind]
            member.linkname = "/etc/passwd"
            tar.addfile(member)
    with pytest.raises(UserError, match="a link"):
        load_detection(path)
    assert not [found for found in cache.rglob("*") if found.is_file()]


def test_archives_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(write_coco(tmp_path / "set"), tmp_path / "set.zip")
    monkeypatch.setattr("rfaconv.data.archives.MOST_FILES", 3)
    with pytest.raises(UserError, match="and at most 3 files of 200 GiB are unpacked"):
        load_detection(path)
    monkeypatch.setattr("rfaconv.data.archives.MOST_FILES", 2_000_000)
    monkeypatch.setattr("rfaconv.data.archives._IN_USE", 1 << 60)
    with pytest.raises(UserError, match="GiB are free: make room"):
        load_detection(path)


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_damaged_archives_are_a_sentence(keep: int, tmp_path: Path, cache: Path) -> None:
    root = write_coco(tmp_path / "set")
    whole = zipped(root, tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(whole[:keep])
    for name, mode in (("set.tar.gz", "w:gz"), ("set.tar", "w")):
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(root, "set")
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: min(len(data) // 2, max(keep, 0) or len(data) // 2)])
    for name in ("set.zip", "set.tar.gz", "set.tar"):
        with pytest.raises(UserError, match="cannot be unpacked") as caught:
            load_detection(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not [found for found in cache.rglob("*") if found.is_file()]


def test_a_tar_that_is_cut_between_two_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(write_coco(tmp_path / "set"), "set")
    with tarfile.open(tmp_path / "set.tar") as tar:
        last = tar.getmembers()[-1]
    (tmp_path / "set.tar").write_bytes((tmp_path / "set.tar").read_bytes()[: last.offset])
    with pytest.raises(UserError, match="it is cut short"):
        load_detection(tmp_path / "set.tar")


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"0" * 100_000)
    data = buffer.getvalue().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be unpacked|longer than the archive says"):
        load_detection(tmp_path / "set.zip")


# Folders in no known layout.


def test_an_unknown_layout_is_told_with_the_nearest(tmp_path: Path) -> None:
    for i in range(3):
        path = tmp_path / "set" / "pictures" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
        (tmp_path / "set" / "pictures" / f"{i}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(
        UserError, match=r"Found here: pictures/ \(3 .jpg, 3 .txt\)\. The nearest is YOLO: .* data.yaml"
    ):
        load_detection(tmp_path / "set")
    (tmp_path / "set" / "data.yaml").write_text("names: [cat]\ntrain: pictures\n")  # the two lines it named
    assert len(load_detection(tmp_path / "set").classes) == 1
