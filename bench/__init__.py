"""How fast is it? `python -m bench`; see docs/explanation/speed.md.

Nothing here is a test: a time says something only beside another one, taken in the same run on the
same machine. So each number is compared with its alternatives, taken by turns in random order, and
the least and the median are told.

`_inside`, `_outside` and `_loops` run in processes of their own, as the gate can never be taken
back from one; so do `_undo` and `_writes`, each for one database. `suite/` is what the measured
runs of pytest are made of.
"""
