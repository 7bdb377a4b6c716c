"""`invoke transcribe a.wav b.wav`: a positional argument that takes many values, which Invoke's parser lacks.

Invoke asks an argument for its value to learn whether it still wants one, for every word and once more when the task's
arguments end. `Files` says that it has none while there is room for more.
"""

from invoke.parser import Argument
from invoke.parser.parser import ParseMachine
from invoke.tasks import Task

_handle, _complete_context = ParseMachine.handle, ParseMachine.complete_context


class Files(Argument):
    """Collects every word that is no flag."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name=name, kind=list, positional=True, help=help)
        self.room = True

    @property
    def value(self) -> list[str] | None:
        """None while there is room for more."""
        return None if self.room else self._value

    @value.setter
    def value(self, word: str) -> None:
        self._value = [*(self._value or []), word]


class VariadicTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `files` takes many values: `@task(klass=VariadicTask)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `files` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [Files(a.name or "", help=a.help or "") if a.name == "files" else a for a in arguments]


def _files(machine: ParseMachine) -> list[Files]:
    arguments = machine.context.args.values() if machine.context else ()
    return [argument for argument in arguments if isinstance(argument, Files)]


def _handle_word(machine: ParseMachine, token: str) -> None:
    """A flag is never a file, known or not; a dash alone is none, but standard input."""
    for files in _files(machine):
        files.room = token == "-" or not token.startswith("-")
    _handle(machine, token)


def _end_files(machine: ParseMachine) -> None:
    """One file at least is missing where there is none, unless help was asked for."""
    for files in _files(machine):
        files.room = not (files._value or machine.initial.flags["--help"].value)
    _complete_context(machine)


ParseMachine.handle = _handle_word  # type: ignore[assignment, method-assign]
ParseMachine.complete_context = _end_files  # type: ignore[assignment, method-assign]
