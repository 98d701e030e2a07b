"""What the harness knows of any tool's output.

`runs` and `pairs` hold measurements, `notes` what a reader must know of them; `serialise` turns
these into JSON and back, `documents` are gate.json and history.json as others read them.
"""
