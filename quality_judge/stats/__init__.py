"""Numbers about a judge: metrics with intervals, calibration, certified thresholds. Numpy and scipy only.

Nothing here knows of models, files or Spark: arrays go in, numbers and small frozen dataclasses come out.
"""
