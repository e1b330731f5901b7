"""What nnU-Net's integrity check does not see in a raw data set: leaking patients, duplicates, misplaced masks.

Start at ``checks.run_checks``; every check turns what was measured on the cases into findings.
"""
