"""The bench for objects on a server: `rangeio bench URL`.

paced          a server that is as slow as a distant one, and counts requests and bytes
clients        the contenders; `awaiting`: async ones, `ours`: rangeio
cases          the cases and their targets
remote         the rounds, and the state before each run
"""
