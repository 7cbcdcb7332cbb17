# SPDX-License-Identifier: Apache-2.0
"""Reads StableDiffusionServices from YAML files with one or more documents; `-` is standard input."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sd_operator.api import KIND
from sd_operator.errors import InvalidResource, Problem, SdServiceError


@dataclass(frozen=True)
class Document:
    """One YAML document, and its place in the input for messages."""

    place: str
    body: dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, as the API server does. PyYAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}: remove one of them", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def services(path: str, namespace: str | None = None) -> list[Document]:
    """The StableDiffusionServices of a file. Documents of other kinds are ignored.

    Raises:
        InvalidResource: the file is not YAML, or has no StableDiffusionService.
        SdServiceError: the file cannot be read.
    """
    found = [document for document in _documents(path) if document.body.get("kind") == KIND]
    if not found:
        raise InvalidResource(path, (Problem("kind", None, f"{path} has no document of kind {KIND}"),))
    for document in found:
        metadata = document.body.setdefault("metadata", {})
        if namespace is not None and isinstance(metadata, dict):
            metadata.setdefault("namespace", namespace)
    return found


def _documents(path: str) -> Iterator[Document]:
    try:
        bodies = list(yaml.load_all(_read(path), Loader=_StrictLoader))
    except yaml.YAMLError as error:
        raise InvalidResource(path, (Problem("YAML", None, " ".join(str(error).split())),)) from error
    for number, body in enumerate(bodies, start=1):
        if body is None:
            continue
        place = f"{path}, document {number}"
        if not isinstance(body, dict):
            raise InvalidResource(place, (Problem("document", repr(body)[:80], "must be a mapping"),))
        yield Document(place, body)


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SdServiceError(f"cannot read {path}: {error}") from error
