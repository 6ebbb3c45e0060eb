"""Where chance comes from."""

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """A source of luck. What it leans to, when it is made as simple as can be, is that nothing
    happens, at once."""

    def happens(self, rate: float) -> bool:
        """Whether something happens that happens to `rate` of all."""

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`."""

    def one_of(self, options: Sequence[T]) -> T:
        """One of them."""


class SeededChoices:
    """The same luck in every run of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def happens(self, rate: float) -> bool:
        """Draws only where it can make a difference."""
        return rate > 0 and self._random.random() < rate

    def between(self, low: float, high: float) -> float:
        """Evenly distributed."""
        return low + (high - low) * self._random.random()

    def one_of(self, options: Sequence[T]) -> T:
        """Each as likely as any."""
        return options[int(self._random.random() * len(options))]
