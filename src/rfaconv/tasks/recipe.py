"""How a model is trained: a small YAML file, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import yaml

from rfaconv.errors import UserError, unknown_name

R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training but the model, the data and the seed. SGD throughout.

    Attributes:
        epochs: how often every image is seen.
        batch_size: images a step, over all processes together.
        image_size: side in pixels the images are brought to; None is the data's own size.
        augment: preset of `rfaconv.data.build_transform` for training: imagenet, small, flip or none.
        eval_transform: preset for evaluation: resize (the paper's) or resize256 (the usual protocol).
        lr, momentum, nesterov, weight_decay: SGD's.
        schedule: "step" (times 0.1 after each of `milestones`, in epochs), "cosine" (to 0 over the run),
            "poly" (to 0 over the run, by DeepLab's power of 0.9) or "constant".
        warmup_epochs: the learning rate rises linearly over this many epochs first.
        label_smoothing: of the cross-entropy.
        gradient_clip: largest norm of the gradient; None does not clip.
        ema_decay: evaluate an exponential moving average of the weights with this decay; None evaluates the weights.
        precision: Lightning's: "32-true", "bf16-mixed" or "16-mixed".
    """

    epochs: int
    batch_size: int
    augment: str
    eval_transform: str
    lr: float
    image_size: int | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    precision: str = "32-true"

    folder: ClassVar[str] = ""
    """Where in the package's recipes those of this kind are."""
    presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "augment": ("imagenet", "small", "flip", "none"),
        "eval_transform": ("resize", "resize256"),
    }

    def __post_init__(self) -> None:
        choices = {
            "schedule": ("step", "cosine", "poly", "constant"),
            "precision": ("32-true", "bf16-mixed", "16-mixed"),
            **self.presets,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                unknown_name(f"{name} of the recipe", str(getattr(self, name)), known)
        for name, least in (("epochs", 1), ("batch_size", 1), ("lr", 0), ("warmup_epochs", 0), ("weight_decay", 0)):
            if not least <= getattr(self, name) < float("inf"):  # so written that nan is refused too
                raise UserError(f"The recipe's {name} must be finite and at least {least}, got {getattr(self, name)}.")
        for name in ("momentum", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not (0 < value < 1 or (value == 0 and name != "ema_decay")):
                raise UserError(f"The recipe's {name} must lie between 0 and 1, got {value}.")
        for name, least in (("image_size", 1), ("gradient_clip", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise UserError(f"The recipe's {name} must be finite and at least {least}, got {value}.")
        if any(milestone < 1 for milestone in self.milestones):
            raise UserError(f"The recipe's milestones are epochs, 1 or later, got {list(self.milestones)}.")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "milestones": list(self.milestones)}

    def changed(self: R, changes: Mapping[str, Any]) -> R:
        """This recipe with some fields changed; a UserError names an unknown field or a value of the wrong kind."""
        return replace(self, **{name: _checked(type(self), name, value) for name, value in changes.items()})


def recipe_names(kind: type[Recipe] = Recipe) -> list[str]:
    """The recipes of that kind that come with the package."""
    folder = resources.files("rfaconv.tasks") / "recipes" / kind.folder
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str, kind: type[R] = Recipe) -> R:  # type: ignore[assignment]
    """The recipe of that name and kind, or from that YAML file."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"There is no recipe file '{name}'; recipes by name: {', '.join(recipe_names(kind))}.")
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The recipe '{name}' cannot be read as text: {error}.") from error
    elif name in recipe_names(kind):
        text = (resources.files("rfaconv.tasks") / "recipes" / kind.folder / f"{name}.yaml").read_text("utf-8")
    else:
        unknown_name("recipe", name, recipe_names(kind))
    return parse_recipe(text, name, kind)


def parse_recipe(text: str, source: str, kind: type[R] = Recipe) -> R:  # type: ignore[assignment]
    """A recipe from YAML; errors name `source`."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The recipe '{source}' is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict):
        raise UserError(f"The recipe '{source}' must be a list of 'name: value' lines.")
    values = {str(name): _checked(kind, str(name), value) for name, value in found.items()}
    required = ("epochs", "batch_size", "augment", "eval_transform", "lr")
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"The recipe '{source}' lacks {', '.join(missing)}.")
    return kind(**values)


def parse_setting(setting: str, kind: type[Recipe] = Recipe) -> tuple[str, Any]:
    """("lr", 0.05) from "lr=0.05", as given to --set."""
    name, equals, value = setting.partition("=")
    if not equals:
        raise UserError(f"--set takes name=value, e.g. --set lr=0.05; got '{setting}'.")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {name}: '{value}' is no valid value.") from error
    return name.strip(), _checked(kind, name.strip(), found)


def _checked(kind: type[Recipe], name: str, value: Any) -> Any:
    """`value` as the field's type: numbers as floats where the field is one, lists as tuples."""
    names = [field.name for field in fields(kind)]
    if name not in names:
        unknown_name("field of the recipe", name, names)
    hint = get_type_hints(kind)[name]
    kinds = tuple(kind for kind in get_args(hint) if isinstance(kind, type)) or (hint,)
    if name == "milestones":
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif float in kinds and _number(value) is not None:
        return _number(value)
    elif type(value) in kinds:
        return value
    expected = " or ".join("nothing (null)" if kind is type(None) else kind.__name__ for kind in kinds)
    expected = "a list of int" if name == "milestones" else expected
    raise UserError(f"The recipe's {name} must be {expected}, got {value!r}.")


def _number(value: Any) -> float | None:
    """YAML 1.1 reads 1e-4 as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
