"""A world without a network: the engine of `rangeio.http` under a clock, servers and faults that a seed decides."""
