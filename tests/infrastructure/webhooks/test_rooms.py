"""No endpoint takes what others need."""

from uuid import UUID

from infrastructure.webhooks.rooms import (
    FIRST_ROOM,
    LATELY,
    MOST_ROOM,
    ROOM,
    ROOM_FOR_FAILING,
    Rooms,
)

ONE, OTHER = UUID(int=1), UUID(int=2)


def after(rooms: Rooms, endpoint: UUID, *outcomes: bool | None) -> int:
    for is_ok in outcomes:
        rooms.begun(endpoint)
        rooms.ended(endpoint, is_ok=is_ok)
    return rooms.by_endpoint().get(endpoint, FIRST_ROOM)


def test_what_answers_well_is_given_more_and_more_up_to_a_limit() -> None:
    rooms = Rooms()

    assert after(rooms, ONE, True) == FIRST_ROOM + 1
    assert after(rooms, ONE, *[True] * 100) == MOST_ROOM
    assert after(rooms, OTHER) == FIRST_ROOM


def test_what_fails_is_left_one_and_one_good_answer_gives_it_more() -> None:
    rooms = Rooms()
    after(rooms, ONE, *[True] * 100)

    assert after(rooms, ONE, False) == MOST_ROOM // 2
    assert after(rooms, ONE, *[False] * 100) == 1
    assert after(rooms, ONE, True) == 2


def test_what_is_well_and_has_had_nothing_lately_is_not_named() -> None:
    rooms = Rooms()
    after(rooms, ONE, True, True)
    after(rooms, OTHER, False)

    for number in range(LATELY):
        after(rooms, UUID(int=100 + number), True)

    assert ONE not in rooms.by_endpoint()
    assert rooms.by_endpoint()[OTHER] == 1
    assert len(rooms.by_endpoint()) == LATELY + 1


def test_what_was_not_attempted_says_nothing() -> None:
    assert after(Rooms(), ONE, None, None) == FIRST_ROOM


def test_what_is_under_way_takes_room() -> None:
    rooms = Rooms()
    for _ in range(FIRST_ROOM):
        rooms.begun(ONE)

    assert rooms.by_endpoint()[ONE] == 0
    assert rooms.left == ROOM - FIRST_ROOM


def test_a_thousand_that_hang_before_that_is_known_leave_room_for_others() -> None:
    rooms = Rooms()
    for number in range(1000):
        for _ in range(FIRST_ROOM):
            rooms.begun(UUID(int=number))

    assert rooms.left > 0


def test_all_that_fail_share_a_part_and_take_turns() -> None:
    rooms, dead = Rooms(), [UUID(int=number) for number in range(2 * ROOM_FOR_FAILING)]
    for each in dead:
        after(rooms, each, False)

    first = [each for each in dead if rooms.by_endpoint()[each]]
    for each in first:
        rooms.begun(each)
    assert sum(rooms.by_endpoint()[each] for each in dead) == 0
    for each in first:
        rooms.ended(each, is_ok=False)
    second = [each for each in dead if rooms.by_endpoint()[each]]

    assert len(first) == len(second) == ROOM_FOR_FAILING
    assert {*first} | {*second} == {*dead}
    assert rooms.left == ROOM
