"""Every layout is recognised, and what is wrong with one is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfaconv import UserError
from rfaconv.data import ClassificationData, load_classification


def table(data: ClassificationData, part: str) -> dict[str, str]:
    """Name to class."""
    source = getattr(data, part)
    return {source.name(i): data.classes[source.targets[i]] for i in range(len(source))}


def refusal(root: Path | str, **arguments) -> str:
    """The one sentence with which `root` is refused."""
    with pytest.raises(UserError) as caught:
        load_classification(root, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def test_one_folder_is_split_by_class(two_classes):
    data = load_classification(two_classes)
    train, val = table(data, "train"), table(data, "val")
    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert sorted(val.values()) == ["cat"] + ["dog"] * 2
    assert sorted(train.values()) == ["cat"] * 4 + ["dog"] * 8
    assert not train.keys() & val.keys()
    assert all(name.startswith(label) for name, label in (train | val).items())


def test_every_class_is_in_both_parts_at_any_fraction(two_classes):
    for fraction in (0.001, 0.999):
        data = load_classification(two_classes, val_fraction=fraction)
        assert set(data.train.targets) == set(data.val.targets) == {0, 1}


def test_split_depends_on_the_seed_alone(two_classes):
    first, again, other = (table(load_classification(two_classes, seed=seed), "val") for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_split_of_a_class_is_its_own(two_classes, draw):
    before = table(load_classification(two_classes), "val")
    draw(two_classes, "cat/new.png")
    after = table(load_classification(two_classes), "val")
    assert {n for n in before if n.startswith("dog")} == {n for n in after if n.startswith("dog")}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Val"])
def test_two_folders(tmp_path, draw, name):
    draw(tmp_path, "train/a/1.png", "train/b/deep/er/1.JPEG", f"{name}/a/2.png", f"{name}/b/2.png")
    data = load_classification(tmp_path)
    assert table(data, "train") == {"train/a/1.png": "a", "train/b/deep/er/1.JPEG": "b"}
    assert table(data, "val") == {f"{name}/a/2.png": "a", f"{name}/b/2.png": "b"}
    assert data.image_size == (6, 8)


def test_val_comes_before_test(tmp_path, draw):
    draw(tmp_path, *(f"{part}/{label}/1.png" for part in ("train", "val", "test") for label in "ab"))
    assert set(table(load_classification(tmp_path), "val")) == {"val/a/1.png", "val/b/1.png"}


def test_a_class_may_be_called_train(tmp_path, draw):
    draw(tmp_path, *(f"{label}/{i}.png" for label in ("train", "car") for i in range(3)))
    assert load_classification(tmp_path).classes == ("car", "train")


def test_hidden_and_other_files_are_ignored(two_classes, draw):
    draw(two_classes, ".cache/1.png", "cat/.hidden.png", "cat/.ipynb_checkpoints/1.png", "__MACOSX/cat/1.png")
    (two_classes / "cat" / "Thumbs.db").write_text("x")
    (two_classes / "labels.csv").write_text("x")
    data = load_classification(two_classes)
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) == 15


def test_links_are_followed_but_not_in_circles(tmp_path, two_classes):
    root = tmp_path / "linked"
    root.mkdir()
    (root / "cat").symlink_to(two_classes / "cat")
    (root / "dog").symlink_to(two_classes / "dog")
    (two_classes / "dog" / "loop").symlink_to(two_classes / "dog")
    data = load_classification(root)
    assert len(data.train) + len(data.val) == 15


@pytest.fixture(params=["", "ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/"])
def kaggle(request, tmp_path, draw) -> tuple[Path, str]:
    """Kaggle's ImageNet in small, and where in it the splits are."""
    base = request.param
    draw(tmp_path, *(f"{base}train/{wnid}/{wnid}_1.JPEG" for wnid in ("n01", "n02")))
    draw(tmp_path, *(f"{base}val/ILSVRC2012_val_{i}.JPEG" for i in range(3)))
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        + "".join(f"ILSVRC2012_val_{i},n0{1 + i % 2} 1 2 3 4 n01 5 6 7 8 \n" for i in range(3))
    )
    return tmp_path, base


def test_kaggle_imagenet(kaggle):
    root, base = kaggle
    data = load_classification(root)
    names = [f"{base}val/ILSVRC2012_val_{i}.JPEG" for i in range(3)]
    assert table(data, "val") == dict(zip(names, ("n01", "n02", "n01"), strict=True))
    assert data.classes == ("n01", "n02")


@pytest.mark.parametrize("kaggle", ["ILSVRC/Data/CLS-LOC/"], indirect=True)
def test_kaggle_imagenet_from_within(kaggle):
    root, base = kaggle
    assert len(load_classification(root / base).val) == 3


def test_kaggle_imagenet_incomplete(kaggle, draw):
    root, base = kaggle
    (root / base / "val/ILSVRC2012_val_2.JPEG").unlink()
    assert "1 of 5 images" in refusal(root)
    assert load_classification(root, skip_broken=True).skipped == (f"{base}val/ILSVRC2012_val_2.JPEG",)
    draw(root, f"{base}val/extra.JPEG")
    assert "no label for" in refusal(root)
    assert "extra.JPEG" in refusal(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\n1,n01\n", "does not begin with"),
        ("ImageId,PredictionString\nILSVRC2012_val_0,\n", "row without a class"),
        ("ImageId,PredictionString\nILSVRC2012_val_0,n09 1 2 3 4\n", "'n09'"),
        ("", "does not begin with"),
    ],
)
def test_kaggle_csv_refused(kaggle, text, words):
    (kaggle[0] / "LOC_val_solution.csv").write_text(text)
    message = refusal(kaggle[0])
    assert words in message
    assert "LOC_val_solution.csv" in message


def test_tiny_imagenet(tmp_path, draw):
    draw(tmp_path, *(f"train/{wnid}/images/{wnid}_1.JPEG" for wnid in ("n01", "n02")))
    draw(tmp_path, *(f"val/images/val_{i}.JPEG" for i in range(2)), "test/images/test_0.JPEG")
    (tmp_path / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    data = load_classification(tmp_path)
    assert table(data, "val") == {"val/images/val_0.JPEG": "n02", "val/images/val_1.JPEG": "n01"}
    (tmp_path / "val/val_annotations.txt").write_text("val_0.JPEG n02\n")
    assert "line without a class" in refusal(tmp_path)


def test_tiny_imagenet_already_sorted(tmp_path, draw):
    draw(tmp_path, *(f"{part}/{wnid}/images/1.JPEG" for part in ("train", "val") for wnid in ("n01", "n02")))
    (tmp_path / "val/val_annotations.txt").write_text("gone.JPEG\tn02\n")
    assert len(load_classification(tmp_path).val) == 2


def test_flat_val_needs_labels_whose_order_is_known(tmp_path, draw):
    draw(tmp_path, "train/n01/1.JPEG", "train/n02/1.JPEG", "val/1.JPEG", "val/2.JPEG")
    assert "have no labels: sort them into class folders" in refusal(tmp_path)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n")
    message = refusal(tmp_path)
    assert "an order that it does not give" in message
    assert "class folders" in message


@pytest.fixture(params=[("data_256", "val_256"), ("data_256_standard", "val_256"), ("data_large", "val_large")])
def places(request, tmp_path, draw) -> tuple[Path, str, str]:
    train, val = request.param
    draw(
        tmp_path, f"{train}/a/abbey/1.jpg", f"{train}/a/apartment_building/outdoor/1.jpg", f"{val}/Places365_val_1.jpg"
    )
    (tmp_path / "categories_places365.txt").write_text("/a/abbey 0\n/a/apartment_building/outdoor 1\n")
    (tmp_path / "places365_train_standard.txt").write_text("/a/abbey/1.jpg 0\n/a/apartment_building/outdoor/1.jpg 1\n")
    (tmp_path / "places365_val.txt").write_text("Places365_val_1.jpg 1\nPlaces365_val_2.jpg 0\n")
    draw(tmp_path, f"{val}/Places365_val_2.jpg")
    return tmp_path, train, val


def test_places365(places):
    root, train, val = places
    data = load_classification(root)
    assert data.classes == ("/a/abbey", "/a/apartment_building/outdoor")
    assert table(data, "train")[f"{train}/a/apartment_building/outdoor/1.jpg"] == "/a/apartment_building/outdoor"
    assert table(data, "val") == {
        f"{val}/Places365_val_1.jpg": "/a/apartment_building/outdoor",
        f"{val}/Places365_val_2.jpg": "/a/abbey",
    }


@pytest.mark.parametrize("name", ["categories_places365.txt", "places365_train_standard.txt", "places365_val.txt"])
def test_places365_without_a_list(places, name):
    (places[0] / name).unlink()
    assert f"has no {name}" in refusal(places[0])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("places365_val.txt", "Places365_val_1.jpg 2\n", "there are only 2"),
        ("places365_val.txt", "Places365_val_1.jpg\n", "Line 1"),
        ("places365_val.txt", "Places365_val_1.jpg -1\n", "Line 1"),
        ("places365_val.txt", "../../etc/passwd 1\n", "outside"),
        ("places365_val.txt", "\n", "is empty"),
        ("places365_val.txt", "Places365_val_1.jpg 1\n", "No image of class '/a/abbey' in the validation images"),
        ("places365_val.txt", "Places365_val_1.jpg 1\nno\x00thing.jpg 0\n", "missing"),
        ("categories_places365.txt", "/a/abbey 0\n/b 2\n", "does not number its classes"),
        ("categories_places365.txt", "\xff\xfe", "not of the form"),
    ],
)
def test_places365_refused(places, name, text, words):
    (places[0] / name).write_text(text, encoding="utf-8")
    message = refusal(places[0])
    assert words in message


def test_places365_without_images(places):
    root, _, val = places
    (root / val).rename(root / "elsewhere")
    assert "not the folders of its images" in refusal(root)


def test_places365_missing_file(places):
    root, train, _ = places
    (root / train / "a/abbey/1.jpg").unlink()
    assert f"'{train}/a/abbey/1.jpg' (missing)" in refusal(root)
    assert "1 of 4" in refusal(root, verify=False)
    assert "No image of class '/a/abbey' in the training images" in refusal(root, skip_broken=True)


def test_root_missing_or_file_or_empty(tmp_path):
    assert "does not exist" in refusal(tmp_path / "no")
    (tmp_path / "data.txt").write_text("x")
    assert "is a file" in refusal(tmp_path / "data.txt")
    assert "No images under" in refusal(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert "No images under" in refusal(tmp_path)


def test_flat_folder_names_the_known_layouts(tmp_path, draw):
    draw(tmp_path, "1.png", "2.png")
    message = refusal(tmp_path)
    assert "no known layout" in message
    for word in ("one folder per class", "train/ and val/", "ImageNet", "Places365", "IDX"):
        assert word in message


def test_empty_class(two_classes):
    (two_classes / "bird").mkdir()
    assert "No images in the class folder 'bird'" in refusal(two_classes)


def test_single_class(tmp_path, draw):
    draw(tmp_path, "cat/1.png", "cat/2.png")
    assert "single class, 'cat'" in refusal(tmp_path)


def test_single_class_of_a_nested_archive(two_classes):
    outer = two_classes.parent / "outer"
    outer.mkdir()
    two_classes.rename(outer / "pets")
    assert f"did you mean '{outer / 'pets'}'?" in refusal(outer)


def test_class_with_a_single_image(two_classes, draw):
    draw(two_classes, "bird/1.png")
    assert "Class 'bird'" in refusal(two_classes)
    assert "single image" in refusal(two_classes)


def test_missing_split(tmp_path, draw):
    draw(tmp_path, "train/a/1.png", "train/b/1.png")
    message = refusal(tmp_path)
    assert "no validation (val or valid or validation or test) folder" in message
    assert f"'{tmp_path / 'train'}'" in message
    (tmp_path / "train").rename(tmp_path / "val")
    assert "no train folder" in refusal(tmp_path)
    draw(tmp_path, "train/1.png")
    assert "has no class folders" in refusal(tmp_path)


def test_val_without_class_folders(tmp_path, draw):
    draw(tmp_path, "train/a/1.png", "train/b/1.png")
    (tmp_path / "val").mkdir()
    assert "has no class folders" in refusal(tmp_path)


def test_classes_differ_between_splits(tmp_path, draw):
    draw(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/a/1.png")
    assert "has no folder for class 'b', 'c', which train has" in refusal(tmp_path)
    draw(tmp_path, "val/b/1.png", "val/c/1.png", "val/d/1.png")
    assert "has a folder for class 'd', which train has not" in refusal(tmp_path)
    (tmp_path / "val/d/1.png").unlink()
    (tmp_path / "val/d").rmdir()
    (tmp_path / "val/c/1.png").unlink()
    assert "No images in the class folder 'val/c'" in refusal(tmp_path)


@pytest.mark.parametrize("arguments", [{"channels": 2}, {"val_fraction": 0.0}, {"val_fraction": 1.0}])
def test_bad_arguments(two_classes, arguments):
    assert next(iter(arguments)) in refusal(two_classes, **arguments)


def test_odd_names_stay_on_one_line(tmp_path, draw):
    draw(tmp_path, "a\nb/1.png", "c/1.png", "c/2.png")
    assert "a\\nb" in refusal(tmp_path)


def test_fingerprint_of_folders(tmp_path, two_classes, draw):
    first = load_classification(two_classes).fingerprint
    moved = two_classes.rename(tmp_path / "moved")
    assert load_classification(moved).fingerprint == first
    assert load_classification(moved, seed=1).fingerprint != first
    draw(moved, "cat/0.png", size=(9, 9))
    assert load_classification(moved).fingerprint != first
