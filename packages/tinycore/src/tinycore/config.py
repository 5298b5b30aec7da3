"""Strict loading of plain mappings into frozen dataclasses, and back.

A configuration is a tree of frozen dataclasses. `load` accepts what YAML and JSON can hold (mappings, lists, strings,
numbers, booleans, null) and refuses everything else in one line that names the dotted key and the nearest valid name:
an unknown key, an unknown kind, a wrong type, a missing value. Nothing is silently ignored or converted, except that an
integer is a valid float and a string such as "1e-3" (which YAML 1.1 does not read as a number) is taken as one.

A *family* is a set of interchangeable components; a member's config names itself by its `kind`:

    class MixerConfig(Family): ...                       # the family
    class Config(MixerConfig, kind="attention"): ...     # a member

A dataclass checks its own fields in `__post_init__` by raising `ConfigError("key: what is wrong")`; the loader puts the
path in front.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, Union

T = TypeVar("T")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that starts with the dotted key."""


class Family:
    """Base of every family of components.

    Direct subclasses are families; their subclasses register themselves under `kind`. `tag` is the key that holds the
    kind (`kind` unless the literature has a better word), `default` the kind of a mapping that names none. In a *keyed*
    family (`keyed = True`) a `dict[str, Member]` field takes each key as the kind of its value. `exempt` names the
    invariants (`tinycore.testing`) that do not hold for a member, with the reason for each.
    """

    tag: ClassVar[str] = "kind"
    default: ClassVar[str | None] = None
    keyed: ClassVar[bool] = False
    exempt: ClassVar[Mapping[str, str]] = types.MappingProxyType({})
    kind: ClassVar[str]
    members: ClassVar[dict[str, type[Family]]]

    def __init_subclass__(cls, kind: str | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if Family in cls.__bases__:
            cls.members = {}
            return
        if kind is None:
            raise TypeError(f"{cls.__qualname__} belongs to a family and needs kind=...")
        if kind in cls.members:
            raise TypeError(f"{cls.__qualname__}: kind '{kind}' is already {cls.members[kind].__qualname__}")
        cls.kind = kind
        cls.members[kind] = cls


def load(cls: type[T], value: object, path: str = "") -> T:
    """Build `cls` (a dataclass, a family or any supported annotation) from plain data.

    Raises ConfigError naming the dotted key below `path`.
    """
    try:
        return _load(cls, value, path)
    except RecursionError:
        raise ConfigError(f"{path or 'config'}: nested too deeply") from None


def dump(value: object) -> Any:
    """The inverse of `load`: plain data of JSON types, every field written out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        if isinstance(value, Family):
            return {type(value).tag: type(value).kind, **fields}
        return fields
    if isinstance(value, Mapping):
        return {str(key): _dump_entry(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [dump(item) for item in value]
    return value


def _dump_entry(item: object) -> Any:
    plain = dump(item)
    if isinstance(item, Family) and type(item).keyed:
        plain.pop(type(item).tag)
    return plain


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """The resolved annotation of every field that may be given to the dataclass `cls`, in order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def unknown(path: str, word: str, name: str, valid: typing.Iterable[str]) -> ConfigError:
    """The error for a name that is not one of `valid`, with the nearest one."""
    options = sorted(valid)
    near = difflib.get_close_matches(name, options, n=1)
    hint = (
        f"; did you mean '{near[0]}'?" if near else (f"; valid: {', '.join(options)}" if options else "; none exists")
    )
    return ConfigError(f"{path or 'config'}: unknown {word} '{name}'{hint}")


def _load(annotation: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        return _load_union(annotation, value, path)
    if origin is Literal:
        return _load_literal(annotation, value, path)
    if origin is tuple:
        return _load_tuple(annotation, value, path)
    if origin is dict:
        return _load_dict(annotation, value, path)
    if isinstance(annotation, type) and issubclass(annotation, Family) and Family in annotation.__bases__:
        return _load_member(annotation, value, path)
    if dataclasses.is_dataclass(annotation):
        return _load_dataclass(annotation, value, path)
    return _load_scalar(annotation, value, path)


def _load_union(annotation: Any, value: Any, path: str) -> Any:
    options = typing.get_args(annotation)
    if value is None and type(None) in options:
        return None
    options = [option for option in options if option is not type(None)]
    if len(options) == 1:
        return _load(options[0], value, path)
    for option in options:
        try:
            return _load(option, value, path)
        except ConfigError:
            continue
    raise ConfigError(f"{path}: expected {' or '.join(map(type_name, options))}, got {_shown(value)}")


def _load_literal(annotation: Any, value: Any, path: str) -> Any:
    options = typing.get_args(annotation)
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    if isinstance(value, str) and value not in map(str, options):
        raise unknown(path, "value", value, [str(option) for option in options])
    raise ConfigError(f"{path}: expected one of {', '.join(map(str, options))}, got {_shown(value)}")


def _load_tuple(annotation: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path}: expected a list, got {_shown(value)}")
    items = typing.get_args(annotation)
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_load(items[0], item, f"{path}.{i}") for i, item in enumerate(value))
    if len(items) != len(value):
        raise ConfigError(f"{path}: expected {len(items)} values, got {len(value)}")
    return tuple(_load(kind, item, f"{path}.{i}") for i, (kind, item) in enumerate(zip(items, value, strict=True)))


def _load_dict(annotation: Any, value: Any, path: str) -> dict[str, Any]:
    _, item = typing.get_args(annotation)
    mapping = _mapping(value, path)
    if isinstance(item, type) and issubclass(item, Family) and item.keyed:
        return {key: _load_kind(item, key, entry, _join(path, key), _join(path, key)) for key, entry in mapping.items()}
    return {key: _load(item, entry, _join(path, key)) for key, entry in mapping.items()}


def _load_member(family: type[Family], value: Any, path: str) -> Any:
    mapping = dict(_mapping(value, path))
    kind = mapping.pop(family.tag, family.default)
    if kind is None:
        raise ConfigError(f"{path}: needs '{family.tag}', one of {', '.join(sorted(family.members)) or 'none yet'}")
    return _load_kind(family, kind, mapping, path, _join(path, family.tag))


def _load_kind(family: type[Family], kind: Any, settings: Any, path: str, kind_path: str) -> Any:
    """The member `kind` of `family`, whose settings stand at `path` and whose kind at `kind_path`."""
    if not isinstance(kind, str) or kind not in family.members:
        word = family.__name__.removesuffix("Config").lower()
        raise unknown(kind_path, word, str(kind), family.members)
    return _load_dataclass(family.members[kind], settings, path)


def _load_dataclass(cls: Any, value: Any, path: str) -> Any:
    mapping = _mapping(value, path)
    hints = field_types(cls)
    for key in mapping:
        if key not in hints:
            raise unknown(path, "key", key, hints)
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in mapping:
            raise ConfigError(f"{_join(path, field.name)}: missing, expected {type_name(hints[field.name])}")
    values = {key: _load(hints[key], item, _join(path, key)) for key, item in mapping.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(_join(path, str(error))) from None


def _load_scalar(annotation: Any, value: Any, path: str) -> Any:
    if annotation is float and not isinstance(value, bool):
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max:  # refuses nan as well
            return float(value)
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise ConfigError(f"{path}: expected {type_name(annotation)}, got {_shown(value)}")


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'config'}: expected a mapping, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{path or 'config'}: keys are strings, got {_shown(key)}")
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def type_name(annotation: Any) -> str:
    """How an annotation is called in messages and help texts, such as `int or null` or `plain | shared`."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"mapping to {type_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Family) and Family in annotation.__bases__:
        return " | ".join(sorted(annotation.members)) or "nothing yet"
    return {"str": "string", "bool": "true or false", "float": "number"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation))
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
