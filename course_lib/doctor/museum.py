"""The bug museum: faults that people have shipped, each planted in an otherwise healthy training."""

from course_lib.doctor import (
    exhibits_data,
    exhibits_detection,
    exhibits_loss,
    exhibits_matching,
    exhibits_model,
    exhibits_optimisation,
)
from course_lib.doctor.setups import Exhibit as Exhibit
from course_lib.doctor.setups import Setup as Setup
from course_lib.doctor.setups import healthy as healthy
from course_lib.doctor.setups import in_memory as in_memory

ROOMS = (
    exhibits_data,
    exhibits_matching,
    exhibits_model,
    exhibits_loss,
    exhibits_optimisation,
    exhibits_detection,
)
EXHIBITS: dict[str, Exhibit] = {name: exhibit for room in ROOMS for name, exhibit in room.EXHIBITS.items()}
