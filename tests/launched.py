"""What test_launch starts: `well` ends, `badly` makes the first process fail while the others wait for minutes."""

import os
import sys
import time

rank = int(os.environ["RANK"])
sys.stdout.write(f"rank {rank} of {os.environ['WORLD_SIZE']}, process {os.getpid()}\n")
if sys.argv[1] == "badly":
    while len(os.listdir(sys.argv[2])) < int(os.environ["WORLD_SIZE"]) - 1:  # the others are at work
        if rank:
            open(os.path.join(sys.argv[2], str(os.getpid())), "w").close()
            time.sleep(300)
        time.sleep(0.01)
    sys.exit(3)
