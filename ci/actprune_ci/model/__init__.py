"""The data model: what the harness knows of any tool's output, and how it is read and written.

`runs` holds measurements, of one commit or of two in pairs, and the notes that a reader must know;
`serialise` turns these into JSON and back, `documents` are gate.json and history.json as others
read them.
"""
