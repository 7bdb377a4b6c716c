"""What operators type: `invoke --list` shows all. The tasks are in runtime/tasks, by what they are about."""

from runtime.tasks.kit import config, lock, readme, versions
from runtime.tasks.model import smoke, train_demo, transcribe

__all__ = ["config", "lock", "readme", "smoke", "train_demo", "transcribe", "versions"]
