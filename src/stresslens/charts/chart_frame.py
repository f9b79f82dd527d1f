"""SVG chart frame: the box with its axes."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import escape

from stresslens.charts.axes import HUGE, Axis

Point = tuple[float, float]

WIDTH = 440
"""Width of a chart, in the drawing's units; at most 14.2 of them to a rem."""


@dataclass(frozen=True)
class ChartFrame:
    """The box that the axes span, in the drawing's units."""

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = 280
    top: int = 34
    bottom: int = 44
    right: float = 16

    @property
    def left(self) -> float:
        return 12 + 7.2 * max(map(len, self.y.labels))

    @property
    def inside(self) -> float:
        return self.width - self.left - self.right

    @property
    def tall(self) -> int:
        return self.height - self.top - self.bottom

    def across(self, x: float) -> float:
        return self.left + self.inside * self.x.place(x)

    def down(self, y: float) -> float:
        return self.top + self.tall * (1 - self.y.place(y))

    def at(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f} {self.down(y):.1f}"

    def axes(self, x_label: str, y_label: str) -> list[str]:
        svg = [f'<text class="unit" x="2" y="14">{escape(y_label)}</text>']
        for tick, label in zip(self.y.ticks, self.y.labels):
            y = f"{self.down(tick):.1f}"
            svg.append(f'<path class="grid" d="M{self.left:.1f} {y}h{self.inside:.1f}"/>')
            svg.append(f'<text class="end" x="{self.left - 6:.1f}" y="{y}" dy=".33em">{label}</text>')
        floor = self.height - self.bottom + 17
        for tick, label in zip(self.x.ticks, self.x.labels):
            svg.append(f'<text class="mid" x="{self.across(tick):.1f}" y="{floor}">{label}</text>')
        middle = f"{self.left + self.inside / 2:.1f}"
        svg.append(f'<text class="mid" x="{middle}" y="{self.height - 8}">{escape(x_label)}</text>')
        return svg

    @property
    def scales(self) -> str:
        """The `data-` attributes from which the read-out computes values at positions in the
        drawing."""
        box = f"{self.left:.1f} {self.top} {self.inside:.1f} {self.tall}"
        ends = " ".join(
            f"{axis.ticks[0]:.8g} {axis.ticks[-1]:.8g} {int(axis.log)}" for axis in (self.x, self.y)
        )
        return f' data-box="{box}" data-ends="{ends}"'


def is_drawable(value: float) -> bool:
    return abs(value) <= HUGE
