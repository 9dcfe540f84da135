"""Rows as text: one table per case and precision, with one line per variant and one column per quantity."""

from collections.abc import Sequence

from benchmarks.rows import Row

# A case with more inputs gets a table with one line per input.
_MOST_COLUMNS = 12


def table(rows: Sequence[Row], names: bool = False) -> str:
    """Return the rows of one case as text. `names` adds the names of functions with unexpected verdicts."""
    lines = [f"{rows[0].case.partition('/')[0]}: value (10th to 90th percentile)"]
    inputs = list(dict.fromkeys(row.case for row in rows if "/" in row.case))
    programs = list(dict.fromkeys(row.variant for row in rows if "/" in row.case))
    if len(inputs) > _MOST_COLUMNS:
        # One line per input and one column per program, because a line per program would be too long.
        counts = {(row.case, row.variant): _cell(row) for row in rows}
        widths = [max(len(p), *(len(counts.get((case, p), "")) for case in inputs)) for p in programs]
        left = max(map(len, inputs))
        for case in ("", *inputs):
            texts = [counts.get((case, p), "") if case else p for p in programs]
            lines.append(f"  {case:{left}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True)))
        rows = [row for row in rows if "/" not in row.case]
    for precision in dict.fromkeys(row.precision for row in rows):
        mine = [row for row in rows if row.precision == precision]
        columns = list(dict.fromkeys(_title(row) for row in mine))
        cells = {(row.variant, _title(row)): _cell(row) for row in mine}
        variants = list(dict.fromkeys(row.variant for row in mine))
        widths = [max(len(column), *(len(cells.get((v, column), "")) for v in variants)) for column in columns]
        left = max(len(precision), *map(len, variants))
        lines.append(f"  {precision:{left}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True)))
        for variant in variants:
            texts = [f"{cells.get((variant, c), ''):>{w}}" for c, w in zip(columns, widths, strict=True)]
            notes = ", ".join(note for row in mine if row.variant == variant for note in _notes(row))
            lines.append(f"  {variant:{left}}  {'  '.join(texts)}  {notes}".rstrip())
        for row in mine:
            lines += _below(row, names)
    return "\n".join(lines)


def _title(row: Row) -> str:
    part = row.case.partition("/")[2]
    words = [part] if part and row.quantity == "evaluations" else [row.quantity]
    return f"{words[0]} [{row.unit}]" if row.unit not in ("evaluations", "checks") else words[0]


def _cell(row: Row) -> str:
    if row.value is None:
        return "–"
    if row.spread is None:
        return f"{row.value:.4g}" if isinstance(row.value, float) else f"{row.value:,}"
    return f"{row.value:.4g} ({row.spread[0]:.4g} to {row.spread[1]:.4g})"


def _notes(row: Row) -> list[str]:
    """Return the ratio, the arithmetic rate and the accuracy in `details`, as texts for the line of the variant."""
    notes = []
    if ratio := row.numbers("ratio"):
        middle, *ends = ratio
        notes.append(f"{middle:.3g} × {row.text('baseline')}" + (" ({:.3g} to {:.3g})".format(*ends) if ends else ""))
    for gflops in row.numbers("gflops"):
        peak: float | None = row.host.get("peak_gflops")
        share = f", {gflops / peak:.0%} of the peak" if peak else ""
        notes.append(f"{gflops:.1f} GFLOP/s{share}")
    notes += [f"{accuracy:.1%} correct after one unit" for accuracy in row.numbers("accuracy")]
    return notes


def _below(row: Row, names: bool) -> list[str]:
    """Return the lines below the table: the texts in `details`, and with `names` the functions listed there."""
    texts = {k: v for k, v in row.details.items() if isinstance(v, str) and k not in ("baseline", "growing")}
    lines = [f"    {name}: {text}" for name, text in texts.items()]
    if names and "functions" in row.details:
        lines.append(f"    {row.variant}, {row.quantity}: {'; '.join(row.details['functions'])}")
    return lines
