"""Everything that touches nnU-Net's own interfaces: registration, plans, targets."""
