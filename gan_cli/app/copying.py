"""``gan-train --copy model=dcgan DIR``: an option as files of the user's own, to be changed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from gan_cli.app.help import options_of
from gan_cli.config.names import nearest
from gan_cli.system.errors import ConfigError, OutputError, failing_as
from gan_cli.system.files import write_file

KINDS = ("model", "loss", "optimizer", "dataset", "augment", "schedule")
TARGET = re.compile(r"^( *)_target_: (gan_cli\.[\w.]+)\.(\w+)", re.MULTILINE)
KEPT = ("gan_cli.tasks.", "gan_cli.objective.")  # targets that the copy leaves as they are
CLASS = '''
class {name}({original}):
    """Your own {name}. It inherits everything: override what you want to change."""

    # def __init__(self, ...):      the arguments are the keys of the YAML; copy them from
    #     super().__init__(...)     {module}
    #
{hints}
'''
HINTS = {
    "model": "    # def forward(self, x):       see CONTRIBUTING.md, 'Add a model', for inputs and outputs\n"
    "    #     return super().forward(x)",
    "loss": "    # def discriminator(self, real_logits, fake_logits):    the loss of D, a scalar\n"
    "    #     return super().discriminator(real_logits, fake_logits)",
}
FUNCTION = '''
@wraps({original})
def {name}(*arguments, **options):
    """Your own {name}. Change what it returns, or write another one: its arguments are the keys of the YAML."""
    return {original}(*arguments, **options)
'''


def copy(arguments: Sequence[str], conf: Path) -> str:
    """Copy an option; return the command that trains with the copy.

    Args:
        arguments: ``GROUP=OPTION`` and a folder, which is made if it is missing. conf: the folder conf/.

    Raises:
        ConfigError: the arguments are wrong. OutputError: a file is there already, or cannot be written.
    """
    if len(arguments) != 2 or "=" not in arguments[0]:
        raise ConfigError("an option and a folder are needed", "--copy", "Write --copy model=dcgan DIR")
    group, _, option = arguments[0].partition("=")
    files = options_of([conf])
    if group not in KINDS or option not in files[group]:
        names = files[group] if group in KINDS else KINDS
        near = nearest(option if group in KINDS else group, names).strip() or f"Choose from: {', '.join(names)}"
        raise ConfigError("there is nothing to copy", arguments[0], near)
    text = files[group][option].read_text(encoding="utf-8")
    chosen = [match for match in TARGET.finditer(text) if not f"{match[2]}.".startswith(KEPT)]
    if not chosen:
        parent = re.search(r"^ *- (\w+)$", text, re.MULTILINE)
        todo = f"Copy {group}={parent[1]}, which it builds on" if parent else "Copy another one"
        raise ConfigError("this option names no class of its own", arguments[0], todo)
    folder, name = Path(arguments[1]).expanduser(), f"my_{option}"
    module, yaml = folder / f"{name}.py", folder / "conf" / group / f"{name}.yaml"
    for path in (module, yaml):
        if path.exists():
            raise OutputError("this file is there already", str(path), "Choose another folder")
    text = TARGET.sub(lambda m: m[0] if f"{m[2]}.".startswith(KEPT) else f"{m[1]}_target_: {name}.{m[3]}", text)
    text = text.replace(f"# gan-train {group}={option}", f"# gan-train --config-dir conf {group}={name}")
    with failing_as(OutputError, "the copy cannot be written", str(folder), "Choose another folder"):
        yaml.parent.mkdir(parents=True, exist_ok=True)
        write_file(yaml, text)
        write_file(module, skeleton(group, option, [(match[2], match[3]) for match in chosen]))
    start = f"cd {shlex.quote(str(folder))} && " if folder.resolve() != Path.cwd() else ""
    return f"written: {module}, {yaml}\ntrain with them: {start}gan-train --config-dir conf {group}={name}"


def skeleton(group: str, option: str, targets: Sequence[tuple[str, str]]) -> str:
    """The Python file: a subclass of each class, and a function around each function."""
    imports, parts = [], []
    for module, name in dict.fromkeys(targets):
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin else ""
        is_class = re.search(rf"^class {name}\b", source, re.MULTILINE) is not None
        original = f"Original{name}" if is_class else f"original_{name}"
        imports.append(f"from {module} import {name} as {original}")
        hints = HINTS.get(group, "    # def ...")
        form = CLASS if is_class else FUNCTION
        parts.append(form.format(name=name, original=original, module=module.replace(".", "/") + ".py", hints=hints))
    if any("@wraps" in part for part in parts):
        imports.insert(0, "from functools import wraps\n")
    title = f'"""A copy of {group}={option} to change. CONTRIBUTING.md of gan_cli says what each part must do."""\n'
    return "\n".join([title, *imports, *parts])
