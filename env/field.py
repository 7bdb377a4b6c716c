"""How a setting is declared: a pydantic field with what an operator must know about it."""

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import Field, JsonValue, SecretStr
from pydantic.fields import FieldInfo

PREFIX = "ASR_"

TYPE_NAMES: dict[Any, str] = {bool: "true, false", int: "whole number", float: "number", Path: "path"}


def setting(default: Any, unit: str, description: str, *, exports: str = "", form: str = "", **bounds: Any) -> Any:
    """A field of `Settings`.

    `exports` names the variable that carries the value to torch_npu, CANN or OpenMP; `form` says what is allowed
    where the type does not; `bounds` are pydantic's: ge, le, pattern.
    """
    notes: dict[str, JsonValue] = {"unit": unit, "exports": exports, "form": form}
    return Field(default, description=description, json_schema_extra=notes, **bounds)


def variable(name: str) -> str:
    """The environment variable of a field of `Settings`: `ASR_LOG_FILES` for `log_files`."""
    return PREFIX + name.upper()


def note(field: FieldInfo, key: str) -> str:
    """What `setting` noted under `key`: "unit", "exports" or "form"; empty if nothing."""
    notes = field.json_schema_extra
    return str(notes.get(key, "")) if isinstance(notes, dict) else ""


def allowed(field: FieldInfo) -> str:
    """What a field may be, in words: `auto, cpu, npu, npu:N`, or `whole number 1 to 256`."""
    notes = field.json_schema_extra
    if isinstance(notes, dict) and notes.get("form"):
        return str(notes["form"])
    kind = _kind(field)
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    least = next((entry.ge for entry in field.metadata if hasattr(entry, "ge")), None)
    most = next((entry.le for entry in field.metadata if hasattr(entry, "le")), None)
    return TYPE_NAMES.get(kind, "text") + (f" {least} to {most}" if least is not None else "")


def is_secret(field: FieldInfo) -> bool:
    """Whether the value must never be shown."""
    return _kind(field) is SecretStr


def _kind(field: FieldInfo) -> Any:
    """The field's type; that of `X | None` is X."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(field.annotation) else field.annotation
