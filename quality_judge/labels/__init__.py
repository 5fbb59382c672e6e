"""Expert labels: read from files, checked and cleaned, split. It knows nothing of models, Spark or training."""

from quality_judge.labels.flat import FlatLabels, flatten
from quality_judge.labels.label_set import LabelSet, Row, completions_of, label_of, labels_of, probabilities_of
from quality_judge.labels.load import load_labels
from quality_judge.labels.split import fold_indices, group_names, split_labels
from quality_judge.labels.validate import LabelReport, as_measured, check_labels, clean_labels

__all__ = [
    "FlatLabels",
    "LabelReport",
    "LabelSet",
    "Row",
    "as_measured",
    "check_labels",
    "clean_labels",
    "completions_of",
    "flatten",
    "fold_indices",
    "group_names",
    "label_of",
    "labels_of",
    "load_labels",
    "probabilities_of",
    "split_labels",
]
