"""The one exception that means 'the input is at fault', with the mend in its message."""


class InputError(Exception):
    """Bad input: the message names the file, the value and what to do about it."""
