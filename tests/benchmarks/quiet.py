"""A progress that nobody watches."""


class Quiet:
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def doing(self, text: str, done: int, of: int) -> None:
        self.told.append((text, done, of))
