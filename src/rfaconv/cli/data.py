"""rfaconv data"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfaconv.cli import options
from rfaconv.cli.options import console
from rfaconv.errors import UserError, unknown_name
from rfaconv.files import write_text

if TYPE_CHECKING:
    from rfaconv.data.annotations.issues import Issues

app = typer.Typer(help="Data sets: a first look, and conversion.", no_args_is_help=True)

_SHOWN = 20


@app.callback()
def group() -> None:
    """Data sets: a first look, and conversion."""


@app.command("check")
def check(
    source: Annotated[Path, typer.Argument(help="The data set's folder or archive.")],
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="classify, detect or segment; else what is there.")
    ] = None,
    page: Annotated[
        Path, typer.Option(metavar="FILE", help="A page with sample pictures, boxes and masks drawn.")
    ] = Path("data-check.html"),
) -> None:
    """Say what a data set is: layout, classes, sizes, parts, duplicates, what is broken; exit code 2 if training would
    refuse it.

    Examples:

        rfaconv data check ~/Downloads/my-project.v3i.coco.zip
    """
    from rfaconv.data.check import TASKS, check_data
    from rfaconv.data.checkpage import check_lines, check_page

    if task is not None and task not in TASKS:
        unknown_name("task", task, TASKS)
    with options.checking() as progress:
        found = check_data(source, task=task, progress=progress)
    for line in check_lines(found):
        _print(line)
    _print_issues(found.issues)
    write_text(page, check_page(found))
    _print(f"Written: {options.shown(page)}")
    if found.refused is not None:
        raise UserError(f"Training would refuse it: {found.refused}")


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(help="The data set's folder or archive; or coco, voc for local copies.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Of the annotations, where several are there.")
    ] = "auto",
    classes: Annotated[
        str | None, typer.Option(metavar="NAMES", help="The only classes there may be, with commas.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Write images/ and masks/, for segmentation.")] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="Repair and count what is wrong.")] = False,
    keep_difficult: Annotated[bool, typer.Option("--keep-difficult", help="Keep VOC's difficult objects.")] = False,
    crowds: Annotated[
        str | None, typer.Option(metavar="keep|drop", help="COCO's iscrowd 1; default: by who wrote the file.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking them.")] = False,
    val_fraction: Annotated[float, typer.Option(help="Held out where there is no validation part.")] = 0.2,
    data_seed: Annotated[int, typer.Option(help="Chooses those.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all issues, file by file, as CSV.")] = None,
) -> None:
    """Make a data set of boxes Ultralytics' data.yaml, or one of masks images/ and masks/ (--masks).

    What annotation tools write is read as it is (docs/data.md). Boxes outside of the image or without area, unknown
    classes, missing images and duplicates are refused, file by file, or repaired and counted with --lenient.

    Examples:

        rfaconv data convert ~/Downloads/my-project.v3i.coco my-project

        rfaconv data convert ~/VOCdevkit voc0712 --lenient
    """
    from rfaconv.data.annotations.issues import RefusedError, issues_csv
    from rfaconv.data.detection import convert_detection
    from rfaconv.data.detection.convert import told
    from rfaconv.data.detection.pointers import load_pointer, local_copy, pointer_names

    name = source.lower().removesuffix(".yaml")
    root = Path(source)
    if not root.exists() and name in pointer_names():
        root = local_copy(name)
        form = load_pointer(name).format if form == "auto" else form
    try:
        if masks:
            path, lines, issues = _convert_masks(root, out, lenient, crowds, copy, val_fraction, data_seed)
        else:
            done = convert_detection(
                root,
                out,
                form=form,
                classes=[word.strip() for word in (classes or "").split(",") if word.strip()],
                lenient=lenient,
                keep_difficult=keep_difficult,
                crowds=crowds,
                copy=copy,
                val_fraction=val_fraction,
                seed=data_seed,
            )
            path, lines, issues = done.path, told(done), done.issues
    except RefusedError as error:
        _print_issues(error.issues)
        if report is not None:
            write_text(report, issues_csv(error.issues))
        raise
    for line in lines:
        _print(line)
    if report is not None:
        write_text(report, issues_csv(issues))
    _print(f"Written: {options.shown(path)}")


def _convert_masks(
    root: Path, out: Path, lenient: bool, crowds: str | None, copy: bool, val_fraction: float, seed: int
) -> tuple[Path, list[str], Issues]:
    from rfaconv.data.segmentation.convert import convert_masks

    done = convert_masks(root, out, lenient=lenient, crowds=crowds, copy=copy, val_fraction=val_fraction, seed=seed)
    parts = (("train", done.data.train), ("val", done.data.val), ("test", done.data.test))
    said = ", ".join(f"{name} {len(part):,} images" for name, part in parts if part is not None)
    lines = [f"masks: {said}; {len(done.data.classes)} classes", *done.data.notes]
    if done.data.skipped:
        lines.append(f"left out: {len(done.data.skipped):,} images that cannot be read")
    return done.path, lines, done.data.issues


def _print(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_issues(issues: Issues) -> None:
    """The first of them, and how many there are more."""
    for issue in issues.items[:_SHOWN]:
        _print(f"{issue.kind}: {issue}")
    if len(issues.items) > _SHOWN:
        _print(f"and {len(issues.items) - _SHOWN:,} more; `rfaconv data convert --report FILE` writes all")
