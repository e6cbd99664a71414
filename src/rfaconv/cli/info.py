"""rfaconv info"""

from __future__ import annotations

from rfaconv.cli.options import console
from rfaconv.layers.registry import conv_factory, conv_names
from rfaconv.ops import backends
from rfaconv.profiling import machine


def command() -> None:
    """What this installation has: versions, machine, convolutions, models, recipes and backends.

    Example:

        rfaconv info
    """
    from rfaconv.models import encoder_names, model_names
    from rfaconv.tasks.recipe import recipe_names

    for name, value in machine().items():
        console.print(f"{name:<14} {value}", highlight=False, markup=False)
    console.print("\nconvolutions", style="bold")
    for name in conv_names():
        console.print(f"  {name:<10} {getattr(conv_factory(name), '__name__', 'of your own')}", highlight=False)
    console.print("\nmodels", style="bold")
    console.print(f"  {', '.join(model_names())}; encoders: {', '.join(encoder_names())}", highlight=False)
    console.print("\nrecipes", style="bold")
    console.print(f"  {', '.join(recipe_names())}", highlight=False)
    console.print("\nbackends, in the order in which `auto` asks them", style="bold")
    for backend in backends():
        console.print(f"  {backend.name:<10} {backend.description()}", highlight=False, markup=False)
