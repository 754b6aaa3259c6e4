"""What the doctor says: one finding, and the report of all of them."""

import base64
import html
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from course_lib.doctor import drawing

SEVERITIES = ("fault", "warning", "note")
STYLE = "body { max-width: 45em; margin: 1em auto; padding: 0 1em; font: 1em/1.5 sans-serif; overflow-wrap: anywhere }"


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
        severity: "fault": it cannot learn what it should with this; "warning": it learns less, or something else than
            was meant; "note": worth knowing, and common in healthy trainings.
        seen: what was found, with the number.
        why: what that does to training.
        cure: what to do.
        chapter: of the course, which explains it.
        check: the name of the check.
        picture: draws what was seen on matplotlib axes, where a picture says it better. It keeps no data but what it
            draws.
    """

    severity: str
    seen: str
    why: str
    cure: str
    chapter: int
    check: str = ""
    picture: drawing.Picture | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity!r}: use {', '.join(SEVERITIES)}")

    def as_dict(self) -> dict:
        """All but the picture."""
        names = ("check", "severity", "seen", "why", "cure", "chapter")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return (
            f"{self.severity.upper()} [{self.check}] {self.seen}\n  why: {self.why}\n  cure: {self.cure} "
            f"(chapter {self.chapter})"
        )


def fault(seen: str, why: str, cure: str, chapter: int, picture: Callable | None = None) -> Finding:
    return Finding("fault", seen, why, cure, chapter, picture=picture)


def warning(seen: str, why: str, cure: str, chapter: int, picture: Callable | None = None) -> Finding:
    return Finding("warning", seen, why, cure, chapter, picture=picture)


def note(seen: str, why: str, cure: str, chapter: int, picture: Callable | None = None) -> Finding:
    return Finding("note", seen, why, cure, chapter, picture=picture)


@dataclass(frozen=True)
class Report:
    """What an examination has found, in the order in which it looked.

    Attributes:
        findings: the first faults first cause most of what follows them.
        examined: the checks that were made.
        not_examined: the others, each with the reason: "without model and step", "as first-loss: IndexError: ...".
        seconds: that each check took.
    """

    findings: tuple[Finding, ...]
    examined: tuple[str, ...]
    not_examined: Mapping[str, str]
    seconds: Mapping[str, float]

    def of(self, *severities: str) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity in severities)

    @property
    def healthy(self) -> bool:
        """Neither a fault nor a warning."""
        return not self.of("fault", "warning")

    def verdict(self) -> str:
        """The report in one line."""
        counts = [f"{len(self.of(s))} {s}{'s' if len(self.of(s)) != 1 else ''}" for s in SEVERITIES]
        missing = f"; {len(self.not_examined)} not made" if self.not_examined else ""
        return f"{', '.join(counts)} in {len(self.examined)} checks{missing}"

    def as_dict(self) -> dict:
        return {
            "findings": [one.as_dict() for one in self.findings],
            "examined": list(self.examined),
            "not_examined": dict(self.not_examined),
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }

    def missing(self) -> dict[str, list[str]]:
        """The checks that were not made, by the reason."""
        checks: dict[str, list[str]] = {}
        for name, reason in self.not_examined.items():
            checks.setdefault(reason, []).append(name)
        return checks

    def __str__(self) -> str:
        lines = [str(one) for one in self.findings]
        lines += [f"not examined, {reason}: {', '.join(names)}" for reason, names in self.missing().items()]
        return "\n".join([*lines, self.verdict()])

    def _repr_html_(self) -> str:
        return "".join([*map(as_html, self.findings), f"<p>{html.escape(self.verdict())}</p>"])

    def page(self, title: str) -> str:
        """The report as a file of its own, which needs nothing else to be read."""
        missing = [f"not examined, {reason}: {', '.join(names)}" for reason, names in self.missing().items()]
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in missing)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{html.escape(title)}</h1>\n{self._repr_html_()}\n{rest}\n</body>\n</html>\n"
        )


def as_html(finding: Finding) -> str:
    """A finding as a page shows it."""
    seen, why, cure = (html.escape(text) for text in (finding.seen, finding.why, finding.cure))
    return (
        f"<p><strong>{finding.severity}</strong> <code>{html.escape(finding.check)}</code>: {seen}<br>"
        f"<em>Why it matters:</em> {why}<br><em>What to do:</em> {cure} (chapter {finding.chapter})</p>"
        f"{picture_of(finding)}"
    )


def picture_of(finding: Finding) -> str:
    """A finding's picture as a part of a page; nothing where there is none, or where it cannot be drawn."""
    if finding.picture is not None:
        with suppress(Exception):  # it is of a stranger's data: a report without it is better than none
            png = base64.b64encode(drawing.as_png(finding.picture)).decode()
            alt = html.escape(finding.seen)
            return f'<p><img alt="{alt}" style="max-width:100%;height:auto" src="data:image/png;base64,{png}"></p>'
    return ""
