"""Everything that autograd saves: what each tensor is kept as, by rules on what it is saved for."""
