"""What Invoke's command line lacks: many files as arguments, wrong usage refused in one line, a list apart.

Invoke takes its own options after a task, too, where they have no effect or another meaning than one thinks (`-f` names
a configuration file of Invoke's, `-c` a file of tasks); other mistakes end in a traceback. Here both are refused, with
the exit code of wrong usage.
"""

from typing import Any, NoReturn

from invoke.exceptions import Exit, ParseError
from invoke.parser import Argument, ParserContext
from invoke.parser.parser import ParseMachine
from invoke.program import Program
from invoke.tasks import Task

from env.errors import UsageError

_handle, _complete_context = ParseMachine.handle, ParseMachine.complete_context
_list_tasks = Program.list_tasks


class Files(Argument):
    """Collects every word that is no flag."""

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name=name, kind=list, positional=True, help=help)
        self.takes_more = True

    @property
    def value(self) -> list[str] | None:
        """The files so far; None while it takes more, for which Invoke goes on asking."""
        return None if self.takes_more else self._value

    @value.setter
    def value(self, word: str) -> None:
        self._value = [*(self._value or []), word]


class VariadicTask(Task):  # type: ignore[type-arg]  # generic in a way mypy cannot follow
    """A task whose parameter `files` takes many values: `@task(klass=VariadicTask)`."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's arguments, with `files` among them replaced."""
        arguments = super().get_arguments(ignore_unknown_help)
        return [Files(a.name or "", help=a.help or "") if a.name == "files" else a for a in arguments]


class WrongUsageError(ParseError, Exit):
    """Invoke prints it as the one, and ends with the exit code of the other."""

    def __init__(self, words: str, context: ParserContext) -> None:
        Exit.__init__(self, code=UsageError.exit_code)
        self.args, self.context = (words,), context


def _files(machine: ParseMachine) -> list[Files]:
    arguments = machine.context.args.values() if machine.context else ()
    return [argument for argument in arguments if isinstance(argument, Files)]


def _handle_word(machine: ParseMachine, token: str) -> None:
    """A flag is never a file, known or not; a dash alone is none, but standard input."""
    context, core = machine.context, machine.initial.flags
    in_task = context is not None and context.name is not None and not machine.waiting_for_flag_value
    if in_task and token in core and token not in context.flags and core[token].name != "help":
        machine.error(f"No idea what {token!r} is!")
    for files in _files(machine):
        files.takes_more = token == "-" or not token.startswith("-")
    try:
        _handle(machine, token)
    except ValueError:  # of a flag's kind, which is called on what was typed
        flag: Any = machine.flag
        kinds = {int: "a whole number", float: "a number"}
        machine.error(f"--{flag.names[0]}: {token!r}, expected {kinds.get(flag.kind, 'another value')}")


def _complete(machine: ParseMachine) -> None:
    """One file at least is missing where there is none, unless help was asked for."""
    for files in _files(machine):
        files.takes_more = not (files._value or machine.initial.flags["--help"].value)
    _complete_context(machine)


def _refuse(machine: ParseMachine, words: str) -> NoReturn:
    name = machine.context.name if machine.context else None
    raise WrongUsageError(f"{words} → invoke {name} --help" if name else f"{words} → invoke --list", machine.context)


def extend_invoke() -> None:
    """Have Invoke take many files and refuse wrong usage, from here on."""
    ParseMachine.handle = _handle_word  # type: ignore[assignment, method-assign]
    ParseMachine.complete_context = _complete  # type: ignore[assignment, method-assign]
    ParseMachine.error = _refuse  # type: ignore[assignment, method-assign]


def list_apart(name: str) -> None:
    """Leave the collection of that name out of `invoke --list`; `invoke --list NAME` lists it."""

    def list_tasks(self: Program) -> None:
        if not self.list_root:
            self.collection.collections.pop(name)  # Invoke ends when it has listed
        _list_tasks(self)

    Program.list_tasks = list_tasks  # type: ignore[method-assign]
