"""An asyncio loop whose time passes only while everything waits, and then at once."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for a time-out, lets it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "everything waits for something that cannot come"
            self.now_s += max(0.0, timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Timers ring in their order, and nobody waits for them."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def block(self, seconds: float) -> None:
        """Time that passes while something computes in the loop."""
        self._virtual.now_s += seconds


def run(work: Callable[[VirtualTimeLoop], Awaitable[T]]) -> T:
    """Run a coroutine function in virtual time; fails when it leaves a task behind."""
    loop = VirtualTimeLoop()

    async def main() -> T:
        result = await work(loop)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set(), left
        return result

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()
