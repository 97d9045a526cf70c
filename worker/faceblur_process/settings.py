"""Settings of a process, in one place: each field of its class is an environment variable and a flag.

Its ``--help`` and the page of the documentation are made from the class as well.
"""

from __future__ import annotations

import argparse
import enum
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict


class ConfigurationError(Exception):
    """A setting is wrong or cannot be used; the message is one line that names it."""


def _address(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):\d{1,5}", value) or int(value.rpartition(":")[2]) > 65535:
        raise ValueError("it has to be HOST:PORT, an IPv6 host in brackets")
    return value


Address = Annotated[str, AfterValidator(_address)]
LogLevel = Annotated[
    str,
    Field(pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`."),
]
LogFormat = Annotated[str, Field(pattern="^(json|text)$", description="`json` or `text`.")]


class Settings(BaseSettings):
    """What the settings of all processes have in common.

    A subclass sets ``env_prefix``, and ``hide_input_in_errors`` where a value may have a password in it.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(kind: type[SettingsT], arguments: Sequence[str], *, program: str, description: str) -> SettingsT:
    """Read the settings from flags and the environment; a flag wins.

    Args:
        kind: The settings of the process.
        arguments: The command line without the program's name.
        program: How the program is called, for ``--help``.
        description: What it does, for the same.

    Raises:
        ConfigurationError: A value is wrong.
        SystemExit: The command line asks for help or cannot be read.
    """
    example = next(iter(kind.model_fields))
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"Each flag is also an environment variable: {flag(example)} is {_variable(kind, example)}.",
        allow_abbrev=False,
    )
    for name, field in kind.model_fields.items():
        text = f"{_meaning(field)} [{_default(field) or 'unset'}]".replace("%", "%%").replace("`", "")
        parser.add_argument(flag(name), dest=name, default=argparse.SUPPRESS, metavar="VALUE", help=text)
    return read(kind, vars(parser.parse_args(arguments)))


def read(kind: type[SettingsT], given: Mapping[str, Any] | None = None) -> SettingsT:
    """Read the settings from the environment.

    Args:
        kind: The settings of the process.
        given: Those that a command line says, by the fields' names; they win.

    Raises:
        ConfigurationError: A value is wrong.
    """
    given = given or {}
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["loc"]:
        name = str(first["loc"][0])
        where = flag(name) if name in given else _variable(kind, name)
        if not kind.model_config.get("hide_input_in_errors"):
            where += f" is {given.get(name, first['input'])!r}"
        message = f"{where}: {message[0].lower()}{message[1:]}"
    raise ConfigurationError(message)


def unknown_variables(kind: type[Settings], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names that look like settings but are none, most likely typing mistakes.

    Kubernetes adds variables for every Service in the namespace; those are left out.
    """
    prefix = _variable(kind, "")
    known = {_variable(kind, name) for name in kind.model_fields}
    services = [name.removesuffix("SERVICE_HOST") for name in environment if name.endswith("_SERVICE_HOST")]
    of_services = tuple(service + part for service in services for part in ("SERVICE_", "PORT"))
    return sorted(n for n in environment if n.startswith(prefix) and n not in known and not n.startswith(of_services))


def table(fields: Mapping[str, FieldInfo], prefix: str, *, flags: bool = True) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        fields: What it lists, by name.
        prefix: Of the variables.
        flags: They are flags, too.
    """
    lines = [f"| variable |{' flag |' if flags else ''} default | meaning |", "|---" * (3 + flags) + "|"]
    for name, field in fields.items():
        as_flag = f" `{flag(name)}` |" if flags else ""
        default = f"`{_default(field)}`" if _default(field) else ""
        lines.append(f"| `{prefix}{name.upper()}` |{as_flag} {default} | {_meaning(field)} |")
    return lines


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def _variable(kind: type[Settings], name: str) -> str:
    return kind.model_config.get("env_prefix", "") + name.upper()


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, tuple | frozenset | dict):
        return ",".join(sorted(map(str, value)))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _meaning(field: FieldInfo) -> str:
    """The description, with the values of an enumeration, also of one in a list or an optional one."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return f"{field.description} One of {', '.join(f'`{member.value}`' for member in kind)}."
    return field.description or ""
