"""Everything that touches nnU-Net's own interfaces: data sets, plans, prediction, targets."""
