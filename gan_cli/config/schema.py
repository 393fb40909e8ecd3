"""The schema of a config node: the signature of the class or function that it names.

``parameters("gan_cli.networks.dcgan.Generator")`` parses the source instead of importing it, so that a mistake in a
config is reported without loading torch. Targets outside the package are imported and inspected.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gan_cli import ranges
from gan_cli.config.names import nearest
from gan_cli.system.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
NAMES = {**vars(ranges), "Literal": Literal, "Any": Any, "Sequence": Sequence}  # namespace for annotations of every module
IMPORT_ADVICE = "Check the spelling; your own class must lie in the current directory, on PYTHONPATH or in an installed package"


class _Opaque(type):
    """Metaclass of :class:`Built`: its attributes and subscripts are :class:`Built` too, for ``nn.Module`` and the like."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class Built(metaclass=_Opaque):
    """Placeholder for any class: an argument that a ``_target_`` node builds."""


@dataclass(frozen=True)
class Parameter:
    """An argument: its type (:class:`Built` for an object, ``Any`` without an annotation) and whether it is required."""

    type: Any
    required: bool


@cache
def parameters(target: str) -> dict[str, Parameter] | None:
    """The arguments of the class or function with this dotted name, or None when it takes any keyword.

    Raises:
        ConfigError: the module, class or function does not exist.
    """
    module, _, name = target.rpartition(".")
    if not all(target.split(".")) or not module:
        raise ConfigError(f"{shown(target)} is not the dotted name of a class", "_target_", "Write module.Class")
    if module.split(".")[0] == "gan_cli":
        source = _Source.of(module)
        if name not in source.definitions:
            near = nearest(name, source.definitions).strip() or "Check the spelling"
            raise ConfigError(f"there is no {target!r}", "_target_", near)
        return source.parameters(name)
    try:
        importlib.import_module(module.split(".")[0])
        obj = locate(target)
    except Exception as error:  # a user's module may raise anything
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{target!r} cannot be imported: {reason}", "_target_", IMPORT_ADVICE) from error
    return _from_object(obj)


def locate(target: str) -> Any:
    """Import the object of a dotted name: the longest importable module, then attributes."""
    parts = target.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:n])
        try:
            obj: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                continue
            raise
        for part in parts[n:]:
            obj = getattr(obj, part)
        return obj
    raise ImportError(f"no module named {parts[0]!r}")


class _Source(dict[str, Any]):
    """A module of the package, parsed but not imported: a namespace to evaluate its annotations in.

    Attributes:
        definitions: classes and functions. aliases: values of top-level assignments. imports: (module, name) by local name.
    """

    def __init__(self, module: str) -> None:
        super().__init__(NAMES)
        self.module = module
        file = PACKAGE.joinpath(*module.split(".")[1:])
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        body = ast.parse(file.read_text()).body if file.is_file() else []
        body = [*body, *(inner for node in body if isinstance(node, ast.If) for inner in node.body)]  # if TYPE_CHECKING:
        self.definitions = {n.name: n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        self.aliases = {
            n.targets[0].id: n.value for n in body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        }
        self.imports = {
            alias.asname or alias.name: (n.module if isinstance(n, ast.ImportFrom) else None, alias.name)
            for n in body
            if isinstance(n, ast.Import | ast.ImportFrom)
            for alias in n.names
        }

    @staticmethod
    @cache
    def of(module: str) -> _Source:
        """The parsed module of a dotted name."""
        return _Source(module)

    def __missing__(self, name: str) -> Any:
        """The type of a name of the module.

        Raises:
            KeyError: the module defines and imports no such name.
        """
        value: Any = Built
        if name in self.aliases:
            value = self.type_of(self.aliases[name])
        elif name in self.imports:
            module, original = self.imports[name]
            if module is not None and module.split(".")[0] == "gan_cli":
                source = _Source.of(module)
                value = source[original] if original in source.aliases else Built
        elif name not in self.definitions:
            raise KeyError(name)
        self[name] = value
        return value

    def type_of(self, annotation: ast.expr | None) -> Any:
        """The type of an annotation.

        Raises:
            NameError: the module neither defines nor imports one of its names.
        """
        if annotation is None:
            return Any
        text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
        return eval(str(text), {}, self)  # only source of this package

    def parameters(self, name: str) -> dict[str, Parameter] | None:
        """The arguments of a class or function; None when it takes any keyword."""
        node = self.definitions[name]
        if isinstance(node, ast.FunctionDef):
            return self._arguments(node.args, skip=0)
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return self._arguments(item.args, skip=1)
        found: dict[str, Parameter] = {}
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self.definitions:
                found |= self.parameters(base.id) or {}
        optional = any(keyword.arg == "total" for keyword in node.keywords)  # class Options(TypedDict, total=False)
        if optional or any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    found[item.target.id] = Parameter(self.type_of(item.annotation), item.value is None and not optional)
        return found

    def _arguments(self, args: ast.arguments, skip: int) -> dict[str, Parameter] | None:
        shared: dict[str, Parameter] | None = {}
        if args.kwarg is not None:
            shared = self._unpacked(args.kwarg.annotation)
        if shared is None:
            return None
        positional = [*args.posonlyargs, *args.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
        pairs = [*zip(positional, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)][skip:]
        return {a.arg: Parameter(self.type_of(a.annotation), default is None) for a, default in pairs} | shared

    def _unpacked(self, annotation: ast.expr | None) -> dict[str, Parameter] | None:
        """The arguments behind ``**options: Unpack[Options]``; None for any other ``**options``."""
        match annotation:
            case ast.Subscript(value=ast.Name(id="Unpack"), slice=ast.Name(id=name)):
                module = self.module if name in self.definitions else self.imports[name][0]
                return _Source.of(str(module)).parameters(name)
        return None


def _from_object(obj: Any) -> dict[str, Parameter] | None:
    try:
        signature = inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    kinds = [p.kind for p in signature.parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    names = {**NAMES, **vars(sys.modules.get(getattr(obj, "__module__", ""), ranges))}
    return {
        name: Parameter(_type(p.annotation, names), p.default is inspect.Parameter.empty)
        for name, p in signature.parameters.items()
        if p.kind is not inspect.Parameter.VAR_POSITIONAL
    }


def _type(annotation: Any, names: dict[str, Any]) -> Any:
    if isinstance(annotation, str):
        try:
            return eval(annotation, names)  # an annotation of the user's class
        except Exception:
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation


def check(node: dict[str, Any], path: str, injected: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Check a ``_target_`` node and those inside it; return it with its values converted to the annotated types.

    Args:
        node: plain data, interpolations resolved.
        path: dotted key of the node, for messages.
        injected: arguments that the program adds; the config may omit them.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    try:
        known = parameters(str(node["_target_"]))
    except ConfigError as error:
        raise ConfigError(error.what, f"{path}._target_", error.todo) from error
    for name in node:
        if str(name).startswith("_") and name != "_target_":
            raise ConfigError(f"{name!r} is not used here", f"{path}.{name}", "Leave it out")
    if known is None:
        return node
    label = str(node["_target_"]).rsplit(".", 1)[-1]
    for name, parameter in known.items():
        if parameter.required and name not in node and name not in injected:
            raise ConfigError(f"{label} needs this value", f"{path}.{name}", f"Set {path}.{name}=VALUE")
    return {k: v if k.startswith("_") else _argument(v, k, known, label, path) for k, v in node.items()}


def _argument(value: Any, name: str, known: dict[str, Parameter], label: str, path: str) -> Any:
    if name not in known:
        todo = nearest(name, known).strip() or f"{label} takes: {', '.join(known) or 'nothing'}"
        raise ConfigError(f"{label} has no argument {name!r}", f"{path}.{name}", todo)
    return convert(value, known[name].type, f"{path}.{name}")


def check_fields(values: dict[str, Any], cls: type, path: str = "", words: Iterable[str] = ()) -> dict[str, Any]:
    """Check a plain section against the fields of a dataclass. Result and errors are those of :func:`check`.

    ``words``: keys of other sections, as further suggestions for an unknown key.
    """
    assert is_dataclass(cls)
    hints = get_type_hints(cls, include_extras=True)
    known = {f.name: hints[f.name] for f in fields(cls)}
    for key in values:
        if key not in known:
            todo = nearest(key, [*known, *words]).strip() or f"The keys here are: {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r}", path + key, todo)
    for key in known:
        if key not in values:
            raise ConfigError("this key is missing", path + key, f"Set {path}{key}=VALUE")
    return {key: convert(value, known[key], path + key) for key, value in values.items()}


def convert(value: Any, kind: Any, path: str) -> Any:
    """Convert ``value`` to the type ``kind`` and check its range. Nested ``_target_`` nodes are checked.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    if isinstance(value, dict) and "_target_" in value and _may_be_built(kind):
        return check(value, path)
    try:
        return _convert(value, kind, path)
    except TypeError:
        raise ConfigError(f"{shown(value)} is not {describe(kind)}", path, f"Set {path} to {describe(kind)}") from None


def _may_be_built(kind: Any) -> bool:
    """Whether a ``_target_`` node may give a value of this type: objects only."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(_may_be_built(option) for option in get_args(kind))
    if get_origin(kind) is Annotated:
        return _may_be_built(get_args(kind)[0])
    return get_origin(kind) not in (Literal, dict) and kind not in (int, float, str, bool, None, type(None))


def _convert(value: Any, kind: Any, path: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value = _convert(value, args[0], path)
        if value not in args[1]:
            raise TypeError
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for option in args:
            try:
                return _convert(value, option, path)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal:
        for option in args:
            if value == option and isinstance(value, bool) == isinstance(option, bool):
                return option
        near = nearest(str(value), [str(a) for a in args]).strip()
        todo = f"Choose {describe(kind)}" + (f". {near}" if near else "")
        raise ConfigError(f"{shown(value)} is not an option", path, todo)
    if origin in (list, tuple, Sequence):
        is_sized = origin is tuple and args[-1] is not ...
        if isinstance(value, str | int | float) and not isinstance(value, bool) and not is_sized:
            return [convert(value, args[0], path)]  # metrics=fid
        if not isinstance(value, list | tuple):
            raise TypeError
        if is_sized:
            if len(value) != len(args):
                raise TypeError
            return [convert(v, a, f"{path}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True))]
        return [convert(v, args[0], f"{path}[{i}]") for i, v in enumerate(value)]
    if kind is bool or kind is None or kind is type(None):
        if value is None if kind is not bool else isinstance(value, bool):
            return value
        raise TypeError
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise TypeError
        return int(value)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if kind is str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        return str(value)
    if kind is Built or (origin is dict and not isinstance(value, dict)):
        raise TypeError
    if origin is dict and args and args[1] is not Any:
        return {name: convert(item, args[1], f"{path}.{name}") for name, item in value.items()}
    if isinstance(kind, type) and isinstance(value, str | int | float | list) and not isinstance(value, kind):
        raise TypeError
    return value


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]}... ({len(text):,} characters)"


def describe(kind: Any) -> str:
    """A type in words: ``a number > 0``, ``a whole number >= 1, or null``."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = str(args[1])
        return limits if limits.startswith("a ") else f"{describe(args[0])} {limits}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(str(a).lower() if isinstance(a, bool) else str(a) for a in args)
    if origin is tuple and args[-1] is not ...:
        return f"a list of {len(args)}, each {describe(args[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list, each {describe(args[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if kind in words:
        return words[kind]
    if origin is dict:
        return "a section of keys"
    if kind is Built:
        return "an object given by a _target_"
    return f"a {getattr(kind, '__name__', kind)} given by a _target_"
