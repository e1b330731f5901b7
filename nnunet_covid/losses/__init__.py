"""Losses of the three methods: pure functions of tensors, and thin modules around them."""
