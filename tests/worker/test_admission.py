"""The gate by itself, on a clock that only tests move."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faceblur_worker.admission import Abandoned, Gate, Ticket
from faceblur_worker.errors import DeadlinePassed, DeadlineTooShort, Overloaded, ShuttingDown


class House:
    """A gate whose work takes exactly as long as a test says."""

    def __init__(self, workers: int = 1, places: int = 2, max_bytes: int = 1000) -> None:
        self.now = 0.0
        self.gate = Gate(workers=workers, places=places, max_bytes=max_bytes, clock=lambda: self.now)

    async def work(self, ticket: Ticket, seconds: float) -> None:
        """Run something that ends when `seconds` have gone by on the clock."""
        begun, proceed = threading.Event(), threading.Event()

        def job() -> None:
            begun.set()
            proceed.wait(20)

        running = asyncio.ensure_future(self.gate.run(ticket, job))
        await until(begun.is_set)
        self.now += seconds
        proceed.set()
        await running

    async def learn(self, seconds: float) -> None:
        """Let the gate know how long a picture takes."""
        with self.gate.ticket(None) as ticket:
            await self.work(ticket, seconds)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[Callable[[], None]]:
        """Keep one engine thread at work; yields what ends it."""
        release = threading.Event()
        with self.gate.ticket(None) as ticket:
            running = asyncio.ensure_future(self.gate.run(ticket, lambda: release.wait(20)))
            await until(lambda: self.gate.running > 0)
            try:
                yield release.set
            finally:
                release.set()
                await running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(20):
            await test

    asyncio.run(guarded())


def test_a_picture_that_cannot_be_done_in_time_is_refused_at_once() -> None:
    async def test() -> None:
        house = House()
        await house.learn(1.0)
        async with house.busy():
            with pytest.raises(DeadlineTooShort) as caught, house.gate.ticket(1.9):
                pass
            assert caught.value.retry_after == pytest.approx(1.0)
            with house.gate.ticket(2.1):
                pass

    run(test())


def test_with_a_free_thread_every_deadline_is_tried() -> None:
    async def test() -> None:
        house = House()
        await house.learn(100.0)
        with house.gate.ticket(0.5) as ticket:
            await house.work(ticket, 0.1)

    run(test())


def test_a_deadline_that_has_passed_is_refused() -> None:
    async def test() -> None:
        house = House()
        with pytest.raises(DeadlinePassed), house.gate.ticket(0):
            pass

    run(test())


def test_what_is_being_received_takes_a_place() -> None:
    async def test() -> None:
        house = House(workers=1, places=2)
        with house.gate.ticket(None), house.gate.ticket(None), house.gate.ticket(None):
            with pytest.raises(Overloaded) as caught, house.gate.ticket(None):
                pass
            assert caught.value.retry_after is not None
        assert house.gate.inside == 0
        with house.gate.ticket(None):
            pass

    run(test())


def test_the_bytes_of_all_pictures_are_bounded_but_one_alone_may_be_longer() -> None:
    async def test() -> None:
        house = House(max_bytes=1000)
        with house.gate.ticket(None) as first, house.gate.ticket(None) as second:
            first.received(5000)
            with pytest.raises(Overloaded):
                second.received(1)
        assert house.gate.bytes == 0

    run(test())


def test_the_deadline_is_looked_at_again_when_a_picture_has_arrived() -> None:
    async def test() -> None:
        house = House()
        await house.learn(1.0)
        async with house.busy():
            with house.gate.ticket(2.1) as ticket:
                house.now += 0.5
                with pytest.raises(DeadlineTooShort):
                    ticket.received(10)

    run(test())


def test_the_deadline_is_looked_at_again_when_the_turn_comes() -> None:
    async def test() -> None:
        house = House()
        async with house.busy() as release:
            with house.gate.ticket(5) as ticket:
                called: list[int] = []
                waiting = asyncio.ensure_future(house.gate.run(ticket, lambda: called.append(1)))
                await until(lambda: house.gate.waiting == 1)
                house.now += 6
                release()
                with pytest.raises(DeadlinePassed):
                    await waiting
                assert not called
        async with house.busy():  # and the thread is free for the next
            pass

    run(test())


def test_a_turn_that_comes_too_late_is_not_used_in_vain() -> None:
    async def test() -> None:
        house = House()
        await house.learn(1.0)
        async with house.busy() as release:
            with house.gate.ticket(2.5) as ticket:
                called: list[int] = []
                waiting = asyncio.ensure_future(house.gate.run(ticket, lambda: called.append(1)))
                await until(lambda: house.gate.waiting == 1)
                house.now += 1.6  # 0.9 s are left, and a picture takes 1 s
                release()
                with pytest.raises(DeadlineTooShort):
                    await waiting
                assert not called
        async with house.busy():
            pass

    run(test())


def test_the_time_for_receiving_and_sending_counts_as_well() -> None:
    async def test() -> None:
        house = House()
        await house.learn(1.0)
        for _ in range(200):
            with house.gate.ticket(None) as ticket:
                house.now += 0.25  # the picture arrives
                await house.work(ticket, 1.0)
                house.now += 0.25  # the result is taken
        async with house.busy():
            with pytest.raises(DeadlineTooShort), house.gate.ticket(2.4):
                pass
            with house.gate.ticket(2.6):
                pass

    run(test())


def test_after_waits_that_were_hard_to_foresee_a_margin_is_kept() -> None:
    async def enters(house: House, seconds: float) -> bool:
        async with house.busy():
            try:
                with house.gate.ticket(seconds):
                    return True
            except DeadlineTooShort:
                return False

    async def test() -> None:
        house = House()
        await house.learn(1.0)
        assert await enters(house, 2.1)  # one to wait for, one's own
        async with house.busy() as release:
            with house.gate.ticket(None) as ticket:
                waiting = asyncio.ensure_future(house.gate.run(ticket, lambda: None))
                await until(lambda: house.gate.waiting == 1)
                house.now += 4  # its turn was expected after 1 s
                release()
                await waiting
        assert not await enters(house, 2.5)  # a picture takes 1.1 s now, and the margin is about as long
        assert await enters(house, 3.5)

    run(test())


def test_pictures_are_worked_on_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        house = House(places=10)
        order: list[int] = []
        async with house.busy() as release, asyncio.TaskGroup() as group:

            async def one(number: int) -> None:
                with house.gate.ticket(None) as ticket:
                    await house.gate.run(ticket, lambda: order.append(number))

            for number in range(5):
                group.create_task(one(number))
            await until(lambda: house.gate.waiting == 5)
            release()
        assert order == list(range(5))

    run(test())


def test_a_thread_goes_on_with_the_next_picture_while_the_event_loop_is_busy() -> None:
    async def test() -> None:
        house = House()
        release, begun = threading.Event(), threading.Event()
        with house.gate.ticket(None) as first, house.gate.ticket(None) as second:
            works = [
                asyncio.ensure_future(house.gate.run(first, lambda: release.wait(20))),
                asyncio.ensure_future(house.gate.run(second, begun.set)),
            ]
            await until(lambda: (house.gate.running, house.gate.waiting) == (1, 1))
            release.set()
            assert begun.wait(20), "it blocks the loop"
            await asyncio.gather(*works)

    run(test())


def test_a_cancelled_call_that_waits_is_not_worked_on_and_gives_back_its_bytes_at_once() -> None:
    async def test() -> None:
        house = House()
        called: list[int] = []
        async with house.busy():

            async def one() -> None:
                with house.gate.ticket(None) as ticket:
                    ticket.received(10)
                    await house.gate.run(ticket, lambda: called.append(1))

            task = asyncio.ensure_future(one())
            await until(lambda: house.gate.waiting == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (house.gate.waiting, house.gate.bytes) == (0, 0)
            assert house.gate.inside == 2, "it stands in the queue till its turn comes"
        await until(lambda: house.gate.inside == 0)
        assert not called
        async with house.busy():
            pass

    run(test())


def test_work_for_a_cancelled_call_ends_at_its_next_checkpoint_and_counts_until_then() -> None:
    async def test() -> None:
        house = House()
        reached, proceed, seen = threading.Event(), threading.Event(), []

        async def one() -> None:
            with house.gate.ticket(None) as ticket:
                ticket.received(10)

                def work() -> None:
                    reached.set()
                    proceed.wait(20)
                    try:
                        ticket.checkpoint()
                    except Abandoned as error:
                        seen.append(error)
                        raise

                await house.gate.run(ticket, work)

        task = asyncio.ensure_future(one())
        await until(reached.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (house.gate.running, house.gate.inside, house.gate.bytes) == (1, 1, 10)
        proceed.set()
        await until(lambda: house.gate.running == 0)
        assert (len(seen), house.gate.inside, house.gate.bytes) == (1, 0, 0)
        async with house.busy():
            pass

    run(test())


def test_the_time_that_is_up_ends_the_work_at_a_checkpoint() -> None:
    async def test() -> None:
        house = House()
        with house.gate.ticket(5) as ticket:
            ticket.checkpoint()
            house.now = 5
            with pytest.raises(DeadlinePassed):
                ticket.checkpoint()

    run(test())


def test_streams_wait_for_a_place_and_leave_half_of_them_to_calls() -> None:
    async def test() -> None:
        house = House(workers=1, places=4)
        entered: list[int] = []
        leave = asyncio.Event()

        async def one(number: int) -> None:
            async with house.gate.patient_ticket(None, 10):
                entered.append(number)
                await leave.wait()

        tasks = [asyncio.ensure_future(one(number)) for number in range(6)]
        await until(lambda: len(entered) == 3)
        with house.gate.ticket(None), house.gate.ticket(None):  # single calls still get in
            pass
        assert entered == [0, 1, 2]
        leave.set()
        await asyncio.gather(*tasks)
        assert entered == [0, 1, 2, 3, 4, 5]
        assert (house.gate.inside, house.gate.bytes) == (0, 0)

    run(test())


def test_a_cancelled_stream_gives_its_turn_to_the_next() -> None:
    async def test() -> None:
        house = House(workers=1, places=0)
        leave = asyncio.Event()
        entered: list[int] = []

        async def one(number: int) -> None:
            async with house.gate.patient_ticket(None, 10):
                entered.append(number)
                await leave.wait()

        first, second, third = (asyncio.ensure_future(one(number)) for number in range(3))
        await until(lambda: entered == [0])
        second.cancel()
        leave.set()
        await asyncio.gather(first, third)
        assert entered == [0, 2]
        assert house.gate.inside == 0

    run(test())


def test_a_closed_gate_takes_nothing_in_but_finishes() -> None:
    async def test() -> None:
        house = House()
        with house.gate.ticket(None) as ticket:
            house.gate.close()
            with pytest.raises(ShuttingDown), house.gate.ticket(None):
                pass
            await house.work(ticket, 0.1)

    run(test())


def test_failures_do_not_spoil_the_estimate() -> None:
    async def test() -> None:
        house = House()
        await house.learn(1.0)

        def fail() -> None:
            raise ValueError

        for _ in range(100):
            with house.gate.ticket(None) as ticket, pytest.raises(ValueError):
                await house.gate.run(ticket, fail)
        async with house.busy():
            with pytest.raises(DeadlineTooShort), house.gate.ticket(1.5):
                pass

    run(test())
