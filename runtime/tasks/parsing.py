"""A command line that is wrong is refused in one line, with the exit code of wrong usage.

Invoke's parser lets some of them pass: it takes its own options after a task, too, where they have no effect or another
meaning than one thinks (`-f` names a configuration file of Invoke's, `-c` a file of tasks). Others end with a
traceback.
"""

from typing import Any, NoReturn

from invoke.exceptions import Exit, ParseError
from invoke.parser import ParserContext
from invoke.parser.parser import ParseMachine

from env.errors import UsageError

_handle = ParseMachine.handle


class WrongUsageError(ParseError, Exit):
    """Invoke prints it as the one, and ends with the exit code of the other."""

    def __init__(self, words: str, context: ParserContext) -> None:
        Exit.__init__(self, code=UsageError.exit_code)
        self.args, self.context = (words,), context


def _handle_word(machine: ParseMachine, token: str) -> None:
    context, core = machine.context, machine.initial.flags
    in_task = context is not None and context.name is not None and not machine.waiting_for_flag_value
    if in_task and token in core and token not in context.flags and core[token].name != "help":
        machine.error(f"No idea what {token!r} is!")
    try:
        _handle(machine, token)
    except ValueError:  # of a flag's kind, which is called on what was typed
        flag: Any = machine.flag
        kinds = {int: "a whole number", float: "a number"}
        machine.error(f"--{flag.names[0]}: {token!r}, expected {kinds.get(flag.kind, 'another value')}")


def _refuse(machine: ParseMachine, words: str) -> NoReturn:
    name = machine.context.name if machine.context else None
    raise WrongUsageError(f"{words} → invoke {name} --help" if name else f"{words} → invoke --list", machine.context)


def be_strict() -> None:
    """Refuse such command lines from here on."""
    ParseMachine.handle = _handle_word  # type: ignore[assignment, method-assign]
    ParseMachine.error = _refuse  # type: ignore[assignment, method-assign]
