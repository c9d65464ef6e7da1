"""YAML in which no key stands twice: PyYAML keeps the last one in silence, and loses the settings below the first."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.YAMLError):
    """A key stands twice in one mapping; the message names it and both lines."""


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which refuses a key that stands twice in one mapping with a `RepeatedKeyError`."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; here, because merge keys (`<<`) may repeat what they bring in later on."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            first, line = lines.get((key.tag, key.value)), key.start_mark.line + 1
            if first is not None:
                where = f"in lines {first} and {line}" if first != line else f"twice in line {line}"
                raise RepeatedKeyError(f"{key.value} stands {where}; keep one")
            lines[key.tag, key.value] = line
        return node


def parse_yaml(text: str) -> Any:
    """Read one document. Raises what `yaml.safe_load` raises, and RepeatedKeyError."""
    return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a safe loader
