import os
import sys

if __name__ == "__main__":
    # Where standard output is closed (`>&-`), the next file to be opened gets its number, and with it what is printed.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))

    # Before torch loads OpenMP, whose threads else look around for milliseconds before they sleep at a barrier and keep
    # the cores from the workers that load images. A command owns its process and may decide this; an import of the
    # library may not, for it holds for all else in that process. What the user has set stays. benchmarks/waiting.py
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")

    from course_lib.cli import main

    main()
