"""The console command, also as `python -m singflow`: until it heeds signals itself, Ctrl-C ends it as it ends other programs."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from singflow.commands import main

if __name__ == "__main__":
    main()
