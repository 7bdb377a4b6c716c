"""Failures an operator can do something about. Tasks print them in one line and exit; anything else is a bug."""


class KitError(Exception):
    """What failed, why, and what to do next.

    `subject` is the thing at fault as the operator named it (a file, a setting, a device), `reason` says what is wrong
    with it and what was expected, `advice` is the next step or command, if there is one.
    """

    exit_code = 1

    def __init__(self, subject: str, reason: str, advice: str = "") -> None:
        super().__init__(subject, reason, advice)
        self.subject, self.reason, self.advice = subject, reason, advice

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}" + (f" → {self.advice}" if self.advice else "")


class FaultError(KitError):
    """The fault is in a device, or in what serves instead of one, not in how the kit is set up: the same may work later
    without a change."""


class UsageError(KitError):
    """The fault is in what was typed: a flag, a setting, a name."""

    exit_code = 2
