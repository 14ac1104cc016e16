"""What every test process and all that it starts have in common."""

import os

# numpy's BLAS, which nothing here uses, starts a thread per core when it is loaded: that is time in each of hundreds of processes
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
