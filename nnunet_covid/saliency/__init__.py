"""Where a network looks: attention maps of its encoder's stages and Grad-CAM, per image.

Start at ``export.export_saliency``. ``maps`` holds pure functions of tensors.
"""
