"""What the harness knows of any tool's output.

`runs` holds measurements, of one commit or of two in pairs, and the notes that a reader must know;
`serialise` turns these into JSON and back, `documents` are gate.json and history.json as others
read them.
"""
