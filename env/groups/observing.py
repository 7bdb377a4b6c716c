"""What the server tells of its work."""

from pydantic_settings import BaseSettings


class ObservingSettings(BaseSettings):
    """Logs."""
