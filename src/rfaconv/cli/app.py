"""The commands, put together."""

from __future__ import annotations

import typer

from rfaconv.cli import compare, convert, data, evaluate, info, predict, profile, train

app = typer.Typer(
    name="rfaconv",
    help="Receptive-field attention convolutions: does the layer help on your images, and what does it cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compare")(compare.command)
app.command("train")(train.command)
app.command("eval")(evaluate.command)
app.command("convert")(convert.command)
app.command("predict")(predict.command)
app.command("info")(info.command)
app.add_typer(data.app, name="data")
app.add_typer(profile.app, name="profile")
