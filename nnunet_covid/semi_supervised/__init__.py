"""Pseudo labels: which images, which voxels, in which rounds. Knows numpy and files, never nnU-Net."""
