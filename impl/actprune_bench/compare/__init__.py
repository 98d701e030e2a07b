"""The main job: formats compared as kernels and as training runs, into one folder."""
