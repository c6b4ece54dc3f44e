"""What is refused with a line for the user."""

import pytest

from singflow.errors import InputError


def refused(message, call, *arguments, **options):
    """Assert that a call is refused with a message, a regular expression."""
    with pytest.raises(InputError, match=message):
        call(*arguments, **options)
