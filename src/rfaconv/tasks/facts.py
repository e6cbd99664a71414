"""What every task's report says of its data and recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Protocol

from rfaconv.tasks.recipe import Recipe


class Data(Protocol):
    """What the data of all tasks have."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def train(self) -> Sized: ...

    @property
    def val(self) -> Sized: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def skipped(self) -> Sequence[str]: ...


def facts_of(data: Data, recipe: Recipe, more: Mapping[str, str]) -> dict[str, str]:
    """Data, recipe, `more` of the task's own, and what was left out, for people who want to repeat it."""
    fields = {name: value for name, value in recipe.as_dict().items() if value not in (None, [])}
    facts = {
        "data": f"{data.name}: {len(data.train):,} training and {len(data.val):,} validation images, "
        f"{len(data.classes)} classes",
        "data fingerprint": data.fingerprint,
        "recipe": ", ".join(f"{name} {value}" for name, value in fields.items()),
        **more,
    }
    if data.skipped:
        facts["left out as broken"] = f"{len(data.skipped)} images: {', '.join(data.skipped[:20])}"
    return facts
