"""A process is killed at each fault point of each operation, and nobody can tell afterwards."""

import ast
from collections.abc import Iterator
from itertools import count, cycle
from typing import Any, Final

import pytest

from tests.architecture.sources import sources
from tests.faults.a_world import Scene, World
from tests.faults.scenes import SCENES

KILLS_AT_LEAST: Final = 20
# Of a point that is passed at every wait for the database: kills spread over all of its passes.
CELLS_AT_MOST: Final = 60
KILLED: Final = -9
# What becomes of a call at the bank whose caller died before the work.
FATES: Final[tuple[dict[str, Any], ...]] = (
    {"forget": 0.0, "abandoned": "stopped"},
    {"forget": 0.0, "abandoned": "finished"},
    {"forget": 1.0},
)
# So that the bank notices in time that its caller is gone.
PAUSE: Final[dict[str, Any]] = {"min_latency_ms": 3, "max_latency_ms": 3}

Cell = tuple[str, int]


def points() -> list[str]:
    """The fault points that there are, read off the code."""
    return sorted({text for text, _ in named_points()})


def named_points() -> Iterator[tuple[str, str]]:
    for source in sources():
        for node in source.places(ast.Call):
            assert isinstance(node, ast.Call)
            is_point = isinstance(node.func, ast.Name) and node.func.id.startswith("reached")
            if is_point and source.name != "infrastructure/fault_points.py":
                assert isinstance(node.args[0], ast.Constant), "a point is named in so many words"
                yield str(node.args[0].value), f"{source.name}:{node.lineno}"


def test_no_two_fault_points_have_one_name() -> None:
    places = sorted(named_points())

    assert len({name for name, _ in places}) == len(places) > 10, places


@pytest.mark.slow
@pytest.mark.timeout(180)  # every operation passes some of them, and each pass is killed
@pytest.mark.parametrize("point", points())
def test_a_process_killed_there_leaves_one_outcome_and_books_that_agree(
    world: World, passes: dict[str, list[str]], point: str
) -> None:
    cells = [
        (name, number) for name, passed in passes.items() for number in passed_at(passed, point)
    ]
    assert cells, f"no operation of SCENES passes {point}: add one that does"
    cells = cells[:: -(-len(cells) // CELLS_AT_MOST)]

    scenes, kills = killed_at(world, point, cells)
    world.time_flies()
    for scene in scenes[::2]:  # some clients are there before any worker is, and some after
        if scene.request is not None:
            assert world.ask(scene.request).status_code in {200, 202, scene.request.final_status}
    world.recover()

    world.check(scenes)
    assert kills >= KILLS_AT_LEAST


def passed_at(passed: list[str], point: str) -> range:
    return range(1, 1 + passed.count(point))


def killed_at(world: World, point: str, cells: list[Cell]) -> tuple[list[Scene], int]:
    """Every cell once, and round again until there were kills enough."""
    scenes: list[Scene] = []
    kills, fates = 0, cycle(FATES)
    for (name, number), played in zip(cycle(cells), count()):
        if played >= len(cells) and kills >= KILLS_AT_LEAST:
            return scenes, kills
        assert played < len(cells) + 2 * KILLS_AT_LEAST, f"only {kills} died at {point}"
        scene = SCENES[name](world)
        ended = world.play(scene, dies_at=(point, number), **PAUSE, **next(fates))
        assert ended["status"] in {0, KILLED}, (name, point, number)
        kills += ended["status"] == KILLED
        scenes.append(scene)
        world.settle_down()
    raise AssertionError
