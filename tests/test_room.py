"""How many bytes of invoices are in memory at once."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.room import HELD_PER_BYTE, Room

MEGABYTE = 2**20


def held(documents: list[int]) -> float:
    return sum(documents) * HELD_PER_BYTE


async def carried(room: Room, sizes: list[int]) -> int:
    """Take documents of these sizes through the room at once; return the most bytes that were there together."""
    inside: list[int] = []
    most = 0

    async def one(size: int) -> None:
        nonlocal most
        async with room.place() as place:
            place.holds(b"x" * size)
            inside.append(size)
            most = max(most, sum(inside))
            await asyncio.sleep(0)
            inside.remove(size)

    await asyncio.gather(*(one(size) for size in sizes))
    assert room._taken == 0
    assert not room._waiting
    return most


async def test_no_more_is_held_than_there_is_room_for() -> None:
    room = Room(limit=12 * MEGABYTE, largest=10 * MEGABYTE)
    most = await carried(room, [MEGABYTE] * 20)
    assert held([most]) <= 12 * MEGABYTE
    assert most > MEGABYTE, "small ones go side by side once it is known that they are small"


async def test_the_first_is_expected_to_be_as_large_as_may_be() -> None:
    room = Room(limit=64 * MEGABYTE, largest=10 * MEGABYTE)
    entered = [asyncio.create_task(_stay(room)) for _ in range(16)]
    await asyncio.sleep(0)
    assert sum(task.get_name() == "in" for task in entered) == 2
    for task in entered:
        task.cancel()
    await asyncio.gather(*entered, return_exceptions=True)
    assert room._taken == 0


async def _stay(room: Room) -> None:
    async with room.place():
        task = asyncio.current_task()
        assert task is not None
        task.set_name("in")
        await asyncio.Event().wait()


async def test_what_is_larger_than_the_room_goes_alone() -> None:
    room = Room(limit=MEGABYTE, largest=10 * MEGABYTE)
    assert await carried(room, [3 * MEGABYTE, 3 * MEGABYTE]) == 3 * MEGABYTE


async def test_who_gives_up_waiting_takes_nothing() -> None:
    room = Room(limit=MEGABYTE, largest=MEGABYTE)
    async with room.place():
        waiting = asyncio.create_task(_stay(room))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert await carried(room, [MEGABYTE]) == MEGABYTE


async def test_who_is_cancelled_as_the_turn_comes_gives_it_back() -> None:
    room = Room(limit=MEGABYTE, largest=MEGABYTE)
    async with room.place():
        waiting = asyncio.create_task(_stay(room))
        await asyncio.sleep(0)
    waiting.cancel()  # admitted as the first left, not yet running
    await asyncio.gather(waiting, return_exceptions=True)
    assert await carried(room, [MEGABYTE]) == MEGABYTE


@given(sizes=st.lists(st.integers(0, 3000), max_size=30), limit=st.integers(1, 5000), largest=st.integers(1, 3000))
def test_everybody_gets_a_turn_and_all_is_given_back(sizes: list[int], limit: int, largest: int) -> None:
    asyncio.run(carried(Room(limit=limit, largest=largest), sizes))
