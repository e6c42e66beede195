#!/usr/bin/env python3
"""Draws docs/performance.svg from target/bench/summary.json, which `make bench` writes."""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
LEFT, WIDTH, BAR, GAP = 230, 460, 18, 8
OURS, FLOOR, PART = "#2f6f9f", "#b9c4cc", "#d98e32"


def panels(figures):
    """Each panel: its title, its unit, and its bars as (name, value, colour)."""
    hits = []
    for name, kind in [("a new connection each", "new_connection"), ("keep-alive", "keep_alive")]:
        hits.append((f"agent, {name}", figures[f"hit_{kind}_cpu_us"], OURS))
        hits.append((f"bare server, {name}", figures[f"floor_{kind}_cpu_us"], FLOOR))
    steady = []
    for name, kind in [("a new connection each", "new_connection"), ("keep-alive", "keep_alive")]:
        steady.append((f"agent, {name}", figures[f"hit_steady_{kind}_cpu_s_per_100k"], OURS))
        steady.append((f"bare server, {name}", figures[f"floor_steady_{kind}_cpu_s_per_100k"], FLOOR))
    memory = [
        ("at start", figures["rss_start_mib"], OURS),
        ("250 pods, everything on", figures["rss_250_pods_mib"], OURS),
        ("of which Kubernetes", figures["rss_250_pods_of_kubernetes_mib"], PART),
        ("10,000 identities", figures["rss_10k_identities_mib"], OURS),
    ]
    return [
        ("CPU time of one hit, as fast as it goes", "µs", hits),
        ("CPU time of 100,000 hits at 600 a second", "s", steady),
        ("Resident memory", "MiB", memory),
    ]


def drawn(all_panels):
    y, parts = 8, []
    for title, unit, bars in all_panels:
        y += 18
        parts.append(f'<text x="8" y="{y}" class="title">{escape(title)} ({unit})</text>')
        y += 10
        longest = max(value for _, value, _ in bars)
        for name, value, colour in bars:
            width = max(1, round(WIDTH * value / longest))
            middle = y + BAR - 5
            parts.append(f'<text x="{LEFT - 8}" y="{middle}" class="name">{escape(name)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width}" height="{BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + width + 6}" y="{middle}">{value:.1f}</text>')
            y += BAR + GAP
        y += 12
    size = f'width="{LEFT + WIDTH + 60}" height="{y}"'
    style = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.name{text-anchor:end}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def main():
    figures = json.loads((ROOT / "target/bench/summary.json").read_text())
    (ROOT / "docs/performance.svg").write_text(drawn(panels(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
