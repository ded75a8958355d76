"""The one exception that is written for the user."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one line."""
