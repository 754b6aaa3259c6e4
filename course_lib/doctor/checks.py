"""What a check is: one question that is put to a patient."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from course_lib.doctor.findings import Finding
from course_lib.doctor.patient import Patient


@dataclass(frozen=True)
class Check:
    """One question that is put to a patient.

    Attributes:
        name: as findings and reports give it.
        needs: attributes of the patient without which the question cannot be asked.
        run: gives the findings.
        learning: it trains, and so takes seconds to minutes; the others only look.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Patient], Iterable[Finding]]
    learning: bool = False

    @property
    def asks(self) -> str:
        """The question in words."""
        return (self.run.__doc__ or "").partition("\n")[0]


def check(*needs: str, learning: bool = False) -> Callable[[Callable[[Patient], Iterable[Finding]]], Check]:
    """Make a check of a function from a patient to findings; its name with hyphens is the check's.

    Args:
        needs: names of attributes of `Patient`, or several joined by "|" where one of them is enough.
    """
    return lambda function: Check(function.__name__.replace("_", "-"), needs, function, learning)
