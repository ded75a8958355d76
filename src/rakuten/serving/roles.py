"""The roles of API keys, and which one each path needs."""

from enum import IntEnum

REVIEW_PATHS = "/review/"  # all that begin so, but those of the next line
ADMINISTER_PATHS = (
    "/review/products",
    "/review/export",
    "/review/decisions.csv",
    "/review/tasks.json",
    "/review/tasks.xml",
    "/review/annotations",
)


class Role(IntEnum):
    """What a key may be used for; each role includes those before it."""

    CLASSIFY = 1  # predictions, explanations, metrics
    REVIEW = 2  # the review desk
    ADMINISTER = 3  # what goes into the review desk and what comes out of it

    @property
    def word(self) -> str:
        """Its name in the file of the keys, on the command line and in responses."""
        return self.name.lower()


def required_role(path: str) -> Role:
    """The role that a path needs, whatever the method."""
    if path.rstrip("/") in ADMINISTER_PATHS:
        return Role.ADMINISTER
    return Role.REVIEW if path.startswith(REVIEW_PATHS) else Role.CLASSIFY
