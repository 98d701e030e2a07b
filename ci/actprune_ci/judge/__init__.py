"""Whether a change is a regression.

`verdict` is the rule for one figure, `ab_run` applies it to the figures of one A/B run, `gate` to
several runs, which become a `report` of `findings`. `policy` says what counts, `budgets` and
`health` look at bounds and at the machine. `statistics` has the mathematics, `calibrate` measures
how far it can be trusted on a machine and leaves a `calibration_record`. `from_store` finds the
runs that are judged.
"""
