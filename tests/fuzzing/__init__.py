"""Damaged and hostile files, made by hypothesis and read by the real readers in a process that may crash."""
