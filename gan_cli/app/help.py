"""``--help``: a line for each key and each option. The text is that of the comments in the YAML files."""

from __future__ import annotations

import json
import re
import shutil
import string
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from gan_cli.config import schema
from gan_cli.config.names import nearest
from gan_cli.config.plain import flatten
from gan_cli.system.errors import ConfigError

KEY_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(# ?(?P<comment>.*))?")
MORE_LINE = re.compile(r" *#  +(?P<comment>.*)")  # continues the comment of the line above
MAX_VALUE = 60  # characters of a value
LEFT_COLUMNS = 26  # of the name, before its description


def page(
    folders: Sequence[Path],
    config_name: str,
    cls: type,
    compose: Callable[[], DictConfig],
    *,
    topics: Sequence[str],
    given: Sequence[str],
) -> str:
    """The help of a command, or of the groups in ``topics``.

    Args:
        folders: with YAML files, those of the user last. cls: dataclass of the top-level keys.
        compose: composes the config with the overrides of the command line.
        given: these overrides; a single ``loss=hinge`` is the topic ``loss``.

    Raises:
        ConfigError: there is no such group.
    """
    groups = options_of(folders)
    config = compose()
    template = config.hydra.help.template
    choices = config.hydra.runtime.choices
    plain: Any = OmegaConf.to_container(config, resolve=False)
    plain.pop("hydra")
    if not topics and len(given) == 1 and given[0].partition("=")[0] in groups:
        topics = [given[0].partition("=")[0]]
    if topics:
        return "\n\n".join(_group(topic, groups, plain, choices.get(topic)) for topic in topics)
    comments = comments_in((folders[0] / f"{config_name}.yaml").read_text(encoding="utf-8"))
    kinds = {field.name: get_type_hints(cls, include_extras=True)[field.name] for field in fields(cls)}
    own = {key: value for key, value in flatten(plain).items() if key.split(".")[0] not in groups and "_target_" not in key}
    lines = _lines((f"{k}={_shown(v)}", _sentence(comments.get(k, ""), kinds.get(k))) for k, v in own.items())
    listed = [f"{name}={choices.get(name) or 'null'}\n" + _options(groups[name]) for name in groups if name in choices]
    return string.Template(template).safe_substitute(KEYS=lines, GROUPS="\n\n".join(listed))


def options_of(folders: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """The YAML file of each option of each group."""
    groups: dict[str, dict[str, Path]] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*/*.yaml"))):
        if file.parent.name != "hydra":
            groups.setdefault(file.parent.name, {})[file.stem] = file
    return dict(sorted(groups.items()))


def description(file: Path) -> str:
    """The comment at the top of a YAML file, without the line that names its package and the examples."""
    lines = []
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not re.match(r"# (@package|gan-)", line):
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def comments_in(text: str) -> dict[str, str]:
    """The comments of a YAML text by dotted key."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    last = ""
    for line in text.splitlines():
        match = KEY_LINE.fullmatch(line)
        if match:
            depth = len(match["indent"])
            parents = [(d, name) for d, name in parents if d < depth]
            last = ".".join([*(name for _, name in parents), match["key"]])
            parents.append((depth, match["key"]))
            found[last] = match["comment"] or ""
        elif (more := MORE_LINE.fullmatch(line)) and last:
            found[last] += f" {more['comment']}"
    return found


def _group(name: str, groups: dict[str, dict[str, Path]], plain: dict[str, Any], chosen: str | None) -> str:
    """The options of a group, and the keys of the chosen one."""
    if name not in groups:
        near = nearest(name, groups).strip() or f"The groups are: {', '.join(groups)}"
        raise ConfigError("there is no such group", f"--help {name}", near)
    page = f"{name}=OPTION\n" + _lines((option, description(file)) for option, file in groups[name].items())
    node = plain.get(name)
    keys = flatten(node) if isinstance(node, dict) and node else {}  # options of other groups set keys of the whole config
    comments = {
        k.removeprefix(f"{name}."): v for f in groups[name].values() for k, v in comments_in(f.read_text()).items() if v
    }
    rows = []
    for key, value in keys.items():
        node = plain[name]
        for part in key.split(".")[:-1]:
            node = node[part]
        known = (schema.parameters(node["_target_"]) or {}) if isinstance(node, dict) and node.get("_target_") else {}
        last = key.rpartition(".")[2]
        kind = known[last].type if last in known else None
        text_of = (
            str(node["_target_"] or "") if last == "_target_" else _sentence(comments.get(key) or comments.get(last, ""), kind)
        )
        rows.append((f"{name}.{key}" + ("" if last == "_target_" else f"={_shown(value)}"), text_of))
    if rows:
        page += f"\n\nkeys with {name}={chosen} (of another: --help {name} {name}=OPTION)\n" + _lines(rows)
    return page


def _options(files: dict[str, Path]) -> str:
    """A line for each option of a group."""
    width = _width() - LEFT_COLUMNS
    return _lines((name, textwrap.shorten(description(file), width, placeholder=" ...")) for name, file in files.items())


def _sentence(comment: str, kind: Any) -> str:
    """A comment, and the values that are allowed where it does not list them."""
    wanted = schema.describe(kind) if kind is not None and "|" not in comment else ""
    is_told = wanted in ("", "text", "text or null", "true or false", "a section of keys") or "any of" in comment
    return comment if is_told else "; ".join(part for part in (comment, wanted) if part)


def _shown(value: Any) -> str:
    """A value as a command line has it; a long list is left out."""
    text = json.dumps(value) if isinstance(value, list | bool | None) else str(value)
    return text if len(text) <= MAX_VALUE else "[...]"


def _lines(rows: Iterable[tuple[str, str]]) -> str:
    """Names, each with its description in a second column."""
    lines = []
    for name, text in rows:
        first, *others = textwrap.wrap(text, _width() - LEFT_COLUMNS) or [""]
        start = f"  {name}".ljust(LEFT_COLUMNS)
        lines += [start + first] if start.endswith(" ") else [start, " " * LEFT_COLUMNS + first]
        lines += [" " * LEFT_COLUMNS + line for line in others]
    return "\n".join(line.rstrip() for line in lines)


def _width() -> int:
    return min(100, max(60, shutil.get_terminal_size((80, 24)).columns))
