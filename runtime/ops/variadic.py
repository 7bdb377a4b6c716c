"""`invoke transcribe a.wav b.wav`: a positional argument that takes many values, which Invoke's parser lacks.

Invoke asks an argument for its value to learn whether it still wants one, and once more, when the task's arguments end,
to learn whether one is missing. `Files` always wants one more, until the parser ends.
"""

from invoke.parser import Argument
from invoke.parser.parser import ParseMachine
from invoke.tasks import Task

_complete_context = ParseMachine.complete_context


class Files(Argument):
    """Collects every token that is no flag."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name=name, kind=list, positional=True, help=help)
        self.complete = False

    @property
    def value(self) -> list[str] | None:
        """None while there is room for more, and where nothing was given."""
        return self._value if self.complete and self._value else None

    @value.setter
    def value(self, token: str) -> None:
        self._value = [*(self._value or []), token]


class VariadicTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `files` takes many values: `@task(klass=VariadicTask)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `files` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [Files(a.name or "", help=a.help or "") if a.name == "files" else a for a in arguments]


def _end_files(machine: ParseMachine) -> None:
    for argument in machine.context.args.values() if machine.context else ():
        if isinstance(argument, Files):
            argument.complete = True
    _complete_context(machine)


ParseMachine.complete_context = _end_files  # type: ignore[assignment, method-assign]
