"""How good a model is: its answers on labelled images, metrics with intervals, accuracy against budget."""
