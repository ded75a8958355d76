"""The exception whose message is shown to the user."""


class UserError(Exception):
    """Something that the user can fix. The message says in one line what is wrong, where, and what to do."""


class UntrustedModelError(UserError):
    """A registered model is not the one that its run made, or not signed as it must be."""
