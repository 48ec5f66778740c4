"""`python -m runner recipe=...`"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__" and sys.path[0] == str(Path.cwd()) != str(Path(__file__).resolve().parents[1]):
    del sys.path[0]  # Python's -m looks for every module in the folder that it is started in, which may be a stranger's

if __name__ == "__main__":
    code = 130
    try:
        from runner.cli.main import main

        code = main()
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:  # while modules were imported
        print("interrupted", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is closed at the end is closed whole
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which Python may send itself to end, whatever the code
    sys.exit(code)
