"""`python -m singflow` is the console command."""

from singflow.commands import main

if __name__ == "__main__":
    main()
