"""The audit as one HTML page with thumbnails: for the user's disk, never to be committed."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from training.studies.audit import Audit

__all__ = ["write_page"]

THUMBNAIL = 120
MOST = 60
"""Groups or films shown in a section; the counts beside them are of all."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1e293b; }
table { border-collapse: collapse; }
td, th { text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #cbd5e1; }
td.bar { width: 20rem; } td.bar i { display: block; height: .8rem; background: #0d9488; }
.group { display: flex; flex-wrap: wrap; gap: .4rem; padding: .6rem 0; border-bottom: 1px solid #e2e8f0; }
figure { margin: 0; width: 120px; font-size: 11px; overflow-wrap: anywhere; } img { background: #000; max-width: 100%; }
.notice { border: 1px solid #d97706; padding: .5rem .8rem; border-radius: .5rem; }
"""


def _thumbnail(film: np.ndarray) -> str:
    scale = THUMBNAIL / max(film.shape)
    small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()


def _figure(audit: Audit, index: int, caption: str) -> str:
    film = audit.data.films[index]
    name = html.escape(film.name)
    return (
        f"<figure title='{name}'><img alt='{name}' src='data:image/jpeg;base64,"
        f"{_thumbnail(audit.decoded[index].display())}'>{html.escape(caption)}</figure>"
    )


def _bars(rows: Iterable[tuple[str, int]], whole: int) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count:,}</td>"
        f"<td class='bar'><i style='width:{100 * count / max(whole, 1):.1f}%'></i></td></tr>"
        for name, count in rows
    )
    return f"<table>{cells}</table>"


def _groups(audit: Audit, groups: Sequence[np.ndarray]) -> str:
    films = audit.data.films
    return "".join(
        "<div class='group'>"
        + "".join(
            _figure(audit, i, f"{audit.data.classes[films[i].label]}, {films[i].part or 'no part'}") for i in group[:8]
        )
        + (f"<p>and {len(group) - 8} more</p>" if len(group) > 8 else "")
        + "</div>"
        for group in groups[:MOST]
    )


def write_page(audit: Audit, folder: Path) -> Path:
    """Writes ``index.html`` into ``folder``.

    Returns:
        The page.
    """
    summary, films = audit.summary, audit.data.films
    numbers = audit.grouping.groups
    near = summary["near_duplicates"]
    checked = near["brute_force"]
    planted = "; ".join(f"{kind}: {found}" for kind, found in near["recall_of_planted_copies"].items())
    members = sorted((np.flatnonzero(numbers == n) for n in np.unique(numbers)), key=len, reverse=True)
    several = [group for group in members if len(group) > 1]
    contradictory = [group for group in several if len({films[i].label for i in group}) > 1]
    crossing = [group for group in several if len({films[i].part for i in group} - {""}) > 1]
    whole = summary["films"]
    overview = [
        ("films", whole),
        ("files that are byte for byte another one", summary["exact_copies"]["files_that_are_copies"]),
        ("different films, near-duplicates counted once", near["different_films"]),
        ("films with a near-duplicate", near["films_in_groups_of_several"]),
        *near["across_parts"].items(),
        ("groups with contradictory labels", len(contradictory)),
        ("films with letters or arrows (estimate)", summary["marks"]["films_with_letters_or_arrows"]),
        ("films with colour", summary["marks"]["films_with_colour"]),
        ("labels that look wrong (suspicion)", summary["suspected_labels"]["suspected"]),
    ]
    judged = {row["film"]: row["judged"] for row in summary["suspected_labels"]["most_doubtful"]}
    doubtful = "".join(
        _figure(audit, i, f"labelled {audit.data.classes[films[i].label]}, judged {judged[films[i].name]}")
        for i in audit.suspected[:20]
    )
    problems = "".join(
        f"<li><code>{html.escape(problem.image)}</code>: {html.escape(problem.what)}</li>"
        for problem in audit.data.problems
    )
    body = f"""<h1>{html.escape(audit.data.title)}: is it sound?</h1>
<p class="notice">For study, not for diagnosis. This page holds films; keep it to yourself.</p>
{_bars(overview, whole)}
<p>Method: {html.escape(near["method"])}. Of {checked["films"]} random films, each compared with {checked["against"]}
by brute force, {checked["twins"]} pairs are twins, of which the groups have {checked["missed_by_search"]} apart.</p>
<p>Copies planted to test the search, and found: {html.escape(planted)}.</p>
<h2>Classes</h2>{_bars(summary["by_class"].items(), whole)}
<h2>Contradictory: one film, different labels ({len(contradictory)})</h2>
{_groups(audit, contradictory)}
<h2>On several sides of the published split ({len(crossing)})</h2>
{_groups(audit, crossing)}
<h2>Largest groups ({len(several)} of several films)</h2>
{_groups(audit, several[:20])}
<h2>Labels that look wrong ({summary["suspected_labels"]["suspected"]})</h2>
<p>{html.escape(summary["suspected_labels"]["method"])}. Suspicions to look at, not corrections.</p>
<div class="group">{doubtful}</div>
<h2>Faults ({len(audit.data.problems)})</h2><ul>{problems}</ul>"""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(audit.data.title)}</title>"
        f"<style>{STYLE}</style><body>{body}</body></html>",
        encoding="utf-8",
    )
    return page
