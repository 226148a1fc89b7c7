from importlib.metadata import version

import redrive


def test_the_package_says_the_version_that_is_installed() -> None:
    assert redrive.__version__ == version("redrive")
