"""Images beside those of the COVID data set: of other diseases and unlabelled, and what a training learns from them."""
