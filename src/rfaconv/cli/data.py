"""rfaconv data"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rfaconv.cli import options
from rfaconv.cli.options import console
from rfaconv.files import write_text

app = typer.Typer(help="Data sets: convert annotations with boxes.", no_args_is_help=True)

_SHOWN = 20


@app.callback()
def group() -> None:
    """Data sets: convert annotations with boxes."""


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(help="The data set's folder; or coco, voc for a local copy of those.")],
    out: Annotated[Path, typer.Argument(help="A new folder for images/, labels/ and data.yaml.")],
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="voc, coco, yolo, or what is there.")] = "auto",
    classes: Annotated[
        str | None, typer.Option(metavar="NAMES", help="The only classes there may be, with commas.")
    ] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help="Repair and count what is wrong.")] = False,
    keep_difficult: Annotated[bool, typer.Option("--keep-difficult", help="Keep VOC's difficult objects.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking them.")] = False,
    val_fraction: Annotated[float, typer.Option(help="Held out where there is no validation part.")] = 0.2,
    data_seed: Annotated[int, typer.Option(help="Chooses those.")] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all issues, file by file, as CSV.")
    ] = None,
) -> None:
    """Make a data set with boxes Ultralytics' data.yaml: from VOC's XML, COCO's JSON, or YOLO's labels.

    Roboflow's exports in these forms are understood. Boxes outside of the image or without area, unknown classes,
    missing images and duplicates are refused, file by file, or repaired and counted with --lenient.

    Examples:

        rfaconv data convert ~/Downloads/my-project.v3i.coco my-project

        rfaconv data convert ~/VOCdevkit voc0712 --lenient
    """
    from rfaconv.data.detection import RefusedError, convert_detection
    from rfaconv.data.detection.convert import told
    from rfaconv.data.annotations.issues import issues_csv
    from rfaconv.data.detection.pointers import load_pointer, local_copy, pointer_names

    name = source.lower().removesuffix(".yaml")
    root = Path(source)
    if not root.exists() and name in pointer_names():
        root = local_copy(name)
        form = load_pointer(name).format if form == "auto" else form
    try:
        done = convert_detection(
            root,
            out,
            form=form,
            classes=[word.strip() for word in (classes or "").split(",") if word.strip()],
            lenient=lenient,
            keep_difficult=keep_difficult,
            copy=copy,
            val_fraction=val_fraction,
            seed=data_seed,
        )
    except RefusedError as error:
        issues = error.issues.items
        for issue in issues[:_SHOWN]:
            console.print(f"{issue.kind}: {issue}", highlight=False, markup=False, soft_wrap=True)
        if len(issues) > _SHOWN:
            console.print(f"and {len(issues) - _SHOWN:,} more; --report FILE writes all", highlight=False)
        if report is not None:
            write_text(report, issues_csv(error.issues))
        raise
    for line in told(done):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if report is not None:
        write_text(report, issues_csv(done.issues))
    console.print(f"Written: {options.shown(done.path)}", highlight=False, soft_wrap=True)
