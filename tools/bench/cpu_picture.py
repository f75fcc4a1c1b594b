"""Draws what tools/bench/cpu has saved: a table for the README and an SVG.

usage: python -m tools.bench.cpu_picture RESULT.json [PICTURE.svg]     prints the table
"""

import json
import pathlib
import sys

WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 860, 300, 90, 64, 46, 15
COLOURS = {"fermata": "#2e6fb7", "llama_cpp": "#a9a9a9"}
STYLE = "text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#333}.t{font-weight:600;font-size:15px}"


def table(result):
    """The rows as a table in Markdown, one column for each instruction set."""
    columns = sorted(result["columns"], reverse=True)
    lines = ["| tokens/s, llama.cpp's, ratio | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for place, row in enumerate(result["columns"][columns[0]]["rows"]):
        cells = []
        for column in columns:
            one = result["columns"][column]["rows"][place]
            cells.append(f"{one['fermata_tokens_per_s']:,.0f}, {one['llama_cpp_tokens_per_s']:,.0f}, "
                         f"**{one['ratio']:.1f}x**")
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _bar(x, y, width, colour, text):
    return (f'<rect x="{x}" y="{y:.0f}" width="{max(width, 1):.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
            f'<text x="{x + width + 6:.1f}" y="{y + 12:.0f}">{text}</text>')


def svg(result, instructions):
    """Two bars for each row, each row on a scale of its own: what counts is their ratio."""
    rows = result["columns"][instructions]["rows"]
    height = TOP + STEP * len(rows) + 16
    title = f"Tokens per second on {result['cpu']}, {result['threads']} threads, {instructions}"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
             f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">', f"<style>{STYLE}</style>",
             f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
             f'<text class="t" x="24" y="26">{title}</text>']
    for place, (side, name) in enumerate((("fermata", "Fermata"), ("llama_cpp", "llama.cpp"))):
        lines.append(f'<rect x="{24 + 90 * place}" y="38" width="12" height="12" rx="2" fill="{COLOURS[side]}"/>'
                     f'<text x="{42 + 90 * place}" y="49">{name}</text>')
    for place, row in enumerate(rows):
        y = TOP + STEP * place
        rates = {side: row[f"{side}_tokens_per_s"] for side in COLOURS}
        lines.append(f'<text x="{LEFT - 12}" y="{y + 20}" text-anchor="end">{row["name"]}</text>')
        for line, (side, colour) in enumerate(COLOURS.items()):
            width = (WIDTH - LEFT - RIGHT - 60) * rates[side] / max(rates.values())
            text = f"{rates[side]:,.0f}" + (f" ({row['ratio']:.1f}x)" if side == "fermata" else "")
            lines.append(_bar(LEFT, y + line * (BAR + 2), width, colour, text))
    return "\n".join(lines + ["</svg>", ""])


def main(arguments):
    result = json.loads(pathlib.Path(arguments[0]).read_text(encoding="utf-8"))
    if len(arguments) > 1:
        pathlib.Path(arguments[1]).write_text(svg(result, sorted(result["columns"])[-1]), encoding="utf-8")
    print(table(result), end="")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
