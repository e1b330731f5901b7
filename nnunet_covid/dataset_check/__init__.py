"""What nnU-Net's integrity check does not see in a raw data set: leaking patients, duplicates, misplaced masks.

Every check is a function from a ``RawDataSet`` (or what was measured on it) to ``Finding``s.
"""
