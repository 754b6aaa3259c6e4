"""The training doctor: why a detector does not learn.

`examine(Patient(...))` looks at whatever parts of a training it is given, also of code that is not this course's, and
gives a `Report` of `Finding`s. `VitalSigns` watches a run while it trains; `museum` holds the faults that have been
seen in the wild, each planted in an otherwise healthy training.
"""

from course_lib.doctor.examination import examine as examine
from course_lib.doctor.findings import Finding as Finding
from course_lib.doctor.findings import Report as Report
from course_lib.doctor.patient import Patient as Patient
from course_lib.doctor.vital_signs import VitalSigns as VitalSigns
