"""Reads the settings, and says where each has its value from.

A value comes from the first of these that has one:

1. the variable `ASR_…` in the environment, or else in the file `.env` at the project's root,
2. for a setting that the kit hands on to torch_npu, CANN or OpenMP: their own variable, in the same places,
3. the profile `env/profiles/<ASR_PROFILE>.env`,
4. the default.

A variable that is set but empty counts as not set: compose files pass on what the host does not know as empty.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from env.errors import UsageError
from env.field import PREFIX, allowed, is_secret, note, variable
from env.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent
PROFILES = PROJECT / "env" / "profiles"
ENV_FILE = PROJECT / ".env"  # what an operator does not want to type each time


class SettingsError(UsageError):
    """A setting that does not exist, or a value that it cannot have. `subject` is the variable."""


def load_settings(environment: Mapping[str, str] | None = None, *, kind: type[Settings] = Settings) -> Settings:
    """The settings in force, as an instance of `kind`; the module's docstring lists the sources. `environment` takes
    the place of the process's environment and of the file.

    Raises SettingsError for a profile that does not exist, an `ASR_` variable that means nothing and a value that its
    setting cannot have.
    """
    fields = kind.model_fields
    given = operator_environment() if environment is None else environment
    profile = given.get(variable("profile")) or str(fields["profile"].default)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def set_values(found: Mapping[str, str], origin: str) -> None:
        values.update(found)
        origins.update(dict.fromkeys(found, origin))

    def source_of(key: str) -> str:
        return ENV_FILE.name if environment is None and not os.environ.get(key) else "environment"

    set_values(read_profile(profile, kind=kind), f"env/profiles/{profile}.env")
    for name, field in fields.items():
        if text := given.get(note(field, "exports")):
            set_values({name: text}, f"{source_of(note(field, 'exports'))}, {note(field, 'exports')}")
    for key, text in given.items():
        if key.startswith(PREFIX):
            set_values(_by_name({key: text}, kind, source_of(key)), source_of(key))
    try:
        settings = kind(**values)
    except ValidationError as error:
        raise _refusal(error, kind, origins) from None
    settings._origins.update(origins)
    return settings


def operator_environment() -> dict[str, str]:
    """The process's environment, and where it does not set them, the variables of the file `.env`.

    Raises SettingsError where that file sets what is no setting.
    """
    if not ENV_FILE.exists():
        return dict(os.environ)
    try:
        found = {key: text or "" for key, text in dotenv_values(ENV_FILE, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(ENV_FILE.name, f"cannot be read: {error}") from None
    native = {note(field, "exports") for field in Settings.model_fields.values()}
    for key in found:
        if not key.startswith(PREFIX) and key not in native:
            raise SettingsError(
                key, f"is no setting of the kit (found in {ENV_FILE.name})", "`invoke config` lists them"
            )
    return {**found, **{key: text for key, text in os.environ.items() if text or key not in found}}


def profile_names() -> list[str]:
    """Names of the profiles in env/profiles, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.env"))


def read_profile(name: str, *, kind: type[Settings] = Settings) -> dict[str, str]:
    """The texts that `env/profiles/<name>.env` sets, by field. Raises SettingsError for a missing or odd file."""
    if name not in profile_names():
        advice = f"choose from: {', '.join(profile_names())}"
        raise SettingsError(variable("profile"), f"there is no profile {name!r}", advice)
    lines = dotenv_values(PROFILES / f"{name}.env", interpolate=False)
    found = _by_name({key: text or "" for key, text in lines.items()}, kind, f"env/profiles/{name}.env")
    if "profile" in found:
        raise SettingsError(variable("profile"), f"is for the environment, not for env/profiles/{name}.env")
    return found


def exports(settings: Settings) -> dict[str, str]:
    """The variables that torch_npu, CANN and OpenMP must find in the environment when they load."""
    found = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if note(field, "exports") and value is not None:
            found[note(field, "exports")] = str(under_project(value) if isinstance(value, Path) else value)
    return found


def under_project(path: str | Path) -> Path:
    """`path`; if it is relative, as seen from the project's root."""
    return PROJECT / Path(path).expanduser()


def _by_name(variables: Mapping[str, str], kind: type[Settings], origin: str) -> dict[str, str]:
    """The texts of those variables that are not empty, by field; SettingsError for a variable that means nothing."""
    names = {variable(name): name for name in kind.model_fields}
    for unknown in sorted(variables.keys() - names.keys()):
        near = difflib.get_close_matches(unknown.upper(), names, n=1)
        advice = f"did you mean {near[0]}?" if near else "`invoke config` lists the settings there are"
        raise SettingsError(unknown, f"is no setting of the kit (found in {origin})", advice)
    return {names[key]: text for key, text in variables.items() if text}


def _refusal(error: ValidationError, kind: type[Settings], origins: Mapping[str, str]) -> SettingsError:
    """The values that pydantic refused, in an operator's words. A secret is not repeated."""
    subjects, reasons = [], []
    for problem in error.errors():
        name = str(problem["loc"][0])
        field = kind.model_fields[name]
        _, _, native = origins[name].partition(", ")
        subjects.append(native or variable(name))
        value = "the value" if is_secret(field) else repr(problem["input"])
        reasons.append(f"{value} (from {origins[name]}) is not allowed, expected {allowed(field)}")
    return SettingsError(", ".join(subjects), "; ".join(reasons), "correct it, then see `invoke config`")
