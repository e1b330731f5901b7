"""Source files in, an nnU-Net raw data set out: the mechanics that every converter shares.

What is particular to one public data set (its folders, its label values, its licence) lives in
``nnunet_covid.dataset_conversion``; nothing here knows a data set by name.
"""
