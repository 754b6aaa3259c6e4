import pytest
from doctor.planted import in_memory
from exhibited import Ingredients, ingredients_of

from course_lib.doctor import setups


@pytest.fixture(scope="session")
def ingredients(small_devkit) -> Ingredients:
    """A few images of EmojiVOC and the recorded detector; no test changes them."""
    return ingredients_of(small_devkit)


@pytest.fixture(scope="session")
def learned(small_devkit) -> setups.InMemory:
    """All images of EmojiVOC's small devkit that are learned from; no test changes them."""
    return in_memory(small_devkit, "trainval")


@pytest.fixture(scope="session")
def held_out(small_devkit) -> setups.InMemory:
    """Those that are measured on; no test changes them."""
    return in_memory(small_devkit, "test")
