"""What is wrong: one thing each, with the place, what must be there and what is."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from domain.aggregates import prefix_of
from domain.ids import encode

# Whoever broke everything is told so by the first of it; the rest is counted.
MOST_OF_A_PART: Final = 1_000


class Kind(StrEnum):
    """What can be wrong."""

    EVENT_CHANGED = "event_changed"
    EVENT_MISSING = "event_missing"
    EVENT_TWICE = "event_twice"
    EVENT_MISPLACED = "event_misplaced"
    EVENT_UNREADABLE = "event_unreadable"
    TIME_CHANGED = "time_changed"
    VERSION_MISSING = "version_missing"
    ORDER_CHANGED = "order_changed"
    CHAIN_BROKEN = "chain_broken"
    LOG_TRUNCATED = "log_truncated"
    LEAF_DIFFERS = "leaf_differs"
    SEALING_BROKEN = "sealing_broken"
    TREE_BROKEN = "tree_broken"
    CHECKPOINT_FORGED = "checkpoint_forged"
    CHECKPOINT_DIFFERS = "checkpoint_differs"
    CHECKPOINT_MISSING = "checkpoint_missing"
    CHECKPOINT_KEY_UNKNOWN = "checkpoint_key_unknown"
    COSIGNATURE_WRONG = "cosignature_wrong"
    OUTSIDE_CHECKPOINT_DIFFERS = "outside_checkpoint_differs"
    HISTORY_IMPOSSIBLE = "history_impossible"
    ROW_DIFFERS = "row_differs"
    ROW_MISSING = "row_missing"
    ROW_WITHOUT_EVENTS = "row_without_events"
    ROWS_NOT_COMPARED = "rows_not_compared"
    SET_ASIDE = "set_aside"
    POSTINGS_UNBALANCED = "postings_unbalanced"
    BALANCE_DIFFERS = "balance_differs"
    ORPHAN = "orphan"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing. `position`: in its shard; `log_position`: in the one order of the tree; `id`: as it is
    published, where it is of a kind that has such ids."""

    kind: Kind
    says: str
    table: str | None = None
    shard: int | None = None
    position: int | None = None
    log_position: int | None = None
    aggregate: str | None = None
    id: str | None = None
    version: int | None = None
    expected: str | None = None
    found: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is known of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def line(self) -> str:
        """In one line: where, then what."""
        places = {
            "": self.id or self.aggregate,
            "version ": self.version,
            "shard ": self.shard,
            "position ": self.position,
            "log position ": self.log_position,
            "table ": self.table,
        }
        where = ", ".join(f"{name}{at}" for name, at in places.items() if at is not None)
        told = f"{self.kind.value}: {self.says}" + (f" [{where}]" if where else "")
        if self.expected is not None:
            told += f": must be {self.expected}, is {self.found}"
        elif self.found is not None:
            told += f": {self.found}"
        return told


@dataclass(slots=True)
class Findings:
    """What one part of the work found: the first of it, and how much there is."""

    kept: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, kind: Kind, says: str, **places: Any) -> None:
        """One more."""
        self.count += 1
        if len(self.kept) < MOST_OF_A_PART:
            self.kept.append(Finding(kind=kind, says=says, **places))

    def extend(self, other: "Findings") -> None:
        """Those of another part."""
        self.count += other.count
        self.kept += other.kept


def named(aggregate: UUID | str, topic: str | None) -> dict[str, str]:
    """How an aggregate is referred to: its UUID, and its published id where the topic tells its kind."""
    of_kind = prefix_of(topic or "")
    known = UUID(str(aggregate))
    return {"aggregate": str(known)} | ({} if of_kind is None else {"id": encode(of_kind, known)})
