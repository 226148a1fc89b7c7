"""How a task tells that it is to end from that something ended which it waited for."""

import asyncio


def is_to_end() -> bool:
    """Whether the running task was itself cancelled; else a CancelledError in it is another's, and a bug."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
