"""Lines of PASS and MISS."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Bars:
    """What a bench is held to."""

    missed: bool = False
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, passed: bool, value: object, target: object, n: object) -> None:
        self.missed |= not passed
        self.lines.append(f"{'PASS' if passed else 'MISS'} {name} {value} {target} {n}")
