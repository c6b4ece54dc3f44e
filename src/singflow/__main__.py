"""The console command, also as `python -m singflow`.

Until the command handles signals itself, Ctrl-C ends it silently, as it ends other programs.
"""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from singflow.extras import MissingExtra, explained

try:
    with explained():
        from singflow.commands import main
except MissingExtra as error:
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    main()
