"""YAML of anybody, looked at before it is loaded: aliases may stand for more than memory holds.

[0] YAML 1.2, section 7.1: alias nodes, https://yaml.org/spec/1.2.2/
"""

from pathlib import Path

import yaml

LARGEST = 1_000_000  # bytes
MOST_ALIASES = 30  # ten in a row of ten each would be a billion
DEEPEST = 50


def check(path: Path) -> None:
    """Raises ValueError, naming the file and the line, for what is no plain mapping in YAML."""
    if not path.is_file():
        raise ValueError(f"{path} is no file. Remove it.")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size} bytes, and no config has more than {LARGEST}. Remove it.")
    try:
        look(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is no config that is safe to read: {told[:300]}. Set it right, or remove it."
        ) from error


def look(text: str) -> None:
    """Raises ValueError for tags of other languages, for many aliases, for endless nesting, for keys told twice, and for what is no mapping."""
    aliases = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"in line {event.start_mark.line + 1}"
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MOST_ALIASES:
            raise ValueError(f"more than {MOST_ALIASES} aliases, {place}")
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep, {place}")
        tag = getattr(event, "tag", None)
        if (tag and not tag.startswith("tag:yaml.org,2002:")) or "python" in (tag or ""):
            raise ValueError(f"the tag {ascii(tag)[:60]}, {place}: a config holds plain words and numbers")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and not isinstance(root, yaml.MappingNode) and root.tag != "tag:yaml.org,2002:null":
        raise ValueError(f"a {root.id} where keys with values are expected")
    check_keys(root)


def check_keys(node: yaml.Node | None) -> None:
    """Raises ValueError for a mapping, anywhere, whose key stands twice."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(
                f"the key {ascii(twice[0])[:60]} stands twice, in line {node.start_mark.line + 1} and below"
            )
        for _, value in node.value:
            check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            check_keys(value)
