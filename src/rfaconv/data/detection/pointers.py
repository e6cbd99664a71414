"""Public data sets by name: where a local copy is looked for, and how to get one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from rfaconv.data.files import quoted
from rfaconv.errors import UserError


@dataclass(frozen=True)
class Pointer:
    """A public data set.

    Attributes:
        name: its full name.
        folder: what its folder is called.
        format: voc or coco.
        get: how to get it, after "to have it, ".
        images: how many there are, for who wants to check.
    """

    name: str
    folder: str
    format: str
    get: str
    images: str


def pointer_names() -> list[str]:
    """The public data sets that are known by name."""
    folder = resources.files("rfaconv.data.detection") / "pointers"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_pointer(name: str) -> Pointer:
    """The data set of that name (one of `pointer_names`)."""
    text = (resources.files("rfaconv.data.detection") / "pointers" / f"{name}.yaml").read_text("utf-8")
    return Pointer(**yaml.safe_load(text))


def local_copy(name: str) -> Path:
    """The folder of a local copy of that data set: in $RFACONV_DATA, in datasets/ or here.

    Raises:
        UserError: there is none; the message says how to get it.
    """
    pointer = load_pointer(name)
    tries = [Path(base) / pointer.folder for base in (os.environ.get("RFACONV_DATA"), "datasets", ".") if base]
    found = next((path for path in tries if path.is_dir()), None)
    if found is None:
        looked = ", ".join(quoted(path) for path in tries)
        raise UserError(
            f"{pointer.name} is not here (looked for {looked}): {pointer.get}; its folder's name is "
            f"'{pointer.folder}', and $RFACONV_DATA may say in which folder it lies."
        )
    return found
