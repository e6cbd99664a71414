"""XML from strangers: no document types, so no entities to expand and no files to fetch."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from rfaconv.data.annotations.claims import MalformedError
from rfaconv.data.files import file_head

_DEEPEST = 50


def parse_xml(data: bytes) -> Element:
    """The root element of an XML file's bytes.

    Raises:
        MalformedError: not well-formed, with a document type (of which only entities would come), or absurdly nested.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise MalformedError(f"its elements are nested more than {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise MalformedError("it declares a document type, which annotations do not need and are refused for")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except MalformedError:
        raise
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        raise MalformedError(f"it is no XML ({error})") from error


def xml_kind(path: Path) -> str:
    """Whose XML a file looks like: "cvat", "labelme", or else "voc"; nothing where it cannot be read."""
    head = file_head(path, 4000)
    if not head:
        return ""
    return "cvat" if b"<annotations" in head else "labelme" if b"<imagesize>" in head else "voc"
