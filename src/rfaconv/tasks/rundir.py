"""Folders of runs: what each is for is written in it, so that a second start goes on with the same thing or refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfaconv.errors import UserError
from rfaconv.files import file_hash, write_text
from rfaconv.tasks.results import RunResult

MODEL = "model.safetensors"


def claim(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write into `folder` what it is for (`facts`, plain JSON data), or check that it is for just that.

    Raises:
        UserError: the folder holds something else; the message names the first fact that differs.
    """
    path = folder / "plan.json"
    wanted = json.loads(json.dumps(facts))
    if not path.exists():
        if folder.exists() and not folder.is_dir():
            raise UserError(f"'{folder}' is a file; choose another --out.")
        write_text(path, json.dumps(wanted, indent=2) + "\n")
        return
    found = read_json(path)
    difference = _first_difference(found, wanted)
    if difference:
        raise UserError(f"'{folder}' holds another run: {difference}. Choose another --out, or delete that folder.")


def write_result(run_dir: Path, result: RunResult, **more: Any) -> None:
    """Write result.json, with `more` of the task's own in it: from here on the run is finished."""
    model = run_dir / MODEL
    record = {
        "of": config_digest(read_json(run_dir / "plan.json")),
        "model_sha256": file_hash(model) if model.exists() else None,
        "diverged": result.diverged,
        "conv": result.conv,
        "seed": result.seed,
        "metrics": dict(result.metrics),
        "seconds": result.seconds,
        "curves": dict(result.curves),
        **more,
    }
    write_text(run_dir / "result.json", json.dumps(record) + "\n")


def read_result(run_dir: Path) -> RunResult:
    """The result of a finished run, which must be of the configuration in plan.json and have its model beside it.

    Raises:
        UserError: result.json is damaged or another run's, or the model file is not the one that was trained.
    """
    path, model = run_dir / "result.json", run_dir / MODEL
    found, config = read_json(path), read_json(run_dir / "plan.json")
    try:
        result = RunResult(
            found["conv"], int(found["seed"]), {**found["metrics"]}, {**found["curves"]}, float(found["seconds"]),
            found["diverged"],
        )  # fmt: skip
        of, digest = found["of"], found["model_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({error!r}); delete the folder '{run_dir}' and run again.") from error
    if of != config_digest(config):
        raise UserError(f"'{path}' is another run's result; delete the folder '{run_dir}' and run again.")
    if digest is not None and (not model.is_file() or file_hash(model) != digest):
        raise UserError(f"'{model}' is not the model that was trained; delete the folder '{run_dir}' and run again.")
    return result


def config_digest(config: Any) -> str:
    """A short name of a run's configuration, the same for equal ones."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    """What `path` holds; a UserError names a file that is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); delete it and run again.") from error


def _first_difference(found: Any, wanted: Any, name: str = "") -> str | None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *found]:
            inner = _first_difference(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if found == wanted else f"{name or 'plan.json'} is {found!r} there and {wanted!r} here"
