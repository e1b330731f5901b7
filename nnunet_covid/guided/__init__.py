"""Multi-class labelling guided by an infection map (Inf-Net, §III-C): a second network sees what the first one found.

``data_set.build_guided_data_set`` makes the second stage's data set, ``prediction.predict_guided`` runs both stages.
"""
