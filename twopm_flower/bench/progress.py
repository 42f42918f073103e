"""How a benchmark tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Is told how far a benchmark is."""

    def doing(self, text: str, done: int, of: int) -> None:
        """Tell what is measured now, and how many steps of how many are done."""
