"""Multi-class labelling guided by an infection map (Inf-Net, §III-C): a second network sees what the first one found.

``dataset.build_guided_dataset`` makes the second stage's data set, ``prediction.predict_guided`` runs both stages.
"""
