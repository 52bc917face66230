"""What commands raise when a run cannot go on for a reason that the user can put right."""


class CommandError(Exception):
    """Shown as one message on standard error, without a traceback; the exit code is 1."""
