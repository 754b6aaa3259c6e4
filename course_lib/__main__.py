import os

if __name__ == "__main__":
    # Before torch loads OpenMP, whose waiting threads else spin and keep the cores from the workers that load images.
    # A command owns its process and may decide this. An import of the library may not: it holds for all else in it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from course_lib.cli import main

    main()
