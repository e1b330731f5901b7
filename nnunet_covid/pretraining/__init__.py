"""Masked autoencoding of a trainer's network on unlabelled images, for ``nnUNetv2_train -pretrained_weights``."""
