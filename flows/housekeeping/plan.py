"""What a look found: what would go, what stays, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Item:
    """One thing that was looked at."""

    kind: str
    """Such as `run`, `version`, `folder`."""
    name: str
    reason: str
    """Why it goes, or why it stays."""
    bytes: int = 0
    """What its removal would free."""


@dataclass(frozen=True)
class Doomed:
    """An item with the way to remove it."""

    item: Item
    remove: Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """The outcome of a look; `apply` carries it out."""

    goes: tuple[Doomed, ...]
    stays: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """What would be freed."""
        return sum(one.item.bytes for one in self.goes)

    def apply(self) -> None:
        """Remove what goes, one after the other. Raises CvdmError; what is left goes the next time."""
        for one in self.goes:
            one.remove()

    def as_json(self, *, applied: bool) -> dict[str, Any]:
        """Plain values."""
        return {
            "applied": applied,
            "bytes": self.bytes,
            "goes": [asdict(one.item) for one in self.goes],
            "stays": [asdict(item) for item in self.stays],
        }

    def summary(self, *, applied: bool) -> str:
        """The plan for people."""
        verb = "went" if applied else "would go"
        lines = [f"{len(self.goes)} {verb}, {megabytes(self.bytes)}; {len(self.stays)} stay"]
        lines += [f"  {'gone ' if applied else 'goes '} {_line(one.item)}" for one in self.goes]
        lines += [f"  stays {_line(item)}" for item in self.stays]
        if self.goes and not applied:
            lines.append("Nothing was changed; --apply does it.")
        return "\n".join(lines)


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.1f} MB"


def _line(item: Item) -> str:
    size = f" ({megabytes(item.bytes)})" if item.bytes else ""
    return f"{item.kind} {item.name}{size}: {item.reason}"
