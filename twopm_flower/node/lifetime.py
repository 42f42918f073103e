"""What runs while a ``with`` block does: started at its top, stopped however it is left."""

from abc import ABC, abstractmethod
from typing import Self


class Lifetime(ABC):
    """Starts when a ``with`` block is entered and stops when it is left.

    What was started by then is stopped, too, when starting fails half-way or is interrupted.
    """

    @abstractmethod
    def start(self) -> Self:
        """Start everything and return this object."""

    @abstractmethod
    def stop(self) -> None:
        """Stop whatever was started; may be called at any time, and again."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
