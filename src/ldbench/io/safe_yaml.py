"""Untrusted YAML, validated before it is loaded: nested aliases can expand to more than the memory holds.

[0] YAML 1.2, section 7.1: alias nodes, https://yaml.org/spec/1.2.2/
"""

from pathlib import Path

import yaml

LARGEST = 1_000_000  # bytes
MOST_ALIASES = 30  # ten in a row of ten each would be a billion
DEEPEST = 50


def validate_file(path: Path) -> None:
    """Raises ValueError, naming the file and the line, unless the file is a plain YAML mapping."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file. Remove it.")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size} bytes; the limit for a config is {LARGEST}. Remove it.")
    try:
        validate_text(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is not safe to read as a config: {message[:300]}. Correct it, or remove it."
        ) from error


def validate_text(text: str) -> None:
    """Raises ValueError for language-specific tags, many aliases, deep nesting, duplicate keys,
    and for other than a mapping.
    """
    aliases = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"in line {event.start_mark.line + 1}"
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MOST_ALIASES:
            raise ValueError(f"more than {MOST_ALIASES} aliases, {where}")
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep, {where}")
        tag = getattr(event, "tag", None)
        if (tag and not tag.startswith("tag:yaml.org,2002:")) or "python" in (tag or ""):
            raise ValueError(f"the tag {ascii(tag)[:60]}, {where}: a config holds plain strings and numbers")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and not isinstance(root, yaml.MappingNode) and root.tag != "tag:yaml.org,2002:null":
        raise ValueError(f"a {root.id} where keys with values are expected")
    validate_keys(root)


def validate_keys(node: yaml.Node | None) -> None:
    """Raises ValueError for a duplicate key in any mapping below a node."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        duplicates = [key for key in keys if keys.count(key) > 1]
        if duplicates:
            raise ValueError(
                f"the duplicate key {ascii(duplicates[0])[:60]}, in line {node.start_mark.line + 1} and below"
            )
        for _, value in node.value:
            validate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            validate_keys(value)
