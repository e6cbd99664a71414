"""What a data check found, in lines for a terminal and as one HTML page with pictures in it."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from rfaconv.data.check import DataCheck, Part

_PICTURES = 12
_SIDE = 320
_COUNTED = {"classify": "images", "detect": "boxes", "segment": "images that show it"}
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --muted: #5b6570; --grid: #dfe3e8; --bad: #9c3d00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15191e; --ink: #e4e8ec; --muted: #98a3ae; --grid: #333b44; --bad: #ff9d63; }
}
body { margin: 0 auto; padding: 2rem 1.4rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--grid); }
th:first-child { text-align: left; }
.bad { color: var(--bad); font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; image-rendering: auto; } figcaption { font-size: .8rem; color: var(--muted); }
"""


def check_lines(check: DataCheck) -> list[str]:
    """What was found, a line each."""
    lines = [f"{check.task}: {check.layout}, {len(check.classes)} classes"]
    for part in check.parts:
        lines.append(f"{part.name}: {part.count:,} images, {sizes_said(part)}")
    lines.append(f"{_COUNTED[check.task]} of each class ({', '.join(part.name for part in check.parts)}):")
    for name in check.classes:
        lines.append(f"  {name}: " + ", ".join(f"{part.classes[name]:,}" for part in check.parts))
    if len(check.parts) > 1 and check.parts[0].files:
        lines.append(f"the same image in training and another part: {len(check.duplicates):,}")
        lines += [f"  {one} = {other}" for one, other in check.duplicates[:5]]
    return lines + list(check.notes)


def sizes_said(part: Part) -> str:
    """The images' sizes in a few words."""
    if not part.sizes:
        return "none that can be read"
    if len(part.sizes) == 1:
        [(width, height)] = part.sizes
        return f"all of {width} x {height} pixels"
    widths, heights = ([size[i] for size in part.sizes] for i in (0, 1))
    return f"{min(widths)} to {max(widths)} pixels wide, {min(heights)} to {max(heights)} high"


def check_page(check: DataCheck) -> str:
    """A self-contained HTML page: no script, nothing from elsewhere."""
    head = "".join(f"<th>{part.name}</th>" for part in check.parts)
    rows = "".join(
        f"<tr><th>{_swatch(check, i)}{escape(name)}</th>"
        f"{''.join(f'<td>{part.classes[name]:,}</td>' for part in check.parts)}</tr>"
        for i, name in enumerate(check.classes)
    )
    verdict = (
        f"<p class='bad'>Training would refuse it: {escape(check.refused)}</p>"
        if check.refused
        else "<p>Training would take it.</p>"
    )
    parts = "".join(f"<li>{part.name}: {part.count:,} images, {sizes_said(part)}</li>" for part in check.parts)
    twins = "".join(f"<li>{escape(one)} = {escape(other)}</li>" for one, other in check.duplicates[:50])
    notes = "".join(f"<li>{escape(line)}</li>" for line in check.notes)
    issues = "".join(f"<li>{escape(f'{issue.kind}: {issue}')}</li>" for issue in check.issues.items[:200])
    title = f"{check.root.name}: {check.task}"
    blocks = [
        ("What was understood", f"<p>{escape(check.layout)}, {len(check.classes)} classes</p><ul>{parts}</ul>"),
        (f"Classes: {_COUNTED[check.task]}", f"<table><tr><th></th>{head}</tr>{rows}</table>"),
        (f"The same image in training and another part: {len(check.duplicates):,}", f"<ul>{twins}</ul>"),
        ("Notes", f"<ul>{notes}</ul>" if notes else ""),
        (f"Issues: {len(check.issues.items):,}", f"<ul>{issues}</ul>" if issues else ""),
        *((f"Pictures: {part.name}", _pictures(part)) for part in check.parts),
    ]
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in blocks if content)
    return (
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
            "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'; "
            f'img-src data:"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
            f"<body><h1>{escape(title)}</h1>{verdict}{body}</body></html>\n"
        )
        .encode("utf-8", "backslashreplace")
        .decode()
    )


def _swatch(check: DataCheck, i: int) -> str:
    return f"<span style='color: rgb{check.colours[i]}'>&#9632;</span> " if check.colours else ""


def _pictures(part: Part) -> str:
    """Evenly chosen images with what is drawn on them."""
    step = max(1, part.count // _PICTURES)
    found = []
    for i in list(range(0, part.count, step))[:_PICTURES]:
        picture, said = part.draw(i)
        found.append(f"<figure><img alt='' src='{_source(picture)}'><figcaption>{escape(said)}</figcaption></figure>")
    return f"<div class='pictures'>{''.join(found)}</div>"


def _source(picture: Image.Image) -> str:
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
