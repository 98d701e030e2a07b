"""What GPU kernels are before they run: compiled variants, machine code, rooflines."""
