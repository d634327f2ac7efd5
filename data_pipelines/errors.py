"""The one error type for mistakes that a user can mend."""


class InputError(ValueError):
    """An input is missing, damaged or does not fit.

    The message is one line: it names the file, key or shape at fault, then what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """
