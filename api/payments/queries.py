"""The language of searches, as Stripe's clients write it: clauses, joined by AND or by OR.

    amount>=1000 AND -currency:'jpy' AND metadata['order_id']:'6735'

It has no parentheses and nothing nests, so that a clause is one regular expression, and a parser
generator would have nothing to generate.
"""

import re
from typing import Final

from api.errors import ApiError, invalid
from infrastructure.search import COMPARISONS, Clause, Field, Kind, Operator, Search, Searched

MOST_CLAUSES: Final = 10
LONGEST_QUERY: Final = 2_000
SHORTEST_PART: Final = 3

QUOTED: Final = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
CLAUSE: Final = re.compile(
    rf"""\s*(?P<negated>-?)(?P<field>[a-z_][a-z0-9_.]*)(?:\[\s*(?P<key>{QUOTED})\s*\])?"""
    rf"""\s*(?P<operator>>=|<=|:|~|>|<|=)\s*(?P<value>{QUOTED}|[A-Za-z0-9_.+-]+)""",
    re.ASCII,
)
JOINED: Final = re.compile(r"\s+(?P<word>AND|OR)(?=\s)", re.ASCII | re.IGNORECASE)


def parsed(query: str, searched: Searched) -> Search:
    """What is sought. Raises ApiError, which names the query and repeats nothing of it."""
    if len(query) > LONGEST_QUERY:
        raise _bad(f"may have at most {LONGEST_QUERY} characters")
    clauses: list[Clause] = []
    words: set[str] = set()
    text, place = query.rstrip(), 0
    while True:
        match = CLAUSE.match(text, place)
        if match is None:
            raise _bad(f"is malformed at its clause {len(clauses) + 1}")
        clauses.append(_clause(match, searched))
        if len(clauses) > MOST_CLAUSES:
            raise _bad(f"may have at most {MOST_CLAUSES} clauses")
        place = match.end()
        if place == len(text):
            break
        joined = JOINED.match(text, place)
        if joined is None:
            raise _bad(f"is malformed after its clause {len(clauses)}")
        words.add(joined["word"].upper())
        place = joined.end()
    if len(words) > 1:
        raise _bad("joins its clauses by AND or by OR, not by both")
    return Search(clauses=tuple(clauses), is_any=words == {"OR"})


def _clause(match: re.Match[str], searched: Searched) -> Clause:
    name, key = match["field"], match["key"]
    field = searched.fields.get(name)
    if field is None:
        raise _bad(f"has a field that there is none of; there are {_listed(searched)}")
    if (field.kind is Kind.METADATA) != (key is not None):
        raise _bad("names a key of metadata, as in metadata['key'], and of nothing else")
    operator = Operator.IS if match["operator"] == "=" else Operator(match["operator"])
    if operator not in COMPARISONS[field.kind]:
        raise _bad(f"compares {name} in a way that it cannot be compared")
    return Clause(
        field=name,
        operator=operator,
        value=_value(match["value"], name, field, operator),
        key=None if key is None else _unquoted(key),
        is_negated=match["negated"] == "-",
    )


def _value(text: str, name: str, field: Field, operator: Operator) -> str | int | bool | None:
    if text.lower() == "null" and operator is Operator.IS:
        return None
    quoted = text[0] in "'\""
    plain = _unquoted(text) if quoted else text
    match field.kind:
        case Kind.NUMBER:
            if not re.fullmatch(r"-?[0-9]{1,15}", plain, re.ASCII):
                raise _bad(f"compares {name} with what is no whole number")
            return int(plain)
        case Kind.TRUTH:
            if plain.lower() not in ("true", "false"):
                raise _bad(f"compares {name} with what is neither true nor false")
            return plain.lower() == "true"
        case _:
            return _text(plain, name, field, operator, quoted=quoted)


def _text(plain: str, name: str, field: Field, operator: Operator, *, quoted: bool) -> str:
    if not quoted:
        raise _bad(f"compares {name} with what is not in quotes")
    if field.values is not None and plain.lower() not in field.values:
        raise _bad(f"compares {name} with what it never is")
    if operator is Operator.CONTAINS and len(plain) < SHORTEST_PART:
        raise _bad(f"seeks a part of {name} of less than {SHORTEST_PART} characters")
    return plain


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _listed(searched: Searched) -> str:
    return ", ".join(sorted(searched.fields))


def _bad(what: str) -> ApiError:
    return invalid("invalid_param", f"The query {what}.", "query")
