"""Evaluate a model on labelled images: metrics with intervals, accuracy against budget, calibration, plots."""
