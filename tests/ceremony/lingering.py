"""`citycard`, and then a process that stays until it is told to go: what a command leaves behind can be looked at."""

import os
import sys

from engine.cli.main import app

app(sys.argv[1:], prog_name="citycard", standalone_mode=False)
os.write(1, b"the work is done\n")
sys.stdin.readline()
