"""Exceptions that applications can see."""


class TimeoutException(TimeoutError):
    """Nothing came within the time that the application gave."""


class ModelError(RuntimeError):
    """The model cannot be loaded, or refused a call; the text says why."""
