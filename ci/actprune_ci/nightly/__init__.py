"""The whole night: steps of a strict YAML list, run one after the other, whatever happens."""
