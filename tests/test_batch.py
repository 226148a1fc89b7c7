"""Group commit without a timer."""

import asyncio
from collections.abc import Sequence

import pytest

from redrive.batch import Batcher, Questions, Turn


async def test_what_queues_while_a_batch_is_written_is_the_next_batch() -> None:
    batches: list[list[int]] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    async def flush(given: Sequence[int]) -> list[int]:
        batches.append(list(given))
        begun.set()
        await gate.wait()
        return [-number for number in given]

    batcher = Batcher(flush)
    first = asyncio.create_task(batcher.submit([1]))
    await begun.wait()
    others = [asyncio.create_task(batcher.submit([number])) for number in (2, 3, 4)]
    await asyncio.sleep(0)

    gate.set()

    assert [await first, *[await other for other in others]] == [[-1], [-2], [-3], [-4]]
    assert batches == [[1], [2, 3, 4]]


async def test_batches_of_two_kinds_gather_while_the_other_is_written() -> None:
    batches: list[list[str]] = []
    gates = {"accept": asyncio.Event(), "record": asyncio.Event()}

    async def flush(given: Sequence[str]) -> list[str]:
        batches.append(list(given))
        await gates[given[0]].wait()
        return list(given)

    turn = Turn()
    accepting, recording = Batcher(flush, turn), Batcher(flush, turn)
    tasks = [asyncio.create_task(accepting.submit(["accept"]))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(recording.submit(["record"])) for _ in range(2)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(recording.submit(["record"])) for _ in range(2)]

    gates["accept"].set()
    gates["record"].set()
    await asyncio.gather(*tasks)

    assert batches == [["accept"], ["record"] * 4]


async def test_a_batch_does_not_wait_for_one_that_takes_long() -> None:
    stuck = asyncio.Event()

    async def wait(given: Sequence[int]) -> list[int]:
        await stuck.wait()
        return list(given)

    async def answer(given: Sequence[int]) -> list[int]:
        return list(given)

    turn = Turn()
    first = asyncio.create_task(Batcher(wait, turn).submit([1]))
    await asyncio.sleep(0)

    assert await Batcher(answer, turn).submit([2]) == [2]
    assert not first.done()
    stuck.set()
    assert await first == [1]


async def test_a_group_is_never_split_and_a_batch_keeps_to_its_size() -> None:
    batches: list[int] = []

    async def flush(given: Sequence[int]) -> list[int]:
        batches.append(len(given))
        return list(given)

    batcher = Batcher(flush, most=10)

    results = await asyncio.gather(*(batcher.submit(list(range(size))) for size in (6, 6, 4, 25)))

    assert [len(result) for result in results] == [6, 6, 4, 25]
    assert batches == [6, 10, 25]


async def test_a_failing_flush_fails_its_own_batch_only() -> None:
    failing = iter([True, False])

    async def flush(given: Sequence[int]) -> list[int]:
        if next(failing):
            raise OSError("full")
        return list(given)

    batcher = Batcher(flush)

    with pytest.raises(OSError, match="full"):
        await batcher.submit([1])

    assert await batcher.submit([2]) == [2]
    assert batcher.queued == 0


async def test_a_submitter_that_leaves_does_not_stop_the_others() -> None:
    gate = asyncio.Event()

    async def flush(given: Sequence[int]) -> list[int]:
        await gate.wait()
        return list(given)

    batcher = Batcher(flush)
    leaver, stayer = (asyncio.create_task(batcher.submit([number])) for number in (1, 2))
    await asyncio.sleep(0)
    leaver.cancel()

    gate.set()

    assert await stayer == [2]


async def test_whoever_waits_for_a_batch_that_is_given_up_does_not_wait_for_ever() -> None:
    async def flush(_: Sequence[int]) -> list[int]:
        await asyncio.Event().wait()
        return []

    batcher = Batcher(flush)
    waiting = asyncio.create_task(batcher.submit([1]))
    await asyncio.sleep(0)

    await batcher.close(0)

    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert batcher.queued == 0


async def test_a_flush_that_is_cut_off_from_within_takes_nobody_else_with_it() -> None:
    flushes = 0

    async def flush(given: Sequence[int]) -> list[int]:
        nonlocal flushes
        flushes += 1
        if flushes == 1:
            raise asyncio.CancelledError  # of something that it waited for
        return list(given)

    batcher = Batcher(flush, most=1)
    first, second = (asyncio.create_task(batcher.submit([number])) for number in (1, 2))
    await asyncio.wait([first, second])

    assert first.cancelled()
    assert await second == [2]
    assert batcher.queued == 0


async def test_who_queues_behind_a_batch_that_is_given_up_does_not_wait_for_ever() -> None:
    async def flush(_: Sequence[int]) -> list[int]:
        await asyncio.Event().wait()
        return []

    batcher = Batcher(flush, most=1)
    waiting = [asyncio.create_task(batcher.submit([number])) for number in range(3)]
    await asyncio.sleep(0)

    await batcher.close(0)

    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)
    assert batcher.queued == 0


class Answers:
    """Answers questions in batches, each once its gate is open."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.questions = Questions(self._answer)
        self._begun = asyncio.Semaphore(0)

    async def _answer(self, asked: Sequence[int]) -> list[int]:
        self.asked.append(list(asked))
        gate = asyncio.Event()
        self.gates.append(gate)
        self._begun.release()
        await gate.wait()
        return [-number for number in asked]

    def ask(self, number: int) -> asyncio.Task[Sequence[int]]:
        return asyncio.create_task(self.questions.submit([number]))

    async def begun(self) -> None:
        """Once another batch is being answered."""
        await self._begun.acquire()


async def test_what_is_asked_while_others_are_answered_is_asked_together() -> None:
    answers = Answers()
    first = answers.ask(1)
    await answers.begun()
    others = [answers.ask(number) for number in (2, 3)]
    await asyncio.sleep(0)

    answers.gates[0].set()
    await answers.begun()
    answers.gates[1].set()

    assert [await first, *[await other for other in others]] == [[-1], [-2], [-3]]
    assert answers.asked == [[1], [2, 3]]


async def test_an_answer_that_takes_long_holds_up_nobody_who_asks_later() -> None:
    answers = Answers()
    stuck = answers.ask(1)
    await answers.begun()
    later = answers.ask(2)

    await answers.begun()
    answers.gates[1].set()

    assert await later == [-2]
    assert not stuck.done()
    assert answers.questions.queued == 1
    answers.gates[0].set()
    assert await stuck == [-1]


async def test_who_asked_and_went_away_is_not_asked_for() -> None:
    answers = Answers()
    first = answers.ask(1)
    await answers.begun()
    leaver, stayer = answers.ask(2), answers.ask(3)
    await asyncio.sleep(0)
    leaver.cancel()

    answers.gates[0].set()
    await answers.begun()
    answers.gates[1].set()

    assert (await first, await stayer) == ([-1], [-3])
    assert answers.asked == [[1], [3]]
    assert answers.questions.queued == 0
