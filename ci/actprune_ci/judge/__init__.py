"""Whether a change is a regression.

`verdict` has the rule for one figure and applies it to the figures of one A/B run, `gate` to
several runs and their machine, which become the findings of a `report`. `policy` says what counts,
`budgets` looks at bounds. `statistics` has the mathematics, `calibrate` measures how far it can be
trusted on a machine and leaves a `calibration_record`. `from_store` finds the runs that are judged.
"""
