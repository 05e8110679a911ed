"""The bench of objects on a server: `rangeio bench URL`.

paced          a server of ours that sends as slowly as a far one, and counts what it sends
clients        who reads; `awaiting` those that are awaited, `ours` rangeio
cases          what is measured and what is wanted
remote         the state of things before each run
"""
