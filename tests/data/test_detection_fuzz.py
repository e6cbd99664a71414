"""Damaged annotations by the thousand: a clear sentence or a clean read, never a traceback or a box gone in silence."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from forms import write_coco, write_voc, write_yolo

from rfaconv.data.detection import Converted, convert_detection
from rfaconv.errors import UserError

COUNT = 1000
"""Of each form."""
WORDS = [
    b"nan", b"-1", b"1e999", b"inf", b"0", b"", b"99999999999999999999999", b"\x00", b"\xff\xfe", b"<object>",
    b"</object>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&lt;", b"&b;", b"]]>", b"null", b"true", b'"x"', b"{}", b"[]",
    b"[[[[", b",", b"\n", b"0 0.5 0.5 0.2 0.2\n", b"\xe2\x80\xa8", b"cat", b"1_0", b"0x10", b"\\ud800",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to three damages: bytes turned, cut or doubled, numbers and words exchanged."""
    for _ in range(rng.randint(1, 3)):
        at, until = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        until = min(until, at + rng.choice((1, 4, 20, 200)))
        kind = rng.randrange(7)
        if kind == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[until:]
        elif kind == 2:
            data = data[:until] + data[at:]
        elif kind == 3:
            data = data[:at] + rng.choice(WORDS) + data[at:]
        elif kind == 4:
            data = data[:at]
        else:
            places = list(re.finditer(rb"-?\d+(\.\d+)?", data)) if kind == 5 else list(re.finditer(rb"[a-z]+", data))
            if places:
                found = rng.choice(places)
                data = data[: found.start()] + rng.choice(WORDS) + data[found.end() :]
        data = data or b" "
    return data


def objects(data: bytes) -> int:
    """Counted in another way than by the reader: opening tags outside of comments and CDATA."""
    text = re.sub(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>", b"", data, flags=re.DOTALL)
    return len(re.findall(rb"<object[\s/>]", text))


def annotations(data: bytes) -> int:
    def count(pairs: list[tuple[str, object]]) -> object:
        return {"n": sum(len(v) for k, v in pairs if k == "annotations" and isinstance(v, list))} | dict(pairs)

    return int(json.loads(data.decode("utf-8-sig"), object_pairs_hook=count)["n"])


def lines(data: bytes) -> int:
    return sum(1 for line in data.decode("utf-8-sig").splitlines() if line.strip())


def attempt(root: Path, out: Path, sentences: list[str], lenient: bool = False) -> Converted | None:
    try:
        return convert_detection(root, out, lenient=lenient)
    except UserError as error:
        sentences.append(str(error))
        return None


Write = Callable[[Path], Path]
Count = Callable[[bytes], int]


@pytest.mark.parametrize(
    ("write", "file", "count", "others"),
    [
        (write_voc, "train/c.xml", objects, 5),
        (write_coco, "train/_annotations.coco.json", annotations, 2),
        (write_yolo, "train/labels/c.txt", lines, 5),
    ],
    ids=["voc", "coco", "yolo"],
)
def test_damaged_annotations(write: Write, file: str, count: Count, others: int, tmp_path: Path) -> None:
    root = write(tmp_path / "source")
    whole = (root / file).read_bytes()
    rng = random.Random(0)
    clean = refused = repaired = 0
    sentences: list[str] = []
    for index in range(COUNT):
        data = mutated(whole, rng)
        (root / file).write_bytes(data)
        strict = attempt(root, tmp_path / f"{index}", sentences)
        done = strict or attempt(root, tmp_path / f"{index}", sentences, lenient=True)
        if done is None:
            refused += 1
            continue
        clean += strict is not None
        repaired += strict is None
        kept = sum(done.boxes.values())
        assert done.issues.found == kept + sum(done.issues.dropped.values()), data
        unread = any(issue.kind == "unreadable file" for issue in done.issues.items)
        assert done.issues.found == others + (0 if unread else count(data)), data
        if strict is not None:
            assert set(done.issues.dropped) <= {"difficult", "crowd"}, data
    assert min(clean, repaired) > 20
    assert clean + refused + repaired == COUNT
    assert all(sentence.strip() and "\n" not in sentence for sentence in sentences)
    assert len(sentences) >= repaired + refused
