"""Lung masks: from the lungmask package where it is at hand, else by threshold and shape.

Start at ``segment.segment_lungs``; everything else is one way of doing it, or draws the result.
"""
