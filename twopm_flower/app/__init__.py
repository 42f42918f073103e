"""The Flower app of the showcase: logistic regression on the student data."""
