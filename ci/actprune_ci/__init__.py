"""The harness around recorded results. Imports neither torch nor actprune: it reads files."""
