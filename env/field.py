"""How a setting is declared: a pydantic field with what an operator must know about it."""

from typing import Any

from pydantic import Field, JsonValue
from pydantic.fields import FieldInfo

PREFIX = "ASR_"


def setting(
    default: Any, unit: str, description: str, chinese: str, *, exports: str = "", form: str = "", **bounds: Any
) -> Any:
    """A field of `Settings`.

    `exports` names the variable that carries the value to torch_npu, CANN or OpenMP; `form` says what is allowed
    where the type does not; `bounds` are pydantic's: ge, le, pattern.
    """
    notes: dict[str, JsonValue] = {"unit": unit, "chinese": chinese, "exports": exports, "form": form}
    return Field(default, description=description, json_schema_extra=notes, **bounds)


def variable(name: str) -> str:
    """The environment variable of field `name`."""
    return PREFIX + name.upper()


def note(field: FieldInfo, key: str) -> str:
    """What `setting` noted under `key`: "unit", "chinese", "exports" or "form"; empty if nothing."""
    notes = field.json_schema_extra
    return str(notes.get(key, "")) if isinstance(notes, dict) else ""
