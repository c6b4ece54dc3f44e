"""What is refused with a line for the user."""

import pytest

from singflow.errors import InputError


def refused(message, call, *arguments, **options):
    """Assert that a call is refused with a message, a regular expression; the whole message."""
    with pytest.raises(InputError, match=message) as found:
        call(*arguments, **options)
    return str(found.value)
