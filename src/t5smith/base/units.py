"""Numbers and durations in short forms, for lines on the screen."""

from __future__ import annotations


def count(number: float) -> str:
    """A short form of a number: 950, 12.3k, 4.56M."""
    if abs(number) < 9_999.5:
        return f"{number:,.0f}"
    thousands = 0
    # Compare the rounded number, so that 999,700 is 1M and not 1e+03k.
    while abs(float(f"{number:.3g}")) >= 1000 and thousands < 4:
        number, thousands = number / 1000, thousands + 1
    return f"{float(f'{number:.3g}'):g}{' kMGT'[thousands]}"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def about(seconds: float) -> str:
    """A forecast duration in two digits: 45 s, 2.4 min, 12 min, 3.4 h, 5.2 days."""
    amount, unit = max(0.0, seconds), "s"
    for size, name in ((60, "min"), (60, "h"), (24, "days")):
        # Compare the rounded number, so that 99.7 is 1.7 min and not 1e+02 s.
        if float(f"{amount:.2g}") >= 100:
            amount, unit = amount / size, name
    if unit == "s":
        return f"{amount:.0f} s" if amount >= 1 else "1 s"
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{float(f'{amount:.2g}'):,.0f} {unit}"
