"""What an executor is."""

from collections.abc import Callable
from typing import Protocol, TypeVar

Result = TypeVar("Result", covariant=True)

POLL_SECONDS = 5.0  # between two looks at whether any worker is left


class ResultFuture(Protocol[Result]):
    """A result to come."""

    def result(self, timeout: float) -> Result:
        """Wait for the result.

        Raises:
            TimeoutError: it is not there after `timeout` seconds.
        """


class Executor(Protocol):
    """Runs functions of a module, or partials of them, in other processes."""

    @property
    def crash_errors(self) -> tuple[type[BaseException], ...]:
        """What a future raises if the process that worked on it was killed."""

    def start(self, new_processes: bool) -> int:
        """Get ready to work. Returns how many tasks run at a time.

        Args:
            new_processes: in processes that have done nothing before.
        """

    def submit(self, function: Callable[..., Result], *arguments: object) -> ResultFuture[Result]:
        """Run a function in another process."""

    def abort(self) -> None:
        """Abandon everything that was submitted. Futures are not cancelled first: loky and distributed then fail."""

    def check_alive(self) -> None:
        """Raise UserError if no worker is left."""

    def connection_error(self, error: BaseException) -> BaseException:
        """What to raise for an error of the connection to the workers."""
