"""`python -m quality_judge` is the command line."""

from quality_judge.cli import main

main()
