import pytest
from exhibited import Ingredients, ingredients_of


@pytest.fixture(scope="session")
def ingredients(small_devkit) -> Ingredients:
    """A few images of EmojiVOC and the recorded detector; no test changes them."""
    return ingredients_of(small_devkit)
