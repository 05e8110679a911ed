"""`python -m rangeio_bench.jobs.child JOB WAY PLACE`: one run in a new process; prints its figures."""

import json
import sys

from rangeio_bench.jobs.runner import child

if __name__ == "__main__":
    job, way, place = sys.argv[1:]
    print(child(job, way, json.loads(place)))
