"""The bench behind `rangeio bench`, and the workloads of the project's own benchmarks.

units               figures for people
work, sample        what is read, and the files it is read from
contender           who reads: the base, then `baselines`, `peers`, `fio` and `ours`
cases               what is measured and what is wanted
conditions, runner  the state of the machine, and the rounds
results             what came out; `report` and `page` show it
command, session    the command, and one call of it
"""
