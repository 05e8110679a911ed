"""The bench for whole jobs of a user: read a table, open an array, load a checkpoint.

`python -m rangeio_bench.jobs SUITE FOLDER` measures the jobs of one suite (`make bench-tables`, `make bench-tensors`).
A job has one *way* for each library that can do it. All ways run once per round, in a new order each time, and ratios
are computed within a round: what else the machine does concerns all of them. FOLDER keeps the data of the jobs, which
are generated once.

job            jobs, ways, limits
runner         the rounds, in this process or each run in a child of its own
report         the tables
suites         the modules of each suite; a module has a tuple `JOBS`
page_cache     the page cache before a run
servers        what jobs read from: a server that is near, and one as slow as a distant one

To add a job: write a `Job` into `JOBS` of a module that `suites` names. `Job.place` prepares data and servers and
yields a `Place`, strings by name, that the ways get; a way is a function of it. What a way returns is compared by
`Job.same` with the result of the first way.
"""
