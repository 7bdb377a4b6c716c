"""How far an engine is that is being loaded, for the health endpoint and the log."""

import logging

from runtime.engines import Observer
from runtime.progress import without_share
from runtime.server.life import Life

log = logging.getLogger(__name__)


class Loading(Observer):
    """Tells `life` the stages of an engine for `model`, until `end`; `why` there was another before, empty if there was
    none. The log has each stage once, however often it tells of its share."""

    def __init__(self, life: Life, model: str, why: str) -> None:
        self._life, self._over = life, False
        self._what = f"loading {model}{' again' if why else ''}"
        self._why = why
        self._told: set[str] = set()

    def begin(self) -> None:
        """It is being loaded."""
        self._life.enter(self._what + (f": {self._why}" if self._why else ""))

    def starting(self, stage: str) -> None:
        """It is so far."""
        if self._over:
            return
        self._life.stage = f"{self._what}: {stage}" + (f"; {self._why}" if self._why else "")
        if (kind := without_share(stage)) not in self._told:
            self._told.add(kind)
            log.info("%s: %s", self._what, stage)

    def end(self) -> None:
        """It is loaded. What a server tells that is started again while the others go on is none of this."""
        self._over = True
