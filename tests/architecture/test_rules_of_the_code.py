"""What no linter checks."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getmembers, isclass
from typing import Final

from eventsourcing.domain import Aggregate

from api.errors import REFUSALS
from api.openapi import ERRORS
from domain.aggregates import PREFIXES
from domain.cards import passes_luhn
from domain.errors import DomainError
from domain.payment import ALLOWED, COMMANDS_BY_STATUS
from infrastructure.bank_simulator.profiles import PARTNER_CARDS, TEST_CARDS
from tests.architecture.sources import Source, sources, texts
from tests.builders import UNKNOWN_VISA

# Who may look at the environment beside the settings, and why.
READERS_OF_THE_ENVIRONMENT: Final = {
    "infrastructure/settings.py": "the settings themselves",
    "infrastructure/bank_simulator/__main__.py": "another company, with settings of its own",
    "api/server.py": "hands the number of threads to the server's processes",
    "api/wsgi.py": "takes the number of threads from the server's first process",
    "api/metrics.py": "the metrics' library has its folder from there, and nowhere else",
    "scripts/cli.py": "hands what it started to the server's processes",
    "scripts/bootstrap.py": "runs before there are settings: what pip and uv are told",
    "scripts/up.py": "starts programs, each with an environment",
    "scripts/mutants.py": "starts tests, each with an environment",
    "scripts/reality/system.py": "starts programs, each with an environment",
}
CATCH_EVERYTHING: Final = {
    "infrastructure/duties.py": "the loop outlives whatever happens to one piece of its work",
    "infrastructure/webhooks/deliverer.py": "the loop outlives one delivery and one event",
    "infrastructure/projections/batches.py": "what cannot be read is kept, with its error",
    "infrastructure/projections/engine.py": "a follower that fails is looked for again",
    "infrastructure/projections/follower.py": "what cannot be taken in is kept, with its error",
    "infrastructure/projections/lab.py": "code that somebody gives may fail in any way",
    "infrastructure/verification/postings.py": "what a replay fails with is what is found",
    "infrastructure/verification/replay.py": "what cannot be read is found, however it fails",
    "infrastructure/verification/written.py": "what a replay fails with is what is found",
}
LIKE_SQL: Final = re.compile(
    r"\b(SELECT\b.+\bFROM|INSERT\s+INTO|UPDATE\b.+\bSET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX|DATABASE)"
    r"|DROP\s+(TABLE|DATABASE)|TRUNCATE)\b",
    re.DOTALL,
)
LONGEST_FUNCTION: Final = 40
DIGITS: Final = re.compile(r"(?<![0-9A-Za-z.])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z.])")
PUBLISHED_BY_PROCESSORS: Final = (
    "4222222222222",
    "36227206271667",
    "38520000023237",
    "6011000990139424",
    "6205500000000000004",
)
AT_THE_EDGES_OF_BRANDS: Final = (
    "2221000000000009",
    "2720990000000007",
    "341111111111111",
    "6500000000000002",
    "9999999999999995",
)
KNOWN_CARDS: Final = {
    UNKNOWN_VISA,
    *TEST_CARDS,
    *(card.number for card in PARTNER_CARDS),
    *PUBLISHED_BY_PROCESSORS,
    *AT_THE_EDGES_OF_BRANDS,
}
MACHINE_PATH: Final = re.compile(r"(?<![\w.}*])/(?:work|home|Users|root|workspace)/\w")


def test_only_the_settings_read_the_environment() -> None:
    readers = {source.name for source in sources() if list(environment_reads(source))}

    of_measurements = {name for name in readers if name.startswith("scripts/bench/")}
    assert readers - of_measurements == set(READERS_OF_THE_ENVIRONMENT)


def environment_reads(source: Source) -> Iterator[ast.AST]:
    for node in source.places(ast.Attribute):
        assert isinstance(node, ast.Attribute)
        of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
        if of_os and node.attr in {"environ", "environb", "getenv", "putenv"}:
            yield node
    for node in source.places(ast.ImportFrom):
        assert isinstance(node, ast.ImportFrom)
        if node.module == "os" and {name.name for name in node.names} & {"environ", "getenv"}:
            yield node


def test_no_statement_of_sql_is_built_from_strings() -> None:
    built = [
        f"{source.name}:{node.lineno}"
        for source in sources()
        for node in source.places(ast.JoinedStr, ast.BinOp, ast.Call)
        if isinstance(node, ast.expr) and is_built_sql(node)
    ]

    assert built == []


def is_built_sql(node: ast.expr) -> bool:
    """Whether it is an f-string, a sum, a `%` or a `.format` of text that reads as SQL."""
    match node:
        case ast.JoinedStr(values=parts):
            return bool(LIKE_SQL.search("".join(constant_text(part) for part in parts)))
        case ast.BinOp(left=left, op=ast.Add() | ast.Mod()):
            return bool(LIKE_SQL.search(constant_text(left)))
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            return bool(LIKE_SQL.search(text))
        case _:
            return False


def constant_text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else " x "


def test_every_exception_is_caught_only_by_those_who_outlive_it_or_to_be_raised_again() -> None:
    caught = [
        f"{source.name}:{node.lineno}"
        for source in sources()
        for node in source.places(ast.ExceptHandler)
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
        if source.name not in CATCH_EVERYTHING
    ]

    assert caught == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    names = {None} if handler.type is None else {
        node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)
    }  # fmt: skip
    ends_by_raising = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return bool(names & {None, "Exception", "BaseException"}) and not ends_by_raising


def test_every_refusal_has_a_status_that_is_documented_and_a_code() -> None:
    kinds = list(subclasses(DomainError))

    assert len(kinds) > 10
    for kind in kinds:
        status, error_type = REFUSALS[kind.refusal]
        assert status in ERRORS, kind
        assert error_type, kind
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code), kind


def subclasses(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_state_that_refuses_a_command_has_a_code() -> None:
    codes = {code for by_status in COMMANDS_BY_STATUS.values() for code in by_status.values()}

    for code in codes - {ALLOWED}:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)


def test_no_function_is_longer_than_forty_lines() -> None:
    too_long = {
        f"{source.name}:{node.name}": length
        for source in sources()
        for node in source.places(ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }

    assert too_long == {}


def test_no_card_number_is_written_down_but_those_of_well_known_test_cards() -> None:
    strange = {
        (name, found.group())
        for name, text in texts()
        for found in DIGITS.finditer(text)
        if passes_luhn(digits := re.sub(r"\D", "", found.group())) and digits not in KNOWN_CARDS
        if set(digits) != {"0"}
    }

    assert strange == set()


def test_no_file_knows_whose_machine_it_was_written_on() -> None:
    assert [name for name, text in texts() if MACHINE_PATH.search(text)] == []


def test_every_process_that_reads_the_log_knows_all_that_is_in_it() -> None:
    kinds = {
        kind
        for source in sources()
        if source.name.startswith("domain/")
        for _, kind in getmembers(import_module(source.name[:-3].replace("/", ".")), isclass)
        if issubclass(kind, Aggregate) and kind is not Aggregate
    }

    assert kinds == set(PREFIXES)
