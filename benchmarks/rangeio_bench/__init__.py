"""The bench behind `rangeio bench`, and the workloads of the project's benchmarks.

units               formatting of figures
work, sample        the reads, and the files that are read
contender           the base class of contenders; they are in `baselines`, `peers`, `fio` and `ours`
cases               the cases and their targets
conditions, runner  the state of the machine, and the rounds
results             the results; `report` and `page` show them
command, session    the command, and one run of it
"""
