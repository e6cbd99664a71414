"""Scenes with exact boxes and masks: real pictures of clothing, pasted onto real photographs by a seeded program."""

from __future__ import annotations

from rfaconv.data.scenes.load import SCENE_CLASSES, SceneData, Scenes, load_scenes, render_scenes

__all__ = ["SCENE_CLASSES", "SceneData", "Scenes", "load_scenes", "render_scenes"]
