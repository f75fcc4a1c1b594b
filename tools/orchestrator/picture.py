"""Draws tokens per second of each tenant over time, as an SVG."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 340, 64, 20, 46, 48
COLOURS = {"red": "#d1495b", "blue": "#2e6fb7"}
STYLE = "text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#333}.t{font-weight:600;font-size:15px}"


class Chart:
    """A chart of rates over seconds; `top` is the highest rate that it has room for."""

    def __init__(self, seconds, top, title):
        self._seconds, self._top = seconds, top
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
            f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
            f'<text class="t" x="{LEFT}" y="22">{title}</text>']
        self._axes()

    def _x(self, seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self._seconds

    def _y(self, rate):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / self._top

    def _text(self, x, y, text, anchor="middle", colour="#333"):
        self._lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}">{text}</text>')

    def _line(self, x1, y1, x2, y2, style):
        self._lines.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')

    def _axes(self):
        for rate in range(0, int(self._top) + 1, 100):
            self._line(LEFT, self._y(rate), WIDTH - RIGHT, self._y(rate), 'stroke="#e3e3e3"')
            self._text(LEFT - 8, self._y(rate) + 4, rate, "end")
        for second in range(0, int(self._seconds) + 1, 2):
            self._text(self._x(second), HEIGHT - BOTTOM + 18, second)
        self._text(WIDTH / 2, HEIGHT - 10, "seconds")
        self._text(14, TOP - 8, "tokens/s", "start")

    def rates(self, tenant, points):
        """A line through (seconds, rate), with its area."""
        path = " ".join(f"{self._x(at):.1f},{self._y(rate):.1f}" for at, rate in points)
        ends = f"{self._x(points[-1][0]):.1f},{self._y(0):.1f} {self._x(points[0][0]):.1f},{self._y(0):.1f}"
        self._lines.append(f'<polygon points="{path} {ends}" fill="{COLOURS[tenant]}" fill-opacity="0.15"/>')
        self._lines.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[tenant]}" stroke-width="2.5" '
                           'stroke-linejoin="round"/>')

    def legend(self, tenants):
        for place, tenant in enumerate(tenants):
            x = WIDTH - RIGHT - 70 * (len(tenants) - place)
            self._lines.append(f'<rect x="{x}" y="12" width="12" height="12" rx="2" fill="{COLOURS[tenant]}"/>')
            self._text(x + 18, 23, tenant, "start")

    def mark(self, seconds, text):
        """A moment at which something happened."""
        self._line(self._x(seconds), TOP, self._x(seconds), HEIGHT - BOTTOM, 'stroke="#888" stroke-dasharray="4 4"')
        self._text(self._x(seconds) + 5, TOP + 12, text, "start", "#555")

    def svg(self):
        return "\n".join(self._lines + ["</svg>", ""])
